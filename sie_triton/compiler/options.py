"""What a build is told, and what it tells of each public Triton model when it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sie_frontend.manifest import Distance

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.checkpoint import Progress
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.planning.catalogue import verdict
from sie_triton.planning.families import Recipe
from sie_triton.planning.plan import GraphOptions
from sie_triton.planning.recipe import Refusal
from sie_triton.resources import available_cores

Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What the command line decides for all models of one build.

    `carried`: whether a reference that lies beside a bundle may take the place of asking anew.
    """

    repository: Path
    weights: Mapping[str, Path] = field(default_factory=dict)
    default_weights: Path | None = None
    graphs: GraphOptions = field(default_factory=GraphOptions)
    force: bool = False
    trust_remote_code: bool = False
    carried: bool = True
    cores: int = field(default_factory=available_cores)
    announce: Announce = lambda _: None
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """One bundle and the profiles of it that were asked for; the refused ones among them, with their reasons.

    `derived`: nobody wrote the bundle, it says what its checkpoint's files say.
    """

    bundle: Bundle
    profiles: tuple[tuple[ResolvedProfile, Recipe], ...]
    refused: tuple[tuple[ResolvedProfile, Refusal], ...] = ()
    derived: bool = False

    @property
    def lora(self) -> str | None:
        """The adapter that its profiles name, whose weights are merged; `by_lora` makes them all name one."""
        return next((profile.lora for profile, _ in self.profiles), None)

    def by_lora(self) -> tuple[Target, ...]:
        """One target for each set of weights: profiles that name no adapter, and those that name the same one."""
        adapters = dict.fromkeys(profile.lora for profile, _ in self.profiles)
        return tuple(replace(self, profiles=tuple(p for p in self.profiles if p[0].lora == lora)) for lora in adapters)


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """One public Triton model of a finished build: what it computes in on each device, and how close that is.

    `plain_name` is what it would be called in a new repository.
    """

    triton_model: str
    plain_name: str
    model_ids: tuple[str, ...]
    precisions: Mapping[str, str]
    parity: Mapping[str, Mapping[str, Distance]]
    source: str
    skipped: bool


def select(bundle: Bundle, profiles: Sequence[ResolvedProfile]) -> Target:
    """Sort the profiles of a bundle into those that compile and those that do not.

    Raises `DiagnosticError` if none does: asking for a model and getting nothing is a failure.
    """
    judged = [(profile, verdict(profile, bundle)) for profile in profiles]
    recipes = tuple((p, v) for p, v in judged if isinstance(v, Recipe))
    refused = tuple((p, v) for p, v in judged if isinstance(v, Refusal))
    if not recipes:
        raise DiagnosticError(
            Diagnostic("SIE201", f"`{p.model_id}` cannot be compiled: {v.reason}", Where(bundle.path))
            for p, v in refused
        )
    return Target(bundle, recipes, refused)
