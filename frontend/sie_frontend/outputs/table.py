"""Every kind of output, a row each: the one place that enumerates them.

A kind is a file: its entry in the manifest, which tensors it reads, what they mean. Kinds that encoding gives have a
form on the wire; several kinds may share one. `CONTRIBUTING.md` says what a new one needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from sie_frontend.outputs.bge_m3 import BgeM3Score
from sie_frontend.outputs.dense import DENSE, DenseHead
from sie_frontend.outputs.kind import EncodedKind, Form, ScoreKind
from sie_frontend.outputs.late_score import MaxSimScore
from sie_frontend.outputs.multivector import MULTIVECTOR, MultiVectorHead
from sie_frontend.outputs.pair_score import CausalHead, CrossEncoderHead
from sie_frontend.outputs.sparse import SPARSE, SparseHead, TokenWeightsHead

EncodedType = Literal["dense", "sparse", "multivector"]
OutputType = Literal[EncodedType, "score"]

EncodedHead: TypeAlias = DenseHead | SparseHead | TokenWeightsHead | MultiVectorHead
ScoreHead: TypeAlias = CrossEncoderHead | CausalHead | MaxSimScore | BgeM3Score
Head: TypeAlias = EncodedHead | ScoreHead

FORMS: Final[Mapping[EncodedType, Form[Any]]] = {"dense": DENSE, "sparse": SPARSE, "multivector": MULTIVECTOR}
"""In the order of the wire."""
ENCODED_TYPES: Final[tuple[EncodedType, ...]] = tuple(FORMS)
OUTPUT_TYPES: Final[tuple[OutputType, ...]] = (*ENCODED_TYPES, "score")


def encoded_kind(head: Head) -> EncodedKind | None:
    """A head of what encoding gives, None for scores."""
    match head:
        case DenseHead() | SparseHead() | TokenWeightsHead() | MultiVectorHead():
            return head
        case CrossEncoderHead() | CausalHead() | MaxSimScore() | BgeM3Score():
            return None


def score_kind(head: Head) -> ScoreKind | None:
    """A head of scores, None for what encoding gives."""
    match head:
        case CrossEncoderHead() | CausalHead() | MaxSimScore() | BgeM3Score():
            return head
        case DenseHead() | SparseHead() | TokenWeightsHead() | MultiVectorHead():
            return None
