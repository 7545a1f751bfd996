"""Sparse: weights over a vocabulary, from a masked-language head or from one weight a token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sie_frontend.contract.dtypes import OutputDtype, dtype_label, quantize_weights, widened
from sie_frontend.contract.ndarray import map_fields, pack_array
from sie_frontend.outputs.kind import Comparable, HeadEntry, Shape, Tensors
from sie_frontend.rows import Array, Call, Row
from sie_frontend.text.tokenization import TextRow

if TYPE_CHECKING:
    from sie_frontend.outputs.heads import Heads


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Ascending int32 token numbers [nnz] and their weights [nnz], float32 or float16."""

    indices: NDArray[np.int32]
    values: NDArray[Any]


class SparseHead(HeadEntry, frozen=True, tag="sparse", tag_field="kind"):
    """Vocabulary weights, compact: `ids` and `weights` are `[rows, k]`, positive weights first, zeros behind them.

    `drop_special` removes special tokens. `query_weights` is the path, relative to the repository, of a table of token
    weights that takes the model's place for queries (inference-free retrieval).
    """

    output_type: ClassVar[str] = "sparse"

    ids: str
    weights: str
    drop_special: bool = False
    query_weights: str | None = None

    @property
    def comparables(self) -> tuple[Comparable, ...]:
        """The two tensors are one thing."""
        return (Comparable("sparse", (self.ids, self.weights), Shape.WEIGHTS),)

    @property
    def files(self) -> tuple[str, ...]:
        """The table of query weights, if there is one."""
        return (self.query_weights,) if self.query_weights else ()

    def tensors(self, call: Call, *, is_query: bool) -> tuple[str, ...]:
        """Both; none for a query whose weights come from the table."""
        return () if is_query and self.query_weights else (self.ids, self.weights)

    def read(self, tensors: Tensors, row: Row, call: Call, heads: Heads, *, is_query: bool) -> SparseVector:
        """Token ids, ascending, and their positive weights."""
        if is_query and self.query_weights:
            return weigh_query(row, self._table(self.query_weights, heads))
        ids, weights = tensors[self.ids], tensors[self.weights].astype(np.float32, copy=False)
        keep = weights > 0
        if self.drop_special:
            keep &= ~np.isin(ids, heads.special_ids)
        ids, weights = ids[keep], weights[keep]
        order = np.argsort(ids)
        return SparseVector(ids[order].astype(np.int32), weights[order])

    def _table(self, path: str, heads: Heads) -> Array:
        """The weight of every token id."""
        if path not in heads.tables:
            weights: Array = np.load(heads.repository / path, allow_pickle=False)
            if self.drop_special:
                weights[heads.special_ids[heads.special_ids < len(weights)]] = 0.0
            heads.tables[path] = weights
        return heads.tables[path]


def weigh_query(row: Row, table: Array) -> SparseVector:
    """A query's sparse vector out of a weight table: unique ids, ascending, positive weights only.

    An id that the table lacks has no weight.
    """
    assert isinstance(row, TextRow)
    ids = np.unique(row.ids)
    ids = ids[ids < len(table)]
    weights = table[ids]
    keep = weights > 0
    return SparseVector(ids[keep].astype(np.int32), weights[keep].astype(np.float32))


class TokenWeightsHead(HeadEntry, frozen=True, tag="token_weights", tag_field="kind"):
    """One weight per input token, `[rows, sequence]`: the maximum per id counts, `drop` names roles without weight."""

    output_type: ClassVar[str] = "sparse"

    tensor: str
    drop: tuple[str, ...]

    @property
    def comparables(self) -> tuple[Comparable, ...]:
        """The one tensor."""
        return (Comparable(self.tensor, (self.tensor,), Shape.NUMBERS),)

    def tensors(self, call: Call, *, is_query: bool) -> tuple[str, ...]:
        """The one tensor."""
        return (self.tensor,)

    def read(self, tensors: Tensors, row: Row, call: Call, heads: Heads, *, is_query: bool) -> SparseVector:
        """The maximum weight per id, in the order of first occurrence (BGE-M3)."""
        assert isinstance(row, TextRow)
        weights = tensors[self.tensor][: len(row)].astype(np.float32, copy=False)
        keep = (weights > 0) & ~np.isin(row.ids, heads.ids_of(self.drop))
        ids, first, inverse = np.unique(row.ids[keep], return_index=True, return_inverse=True)
        best = np.zeros(len(ids), dtype=np.float32)
        np.maximum.at(best, inverse, weights[keep])
        order = np.argsort(first)
        return SparseVector(ids[order].astype(np.int32), best[order])


class SparseForm:
    """`{dims, dtype, indices, values}`; `dims` is the bundle's, or null."""

    def narrowed(self, values: Sequence[SparseVector], dtype: OutputDtype) -> list[SparseVector]:
        """Weights in the output dtype of the call."""
        return [SparseVector(vector.indices, quantize_weights(vector.values, dtype)) for vector in values]

    def as_json(self, value: SparseVector, declared: int | None) -> dict[str, Any]:
        """The entry of one item."""
        return {
            "dims": declared,
            "dtype": dtype_label(value.values, declared),
            "indices": widened(value.indices),
            "values": widened(value.values),
        }

    def as_msgpack(self, value: SparseVector, declared: int | None) -> Iterable[bytes | memoryview]:
        """The entry of one item, its key included."""
        return (
            _head(declared, dtype_label(value.values, declared)),
            *pack_array(value.indices),
            b"\xa6values",
            *pack_array(value.values),
        )


@lru_cache(maxsize=256)
def _head(dims: int | None, label: str) -> bytes:
    return b"\xa6sparse\x84" + map_fields({"dims": dims, "dtype": label}) + b"\xa7indices"


SPARSE = SparseForm()
