"""Fastembed's own lists as rows of our table; the poolings are read off what its own code makes of numbers.

`python -m migrate.fastembed_lists` (with `PYTHONPATH=tests`) writes the table anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from fastembed import ImageEmbedding, LateInteractionTextEmbedding, SparseTextEmbedding, TextEmbedding
from fastembed.common.onnx_model import OnnxOutputContext
from fastembed.late_interaction_multimodal import LateInteractionMultimodalEmbedding
from fastembed.rerank.cross_encoder import TextCrossEncoder

from sie_triton.migrate.scan.fastembed_models import TABLE

CLASSES: tuple[tuple[Any, str], ...] = (
    (TextEmbedding, "dense"),
    (SparseTextEmbedding, "sparse"),
    (LateInteractionTextEmbedding, "multivector"),
    (LateInteractionMultimodalEmbedding, "image"),
    (ImageEmbedding, "image"),
    (TextCrossEncoder, "score"),
)
HEAD = """\
# Fastembed 0.9.1's models: task | name | file | dims | pooling | unit length | tokens, as its description says
# A pooling of `own` is the file's own, or one that only Fastembed has. Written by tests/migrate/fastembed_lists.py.
"""


def rows() -> list[str]:
    """A line for each model that Fastembed lists."""
    return [_row(kind, task, model) for top, task in CLASSES for kind in _registry(top) for model in _models(kind)]


def _registry(top: Any) -> list[Any]:
    return list(getattr(top, "EMBEDDINGS_REGISTRY", None) or top.CROSS_ENCODER_REGISTRY)


def _models(kind: Any) -> Iterator[Any]:
    yield from kind._list_supported_models()


def _row(kind: Any, task: str, model: Any) -> str:
    pooling, unit = _pooling(kind) if task == "dense" else ("", "")
    tokens = re.search(r"(\d+) input tokens truncation", model.description or "")
    dims = getattr(model, "dim", None) or ""
    cells = (task, model.model, model.model_file, dims, pooling, unit, tokens[1] if tokens else "")
    return " | ".join(str(cell) for cell in cells).rstrip()


def _pooling(kind: Any) -> tuple[str, str]:
    """What Fastembed's code does with a file's output of three axes, told by what comes out."""
    states = np.random.default_rng(1).normal(size=(1, 5, 8)).astype(np.float32)
    context = OnnxOutputContext(
        model_output=states, attention_mask=np.array([[1, 1, 1, 1, 0]]), input_ids=np.zeros((1, 5), np.int64)
    )
    try:
        vector = np.asarray(list(kind._post_process_onnx_output(object.__new__(kind), context)))
    except (AttributeError, ValueError):
        return "own", "yes" if kind.__name__ == "StaticTextEmbedding" else ""
    if vector.shape != (1, 8):
        return "own", ""
    expected = {"cls": states[0, 0], "mean": states[0, :4].mean(axis=0), "last_token": states[0, 3]}
    found = [name for name, other in expected.items() if _cosine(vector[0], other) > 0.999999]
    return found[0], "yes" if abs(np.linalg.norm(vector[0]) - 1) < 1e-5 else "no"


def _cosine(a: Any, b: Any) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


if __name__ == "__main__":
    TABLE.write_text(HEAD + "\n".join(rows()) + "\n", encoding="utf-8")
