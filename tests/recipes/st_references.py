"""sentence-transformers as a second opinion on `references`: the package computes what we wrote down ourselves.

Needs `sentence-transformers` 6; the tests skip without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .references import Sparse, Vector

_LOADING = {"device": "cpu", "local_files_only": True, "model_kwargs": {"dtype": torch.float32}}


def st_reference_dense(
    folder: Path,
    texts: Sequence[str],
    *,
    is_query: bool = False,
    normalize: bool = False,
    max_length: int | None = None,
) -> list[Vector]:
    """`SentenceTransformer.encode_query` or `encode_document`, one text at a time."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), **_LOADING)
    if max_length is not None:
        model.max_seq_length = max_length
    encode = model.encode_query if is_query else model.encode_document
    return [np.asarray(encode(text, normalize_embeddings=normalize), dtype=np.float32) for text in texts]


def st_reference_sparse(
    folder: Path, texts: Sequence[str], *, prompt: str | None = None, max_length: int | None = None
) -> list[Sparse]:
    """`SparseEncoder.encode_document`, one text at a time."""
    from sentence_transformers import SparseEncoder

    model = SparseEncoder(str(folder), **_LOADING)
    if max_length is not None:
        model.max_seq_length = max_length
    return [_sparse(model.encode_document(text, prompt=prompt, convert_to_sparse_tensor=False)) for text in texts]


def _sparse(row: Any) -> Sparse:
    weights = torch.as_tensor(row).flatten()
    kept = torch.nonzero(weights > 0).flatten()
    return Sparse(kept.tolist(), weights[kept].numpy().astype(np.float32))


def st_reference_score(folder: Path, query: str, documents: Sequence[str], *, max_length: int | None) -> list[float]:
    """`CrossEncoder.predict` with the activation that the checkpoint configures, one pair at a time."""
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), max_length=max_length, **_LOADING)
    return [float(np.asarray(model.predict([(query, document)])).item()) for document in documents]


def st_reference_multivector(folder: Path, texts: Sequence[str], *, is_query: bool) -> list[Vector]:
    """`MultiVectorEncoder.encode_query` or `encode_document` of a PyLate repository, one text at a time."""
    from sentence_transformers import MultiVectorEncoder

    model = MultiVectorEncoder(str(folder), **_LOADING)
    encode = model.encode_query if is_query else model.encode_document
    return [np.asarray(encode(text), dtype=np.float32) for text in texts]
