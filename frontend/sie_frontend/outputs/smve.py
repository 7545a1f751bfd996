"""SMVE: a sparse vector out of a multivector, by each token's best-matching random anchors.

The anchors are the ones SIE draws, so that an index made by either can be searched with either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Tokens are projected on all anchors in groups of at most this many floats, to bound the scratch memory.
_GROUP_FLOATS = 1 << 23


@dataclass(frozen=True, slots=True)
class SmveConfig:
    """The bundle's `smve_config`; a null `max_nonzeros` keeps every anchor that a token chose."""

    width: int = 65536
    k: int = 32
    num_repetitions: int = 1
    seed: int = 42
    max_nonzeros: int | None = None

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any] | None) -> SmveConfig:
        """The config in a bundle's map. Raises `ValueError` for a key that does not exist."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values or {}) - known):
            raise ValueError(f"`smve_config` has no key {unknown}; it has {sorted(known)}")
        return cls(**(values or {}))


def encode_tokens(
    tokens: NDArray[Any], config: SmveConfig, *, is_query: bool
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The sparse vector of one item's tokens [n, d]: ascending anchor numbers [nnz] and their weights [nnz].

    Every token keeps its k largest projections; a query sums them per anchor, a document averages the non-zero ones.
    Anchor i of repetition r is number `i + r * width`.
    """
    rows = np.ascontiguousarray(tokens, dtype=np.float32)
    blocks = [_accumulate(rows, config, repetition, is_query=is_query) for repetition in range(config.num_repetitions)]
    weights = np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)
    indices = np.flatnonzero(weights)
    if config.max_nonzeros is not None and indices.size > config.max_nonzeros:
        largest = np.argsort(-np.abs(weights[indices]), kind="stable")[: config.max_nonzeros]
        indices = np.sort(indices[largest])
    return indices.astype(np.int32), weights[indices]


def _accumulate(
    rows: NDArray[np.float32], config: SmveConfig, repetition: int, *, is_query: bool
) -> NDArray[np.float32]:
    """The weight of every anchor of one repetition, [width]."""
    weights = np.zeros(config.width, dtype=np.float32)
    votes = np.zeros(config.width, dtype=np.int64)
    if rows.shape[0] == 0:
        return weights
    anchors = _anchors(config.seed + repetition, rows.shape[1], config.width)
    kept = min(config.k, config.width)
    step = max(1, _GROUP_FLOATS // config.width)
    for start in range(0, rows.shape[0], step):
        projections = rows[start : start + step] @ anchors
        chosen = np.argpartition(projections, config.width - kept, axis=1)[:, config.width - kept :]
        values = np.take_along_axis(projections, chosen, axis=1)
        np.add.at(weights, chosen.ravel(), values.ravel())
        votes += np.bincount(chosen[values != 0], minlength=config.width)
    if is_query:
        return weights
    mean: NDArray[np.float32] = np.divide(weights, np.maximum(votes, 1), dtype=np.float32)
    return mean


@lru_cache(maxsize=4)
def _anchors(seed: int, dim: int, width: int) -> NDArray[np.float32]:
    """Unit columns [d, width]; one entry is `4 * d * width` bytes, hence the small cache."""
    anchors: NDArray[np.float32] = np.random.default_rng(seed).standard_normal((dim, width), dtype=np.float32)
    anchors /= np.linalg.norm(anchors, axis=0)
    return anchors
