"""What one profile asks of the graph that sees pictures: the word between the families and the image planner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol

from sie_frontend.contract.errors import WireError
from sie_frontend.images.options import view_of
from sie_frontend.outputs.table import Head, OutputType

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.facts import CheckpointFacts
from sie_triton.planning.modules import Encoder
from sie_triton.planning.need import HeadT_co
from sie_triton.planning.tensors import Axis, Tensor


@dataclass(frozen=True, slots=True)
class Pictures(Generic[HeadT_co]):
    """One graph: what goes in, what is computed, and how the frontend reads what comes out.

    Sizes are names while the checkpoint is not at hand. `width` is that of a vector. `costs` are what a row may cost,
    ascending, and `row_tokens` is how many positions of the transformer a row takes for each of them.
    """

    encoder: Encoder
    head: HeadT_co
    inputs: tuple[Tensor, ...]
    served: dict[OutputType, Head]
    width: Axis
    row_tokens: int = 1
    costs: tuple[int, ...] = (1,)


class SeesPictures(Protocol[HeadT_co]):
    """A recipe whose items may be pictures."""

    def pictures(self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None) -> Pictures[HeadT_co]:
        """What a profile asks of the graph that sees them. `facts` is None while the checkpoint is not at hand.

        Raises `DiagnosticError` for what cannot be planned.
        """

    def graph_key(self, bundle: Bundle, profile: ResolvedProfile) -> object:
        """What must be equal for two profiles of one checkpoint to share the graph. Raises `DiagnosticError`."""


def check_view(bundle: Bundle, profile: ResolvedProfile) -> None:
    """Raises `DiagnosticError` for an option of the bundle that no request could give either."""
    try:
        view_of(profile.runtime)
    except WireError as error:
        message = f"`{profile.model_id}`: {str(error).replace('options.', 'adapter_options.runtime.')}"
        where = bundle.positions.get(f"profiles.{profile.profile}.adapter_options.runtime")
        raise DiagnosticError([Diagnostic("SIE217", message, where, "docs/images.md has the options")]) from None
