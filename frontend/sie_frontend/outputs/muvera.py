"""MUVERA: one fixed-size vector out of a multivector, whose dot products approximate MaxSim.

After "MUVERA: Multi-Vector Retrieval via Fixed Dimensional Encodings" (Dhulipala et al., 2024), with the random
draws that SIE makes: vectors that two builds make of the same tokens must be comparable, so the order of the
draws below is part of the format of an index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Repetitions are handled in groups of at most this many floats of projected tokens, to bound the scratch memory.
_GROUP_FLOATS = 1 << 22

_SIGNS = np.array([-1, 1], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class MuveraConfig:
    """The bundle's `muvera_config`. A null `projection_dim` keeps the tokens' own; a null final one skips that step."""

    num_repetitions: int = 40
    num_simhash_projections: int = 6
    projection_dim: int | None = None
    final_projection_dim: int | None = 10240
    seed: int = 42
    normalize: bool = False
    center_tokens: bool = False

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any] | None) -> MuveraConfig:
        """The config in a bundle's map. Raises `ValueError` for a key that does not exist."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values or {}) - known):
            raise ValueError(f"`muvera_config` has no key {unknown}; it has {sorted(known)}")
        return cls(**(values or {}))

    def size(self, token_dim: int) -> int:
        """The length of the vectors that tokens of `token_dim` are encoded to."""
        blocks = self._block_floats(token_dim)
        return blocks if self.final_projection_dim is None else min(blocks, self.final_projection_dim)

    def _block_floats(self, token_dim: int) -> int:
        return self.num_repetitions * (1 << self.num_simhash_projections) * (self.projection_dim or token_dim)


def encode_tokens(tokens: NDArray[Any], config: MuveraConfig, *, is_query: bool) -> NDArray[np.float32]:
    """The fixed-size vector of one item's tokens [n, d]; zeros for n = 0.

    Tokens fall into partitions by their signs against random planes; a query sums the tokens of each partition
    and a document averages them.
    """
    if tokens.shape[0] == 0:
        return np.zeros(config.size(tokens.shape[1]), dtype=np.float32)
    rows = np.ascontiguousarray(tokens, dtype=np.float32)
    if config.center_tokens:
        rows = rows - rows.mean(axis=0, keepdims=True)
    blocks = [
        _aggregate(partitions, projected, 1 << config.num_simhash_projections, is_query=is_query)
        for partitions, projected in _sketches(rows, config)
    ]
    vector = np.concatenate(blocks)
    if config.final_projection_dim is not None and config.final_projection_dim < vector.size:
        vector = _count_sketch(vector, config.final_projection_dim, config.seed)
    if config.normalize:
        norm = np.linalg.norm(vector)
        vector = vector / norm if norm > 0 else vector
    return vector.astype(np.float32, copy=False)


def _sketches(
    rows: NDArray[np.float32], config: MuveraConfig
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Per group of repetitions: partition numbers [n, g] and projected tokens [n, g, p]."""
    count, dim = rows.shape
    width = config.projection_dim or dim
    group = max(1, _GROUP_FLOATS // (count * width))
    for start in range(0, config.num_repetitions, group):
        repetitions = range(start, min(start + group, config.num_repetitions))
        planes = _planes(config, dim)[:, start : repetitions.stop]
        bits = (rows @ planes.reshape(dim, -1)).reshape(count, len(repetitions), -1) > 0
        if config.projection_dim is None:
            projected = np.broadcast_to(rows[:, None, :], (count, len(repetitions), dim))
        else:
            mixer = _mixers(config, dim)[:, start : repetitions.stop]
            projected = (rows @ mixer.reshape(dim, -1)).reshape(count, len(repetitions), width)
        yield _gray_rank(bits), projected


def _gray_rank(bits: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The rank in the Gray code of each row of bits [..., k], so that partitions next to each other differ by one."""
    rank = np.zeros(bits.shape[:-1], dtype=np.int64)
    for position in range(bits.shape[-1]):
        rank = (rank << 1) + (bits[..., position] ^ (rank & 1))
    return rank


def _aggregate(
    partitions: NDArray[np.int64], projected: NDArray[np.float32], partition_count: int, *, is_query: bool
) -> NDArray[np.float32]:
    """Sum (query) or mean (document) per repetition and partition; flat, [g * partition_count * p]."""
    count, group, width = projected.shape
    slots = (partitions + np.arange(group) * partition_count).ravel()
    order = np.argsort(slots, kind="stable")
    ordered = slots[order]
    first = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    # Row `i` of the flattened [n, g] order is token `i // g` in repetition `i % g`.
    sums = np.add.reduceat(projected[order // group, order % group], first, axis=0)
    if not is_query:
        sums /= np.diff(np.r_[first, count * group]).astype(np.float32)[:, None]
    block = np.zeros((group * partition_count, width), dtype=np.float32)
    block[ordered[first]] = sums
    return block.ravel()


def _count_sketch(vector: NDArray[np.float32], size: int, seed: int) -> NDArray[np.float32]:
    buckets, signs = _count_sketch_draws(vector.size, size, seed)
    sketch = np.zeros(size, dtype=np.float32)
    np.add.at(sketch, buckets, signs * vector)
    return sketch


@lru_cache(maxsize=16)
def _planes(config: MuveraConfig, dim: int) -> NDArray[np.float32]:
    """The planes' normals [d, R, k]; repetition r draws from `seed + r`."""
    shape = (dim, config.num_simhash_projections)
    draws = [
        np.random.default_rng(config.seed + repetition).normal(0, 1, shape).astype(np.float32)
        for repetition in range(config.num_repetitions)
    ]
    return np.stack(draws, axis=1)


@lru_cache(maxsize=16)
def _mixers(config: MuveraConfig, dim: int) -> NDArray[np.float32]:
    """The signed one-hot projections [d, R, p]; repetition r draws columns, then signs, from a fresh `seed + r`."""
    width = config.projection_dim or dim
    mixers = np.zeros((dim, config.num_repetitions, width), dtype=np.float32)
    for repetition in range(config.num_repetitions):
        rng = np.random.default_rng(config.seed + repetition)
        columns = rng.integers(0, width, size=dim)
        mixers[np.arange(dim), repetition, columns] = rng.choice(_SIGNS, size=dim)
    return mixers


@lru_cache(maxsize=16)
def _count_sketch_draws(length: int, size: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Each element's bucket and sign; all buckets are drawn before all signs."""
    rng = np.random.default_rng(seed)
    buckets = rng.integers(0, size, size=length)
    return buckets, rng.choice(_SIGNS, size=length)
