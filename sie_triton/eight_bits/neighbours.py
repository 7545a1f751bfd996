"""What a user of an index asks of a precision: how many of the true ten nearest are still found."""

from __future__ import annotations

import numpy as np

from sie_triton.eight_bits.blocks import Array

NEAREST = 10


def unit(vectors: Array) -> Array:
    """`vectors` `[n, width]` with length 1; those without length stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)


def nearest(queries: Array, index: Array, own: Array, count: int = NEAREST) -> Array:
    """The `count` rows of `index` `[n, width]` nearest by cosine to each query `[q, width]`: `[q, count]`, in no order.

    `own` `[q]` is the row that a query is made of, which is never an answer.
    """
    found = []
    for start in range(0, len(queries), 256):
        scores = queries[start : start + 256] @ index.T
        scores[np.arange(len(scores)), own[start : start + 256]] = -np.inf
        found.append(np.argpartition(-scores, count - 1, axis=1)[:, :count])
    return np.concatenate(found)


def kept(theirs: Array, ours: Array) -> float:
    """The share of the answers `theirs` `[q, count]` that `ours` has too."""
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(theirs, ours, strict=True)]))
