"""Scores between texts that are encoded each by itself: late interaction, and what such scores have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sie_frontend.outputs.kind import HeadEntry, Tensors
from sie_frontend.rows import Array, Call, Reader, Row

if TYPE_CHECKING:
    from sie_frontend.outputs.heads import Heads


@dataclass(frozen=True, slots=True)
class Reworded:
    """A call with other options or another instruction than it came with."""

    options: Mapping[str, Any]
    instruction: str | None


def at_unit_length(call: Call) -> Reworded:
    """Scores compare directions, whatever a call says of the vectors that it would get."""
    return Reworded({**call.options, "normalize": True}, call.instruction)


def query_and_documents(
    reader: Reader, query: Any, given: Sequence[Any], call: Call, *, instruct_documents: bool
) -> list[Row]:
    """The query's row, then each document's; those are read without the call's instruction unless told otherwise."""
    for_documents = call if instruct_documents else Reworded(call.options, None)
    return [
        *reader.rows([query], call, is_query=True, places=("query",)),
        *reader.rows(given, for_documents, is_query=False),
    ]


def maxsim(query: Array, document: Array) -> float:
    """Sum over query tokens of the largest dot product with a document token; -inf for a document without tokens.

    Khattab and Zaharia, "ColBERT", 2020. Shapes `[q, d]` and `[n, d]`.
    """
    if document.shape[0] == 0:
        return float("-inf")
    return float((query @ document.T).max(axis=1).sum())


class MaxSimScore(HeadEntry, frozen=True, tag="maxsim", tag_field="kind"):
    """Scores from the model's own multivectors: the sum over query tokens of the best document token."""

    output_type: ClassVar[str] = "score"
    pairs: ClassVar[bool] = False

    def rows(self, reader: Reader, query: Any, given: Sequence[Any], call: Call) -> Sequence[Row]:
        """The query's row, then each document's."""
        return query_and_documents(reader, query, given, call, instruct_documents=False)

    def tensors(self, call: Call, heads: Heads) -> tuple[str, ...]:
        """Those of the multivectors."""
        return heads.encoded("multivector").tensors(at_unit_length(call), is_query=False)

    def scores(self, tensors: Sequence[Tensors], rows: Sequence[Row], call: Call, heads: Heads) -> Array:
        """One score a document."""
        head, call = heads.encoded("multivector"), at_unit_length(call)
        query, *documents = (
            head.read(tensor, row, call, heads, is_query=index == 0)
            for index, (tensor, row) in enumerate(zip(tensors, rows, strict=True))
        )
        return np.asarray([maxsim(query, document) for document in documents], dtype=np.float32)
