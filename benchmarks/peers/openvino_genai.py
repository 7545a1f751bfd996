"""OpenVINO GenAI in process: its own pipeline for embeddings, in the precision that it takes by itself and in bfloat16.

Texts are sorted by length and cut into batches of 8, which was its best size: it pads to the longest of a batch.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers import Embed, Files

BATCH = 8


def load(files: Files) -> dict[str, Embed]:
    """A pipeline for each precision; the converted graph and tokenizer are kept beside the checkpoint."""
    import openvino_genai

    kind = openvino_genai.TextEmbeddingPipeline
    config = kind.Config()
    config.pooling_type, config.normalize, config.max_length = kind.PoolingType.MEAN, True, 256
    folder = str(_converted(Path(files.checkpoint)))
    pipelines = {name: kind(folder, "CPU", config, INFERENCE_PRECISION_HINT=name) for name in ("f32", "bf16")}
    return {name: partial(_embed, pipeline) for name, pipeline in pipelines.items()}


def _converted(checkpoint: Path) -> Path:
    import openvino
    import openvino_tokenizers
    from transformers import AutoTokenizer

    folder = checkpoint / "openvino"
    if not (folder / "config.json").exists():
        folder.mkdir(exist_ok=True)
        graph = openvino.convert_model(str(checkpoint / "onnx" / "model.onnx"))
        openvino.save_model(graph, folder / "openvino_model.xml", compress_to_fp16=False)
        tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        openvino.save_model(
            openvino_tokenizers.convert_tokenizer(tokenizer, with_detokenizer=False), folder / "openvino_tokenizer.xml"
        )
        shutil.copy(checkpoint / "config.json", folder)
    return folder


def _embed(pipeline: Any, texts: Sequence[str]) -> Any:
    import numpy as np

    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    found: list[Any] = [None] * len(texts)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        vectors = pipeline.embed_documents([texts[number] for number in chosen])
        for number, vector in zip(chosen, vectors, strict=True):
            found[number] = vector
    return np.asarray(found, dtype=np.float32)
