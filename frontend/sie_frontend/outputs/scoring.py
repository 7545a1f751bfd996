"""Scores from what an encoder gives: late interaction, and BGE-M3's modes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from sie_frontend.contract.errors import invalid_input
from sie_frontend.contract.responses import SparseVector

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

MODES = ("dense", "sparse", "colbert", "hybrid")
DEFAULT_WEIGHTS = {"dense": 0.4, "sparse": 0.2, "colbert": 0.4}


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text's outputs, as far as the score needs them."""

    dense: Array | None = None
    sparse: SparseVector | None = None
    multivector: Array | None = None


def maxsim(query: Array, document: Array) -> float:
    """Sum over query tokens of the largest dot product with a document token; -inf for a document without tokens.

    Khattab and Zaharia, "ColBERT", 2020. Shapes `[q, d]` and `[n, d]`.
    """
    if document.shape[0] == 0:
        return float("-inf")
    return float((query @ document.T).max(axis=1).sum())


def bge_m3_outputs(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The output types that the score mode of a call needs; raises `WireError` (400) for an unknown mode."""
    mode = score_mode(options)
    if mode == "hybrid":
        _weights(options)
    return {
        "dense": ("dense",),
        "sparse": ("sparse",),
        "colbert": ("multivector",),
        "hybrid": ("dense", "sparse", "multivector"),
    }[mode]


def score_mode(options: Mapping[str, Any]) -> str:
    """`options.score_mode`, `dense` when not given; null is given, and no mode."""
    mode = options.get("score_mode", "dense")
    if mode not in MODES:
        raise invalid_input(f"Invalid score_mode '{mode}'. Expected one of {sorted(MODES)}.")
    return str(mode)


def bge_m3_scores(query: Encoded, documents: Sequence[Encoded], options: Mapping[str, Any]) -> list[float]:
    """One score per document: cosine, shared token weights, MaxSim per query token, or their weighted sum."""
    mode = score_mode(options)
    weights = _weights(options) if mode == "hybrid" else {mode: 1.0}
    return [sum(weight * _part(part, query, document) for part, weight in weights.items()) for document in documents]


def _part(part: str, query: Encoded, document: Encoded) -> float:
    if part == "dense":
        assert query.dense is not None
        assert document.dense is not None
        return float(query.dense @ document.dense)
    if part == "sparse":
        assert query.sparse is not None
        assert document.sparse is not None
        _, ours, theirs = np.intersect1d(query.sparse.indices, document.sparse.indices, return_indices=True)
        return float(query.sparse.values[ours] @ document.sparse.values[theirs])
    assert query.multivector is not None
    assert document.multivector is not None
    return maxsim(query.multivector, document.multivector) / max(1, len(query.multivector))


def _weights(options: Mapping[str, Any]) -> dict[str, float]:
    given = options.get("score_weights")
    if given is None:
        return DEFAULT_WEIGHTS
    if not isinstance(given, Mapping) or not set(given) <= set(DEFAULT_WEIGHTS):
        raise invalid_input("score_weights must be a mapping of {dense, sparse, colbert} -> float")
    for part, value in given.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value < math.inf:
            raise invalid_input(f"score_weights['{part}'] must be a non-negative number, got {value!r}")
    weights = {part: float(given.get(part, default)) for part, default in DEFAULT_WEIGHTS.items()}
    if not any(weights.values()):
        raise invalid_input("score_weights for hybrid mode must contain at least one positive weight")
    return weights
