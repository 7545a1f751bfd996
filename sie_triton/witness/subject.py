"""What a witness is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from sie_frontend.reference import Case
from sie_frontend.rows import Array
from sie_frontend.text.tokenization import TextRow

from sie_triton.planning.plan import ServedPlan, TritonPlan

# Arrays by output tensor; one row's, without the batch axis and without padding.
Outputs: TypeAlias = dict[str, Array]


@dataclass(frozen=True, slots=True)
class Subject:
    """A checkpoint and the questions about it.

    `prepared` is a case's text after the adapter's templates and instructions, where SIE's contract and not the
    checkpoint decides them; `bare_ids` are the ids that we make of it, without markers. `token_id` is the id of a token
    by its spelling. `weighed` is our sparse vector of a query that the model never sees, ids ascending and their
    weights; None where queries run the model, or where the checkpoint's own modules do not decide them. `pad_id` fills
    texts that are padded to one length.
    """

    folder: Path
    plan: TritonPlan
    served: ServedPlan
    cases: Sequence[Case]
    rows: Sequence[TextRow]
    prepared: Callable[[Case], str]
    bare_ids: Callable[[str], list[int]]
    token_id: Callable[[str], int]
    weighed: Callable[[str], tuple[Array, Array]] | None = None
    truncation_side: str = "right"
    pad_id: int = 0
    trust_remote_code: bool = False

    @property
    def names(self) -> list[str]:
        """The public output tensors, in the order of the heads."""
        return [tensor.name for tensor in self.plan.outputs]
