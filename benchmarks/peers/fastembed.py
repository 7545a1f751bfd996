"""fastembed in process, on the same graph and weights: its own batch of 256, and 8, which suits a CPU better."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from benchmarks.peers import Embed, Files

_NAME = "benchmark/same-weights"


def load(files: Files) -> dict[str, Embed]:
    """Both batch sizes over one session."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model=_NAME,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=files.model_id),
        dim=384,
        model_file="onnx/model.onnx",
    )
    model = TextEmbedding(_NAME, specific_model_path=files.checkpoint, threads=files.cores)
    return {"batch 256": partial(_embed, model, 256), "batch 8": partial(_embed, model, 8)}


def _embed(model: Any, batch: int, texts: Sequence[str]) -> Any:
    import numpy as np

    return np.stack(list(model.embed(list(texts), batch_size=batch)))
