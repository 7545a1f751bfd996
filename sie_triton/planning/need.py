"""What one profile asks for: the word between the families and the planner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from sie_frontend.outputs.table import Head, OutputType
from sie_frontend.text.entry import Prompting

from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.facts import Framing, Spelling
from sie_triton.planning.modules import Encoder, PlannedHead
from sie_triton.planning.tensors import Axis

HeadT_co = TypeVar("HeadT_co", bound=PlannedHead, covariant=True)


@dataclass(frozen=True, slots=True)
class Need(Generic[HeadT_co]):
    """What one profile asks of the graphs, how its text is prepared and how the frontend reads what comes out.

    Profiles that agree on `encoder`, on `max_length` and on what their `heads` share are served by one Triton model.
    `width` is that of a dense vector, a name while the checkpoint is not at hand. `pooling` is what is computed, and
    `unit` whether every vector leaves with unit length; None where no checkpoint is at hand to tell, or where there is
    nothing to pool. `reads_padding`: whether outputs count at positions that the mask hides. `query_weights`: the
    checkpoint's files of token weights that stand in for the model on queries. `spelling`: what is done to texts before
    the checkpoint's `tokenizer.json` reads them, where that is not all. `framing`: what always stands around the tokens
    of a text.
    """

    encoder: Encoder
    heads: tuple[HeadT_co, ...]
    prompting: Prompting
    served: dict[OutputType, Head]
    max_length: int
    width: Axis = "hidden"
    pooling: str | None = None
    unit: bool | None = None
    reads_padding: bool = False
    query_weights: tuple[str, ...] = ()
    spelling: Spelling | None = None
    framing: Framing | None = None


def mistake(code: str, message: str, hint: str) -> DiagnosticError:
    """One of the user's mistakes that no line of the bundle can be named for."""
    return DiagnosticError([Diagnostic(code, message, hint=hint)])
