"""How close two sets of outputs are. A comparison with NaN in it is never close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sie_frontend.outputs.kind import Comparable, Shape
from sie_frontend.rows import Array, Row

# Numbers and not directions: judged by their absolute difference alone.
SCALARS = frozenset({Shape.NUMBER, Shape.NUMBERS})
# Directions with a length, so that what is a small difference depends on their size.
VECTORS = frozenset({Shape.VECTOR, Shape.VECTORS})


def canonical(outputs: Mapping[str, Array], compared: Comparable, row: Row) -> Array:
    """One case's output without padding; a sparse vector spread over the vocabulary."""
    first = outputs[compared.tensors[0]]
    match compared.shape:
        case Shape.VECTOR | Shape.NUMBER:
            return first
        case Shape.VECTORS | Shape.NUMBERS:
            return first[: row.cost]
        case Shape.WEIGHTS:
            # Behind a row's own weights are zeros, whose ids are whatever the runtime chose.
            weights = outputs[compared.tensors[1]]
            ids = first[weights > 0]
            spread = np.zeros(int(ids.max(initial=0)) + 1, dtype=np.float32)
            spread[ids] = weights[weights > 0]
            return spread


def equally_wide(ours: list[Array], theirs: list[Array]) -> list[Array]:
    """Spread sparse vectors end at their largest id: lengthen both sides of a pair to the same."""
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a.ndim == b.ndim == 1 and a.shape != b.shape:
            width = max(a.size, b.size)
            ours[index] = np.pad(a, (0, width - a.size))
            theirs[index] = np.pad(b, (0, width - b.size))
    return ours


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
