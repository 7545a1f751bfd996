"""sentence-transformers in process, with torch and with its ONNX backend on the same graph; its own batch of 32."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.peers import Embed, Files


def load(files: Files) -> dict[str, Embed]:
    """`torch`, and `onnx` where that backend can open the graph."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(files.cores)
    embeds: dict[str, Embed] = {"torch": partial(_embed, SentenceTransformer(files.checkpoint, device="cpu"))}
    try:
        onnx = SentenceTransformer(
            files.checkpoint,
            device="cpu",
            backend="onnx",
            model_kwargs={"provider": "CPUExecutionProvider", "file_name": "onnx/model.onnx"},
        )
        _embed(onnx, ["a text"])
        embeds["onnx"] = partial(_embed, onnx)
    except Exception as error:  # whatever the optional backend raises, torch is still worth measuring
        print(f"sentence-transformers: no ONNX backend: {error}", file=sys.stderr)
    return embeds


def _embed(model: Any, texts: Sequence[str]) -> Any:
    return model.encode(list(texts), batch_size=32, normalize_embeddings=True, show_progress_bar=False)
