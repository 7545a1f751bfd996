"""BGE-M3's scores: out of its dense, sparse and token vectors, by `options.score_mode`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sie_frontend.contract.errors import invalid_input
from sie_frontend.outputs.kind import HeadEntry, Tensors
from sie_frontend.outputs.late_score import at_unit_length, maxsim, query_and_documents
from sie_frontend.outputs.sparse import SparseVector
from sie_frontend.rows import Array, Call, Reader, Row

if TYPE_CHECKING:
    from sie_frontend.outputs.heads import Heads

MODES = ("dense", "sparse", "colbert", "hybrid")
DEFAULT_WEIGHTS = {"dense": 0.4, "sparse": 0.2, "colbert": 0.4}


@dataclass(frozen=True, slots=True)
class TextOutputs:
    """One text's outputs, as far as the score needs them."""

    dense: Array | None = None
    sparse: SparseVector | None = None
    multivector: Array | None = None


class BgeM3Score(HeadEntry, frozen=True, tag="bge_m3", tag_field="kind"):
    """Scores from the three outputs of BGE-M3, by `options.score_mode`."""

    output_type: ClassVar[str] = "score"
    pairs: ClassVar[bool] = False

    def rows(self, reader: Reader, query: Any, given: Sequence[Any], call: Call) -> Sequence[Row]:
        """The query's row, then each document's; the instruction is read with both."""
        return query_and_documents(reader, query, given, call, instruct_documents=True)

    def tensors(self, call: Call, heads: Heads) -> tuple[str, ...]:
        """Those of the outputs that the mode needs; raises `WireError` (400) for an unknown mode."""
        unit = at_unit_length(call)
        parts = outputs_for(call.options)
        return tuple(name for part in parts for name in heads.encoded(part).tensors(unit, is_query=False))

    def scores(self, tensors: Sequence[Tensors], rows: Sequence[Row], call: Call, heads: Heads) -> Array:
        """One score a document."""
        unit, parts = at_unit_length(call), outputs_for(call.options)
        query, *documents = (
            TextOutputs(
                **{part: heads.encoded(part).read(tensor, row, unit, heads, is_query=index == 0) for part in parts}
            )
            for index, (tensor, row) in enumerate(zip(tensors, rows, strict=True))
        )
        return np.asarray(combined_scores(query, documents, call.options), dtype=np.float32)


def outputs_for(options: Mapping[str, Any]) -> tuple[str, ...]:
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


def combined_scores(query: TextOutputs, documents: Sequence[TextOutputs], options: Mapping[str, Any]) -> list[float]:
    """One score per document: cosine, shared token weights, MaxSim per query token, or their weighted sum."""
    mode = score_mode(options)
    weights = _weights(options) if mode == "hybrid" else {mode: 1.0}
    return [sum(weight * _part(part, query, document) for part, weight in weights.items()) for document in documents]


def _part(part: str, query: TextOutputs, document: TextOutputs) -> float:
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
