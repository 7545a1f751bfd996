"""Two sets of arrays -> how far apart they are. A comparison with NaN in it is never close."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sie_frontend.rows import Array


def cosine(left: Array, right: Array) -> float:
    """Cosine of two vectors in float64, of matrices the worst over rows; -inf if the shapes differ.

    Two zero vectors are equal, a zero and a non-zero one are not.
    """
    if left.shape != right.shape:
        return float("-inf")
    if left.ndim > 1:
        return float(np.min([cosine(a, b) for a, b in zip(left, right, strict=True)], initial=1.0))
    a, b = left.astype(np.float64), right.astype(np.float64)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    if norms == 0.0:
        return 1.0 if np.array_equal(a, b) else 0.0
    return float(a @ b) / norms


def min_cosine(left: Sequence[Array], right: Sequence[Array]) -> float:
    """The worst cosine over pairs; NaN if any is NaN."""
    return float(np.min([cosine(a, b) for a, b in zip(left, right, strict=True)]))


def max_abs(left: Sequence[Array], right: Sequence[Array]) -> float:
    """The largest absolute difference over pairs; NaN if any is NaN, infinite if shapes differ."""
    if any(a.shape != b.shape for a, b in zip(left, right, strict=True)):
        return float("inf")
    return float(
        np.max([np.max(np.abs(a.astype(np.float64) - b), initial=0.0) for a, b in zip(left, right, strict=True)])
    )
