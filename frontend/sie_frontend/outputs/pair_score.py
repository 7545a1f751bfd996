"""Scores of pairs that the model reads together: cross-encoders, and causal models with a prompt around the pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sie_frontend.outputs.kind import Comparable, HeadEntry, Shape, Tensors
from sie_frontend.rows import Array, Call, Reader, Row

if TYPE_CHECKING:
    from sie_frontend.outputs.heads import Heads


class _PairScore(HeadEntry, frozen=True):
    """`[rows, 1]`: one score per row, and one row per pair."""

    output_type: ClassVar[str] = "score"
    pairs: ClassVar[bool] = True

    tensor: str

    @property
    def comparables(self) -> tuple[Comparable, ...]:
        """The one tensor."""
        return (Comparable(self.tensor, (self.tensor,), Shape.NUMBER),)

    def rows(self, reader: Reader, query: Any, given: Sequence[Any], call: Call) -> Sequence[Row]:
        """One row for the query with each item."""
        return reader.pairs(query, given, call)

    def tensors(self, call: Call, heads: Heads) -> tuple[str, ...]:
        """The one tensor."""
        return (self.tensor,)

    def scores(self, tensors: Sequence[Tensors], rows: Sequence[Row], call: Call, heads: Heads) -> Array:
        """The tensor's numbers."""
        return np.asarray([tensor[self.tensor].reshape(-1)[0] for tensor in tensors], dtype=np.float32)


class CrossEncoderHead(_PairScore, frozen=True, tag="cross_encoder", tag_field="kind"):
    """A classification head over a pair, the activation applied."""


class CausalHead(_PairScore, frozen=True, tag="causal", tag_field="kind"):
    """What a language model would answer to a prompt with the pair in it."""
