"""Numbers about vectors: directions, lengths, and the grids that rounding leaves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sie_triton.migrate.check.server import Vectors

Numbers = npt.NDArray[np.float64]
SAME = 0.999
"""The least cosine of a vector that counts as the same: what docs/migrate-from-fastembed.md promises."""
SAME_LENGTH = 0.01
"""How far lengths may be apart, as a part of the length: float16 keeps a thousandth."""
GRIDS = {
    1: "have two values only: they were rounded to one bit each",
    8: "lie on a grid of 8 bits: they were rounded to int8 or uint8",
}
"""What is said of stored numbers by what `grid_bits` finds."""
_ON_GRID = 0.02
_BITS_OF_INT8 = 8
_STEPS_OF_INT8 = 255


def cosines(left: Vectors, right: Vectors) -> Numbers:
    """The cosine of each row of one with that of the other, `[rows]`; 0 where a row is zero or not finite."""
    a, b = _unit(left), _unit(right)
    found: Numbers = np.einsum("ij,ij->i", a, b)
    return found


def lengths(vectors: Vectors) -> Numbers:
    """`[rows]`"""
    found: Numbers = np.linalg.norm(vectors.astype(np.float64), axis=1)
    return found


def all_pairs(left: Vectors, right: Vectors) -> Numbers:
    """The cosine of every row of one with every row of the other."""
    found: Numbers = _unit(left) @ _unit(right).T
    return found


def grid_bits(vectors: Vectors) -> int | None:
    """8 where the numbers of every vector lie on a grid of at most 256 steps, as int8 or uint8 leave it; else None.

    1 where they have two values, as binary vectors do. Scaling and normalising after rounding keep the grid.
    """
    wide = vectors[:64].astype(np.float64)
    if wide.shape[1] < 64:
        return None
    if all(len(np.unique(row)) == 2 for row in wide):
        return 1
    return _BITS_OF_INT8 if all(_on_grid(row) for row in wide) else None


def is_half(vectors: Vectors) -> bool:
    """Whether every number is one that float16 can hold."""
    with np.errstate(over="ignore"):
        return bool((vectors.astype(np.float16).astype(np.float32) == vectors).all())


def common_part(left: Vectors, right: Vectors) -> float:
    """How much of the differences between unit vectors is the same for all rows: 0 for noise, 1 for a shift."""
    difference = _unit(left) - _unit(right)
    each = np.linalg.norm(difference, axis=1).mean()
    return float(np.linalg.norm(difference.mean(axis=0)) / each) if each else 0.0


def likeness(left: Vectors, right: Vectors) -> float:
    """How alike two sets order their own texts: the correlation of the cosines within each, from -1 to 1."""
    rows = np.triu_indices(len(left), 1)
    a, b = all_pairs(left, left)[rows], all_pairs(right, right)[rows]
    if len(a) < 3 or not (a.std() and b.std()):
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def rank_correlation(left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Whether one grows with the other, from -1 to 1; 0 where either is the same throughout."""
    a, b = _ranks(np.asarray(left)), _ranks(np.asarray(right))
    if len(a) < 3 or not (a.std() and b.std()):
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def positive_share(vectors: Vectors) -> float:
    """The part of the numbers that are above 0: a half for most models, far more behind a maximum over tokens."""
    return float((vectors > 0).mean())


def _unit(vectors: Vectors) -> Numbers:
    wide = np.nan_to_num(vectors.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    unit: Numbers = np.divide(wide, length, out=np.zeros_like(wide), where=length > 0)
    return unit


def _on_grid(row: Numbers) -> bool:
    least, most = float(row.min()), float(row.max())
    largest = max(abs(least), abs(most))
    if largest == 0:
        return False
    signed = row / largest * 127
    unsigned = (row - least) / (most - least or 1) * 255
    scales = (signed, row / largest * 128, unsigned, *_in_steps(row))
    return any(float(np.abs(steps - steps.round()).max()) < _ON_GRID for steps in scales)


def _in_steps(row: Numbers) -> list[Numbers]:
    """The numbers in steps of the smallest difference, where those are few enough: one scale may be for all vectors."""
    levels = np.unique(row)
    if not 1 < len(levels) <= _STEPS_OF_INT8 + 1:
        return []
    found: Numbers = (row - levels[0]) / np.diff(levels).min()
    return [found] if found.max() < _STEPS_OF_INT8 + 0.5 else []


def _ranks(values: npt.NDArray[np.generic]) -> Numbers:
    """The place of each in the order of all; equal ones share a place."""
    _, places = np.unique(values, return_inverse=True)
    return np.asarray(places, np.float64)
