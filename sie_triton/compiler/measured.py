"""Where the graphs of one plan are written and measured, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from sie_frontend.manifest import Distance

from sie_triton.compiler.answers import Answers, required
from sie_triton.compiler.options import Announce
from sie_triton.diagnostics import Diagnostic, Where
from sie_triton.formats import Precision
from sie_triton.half_precision.measure import OVERFLOW
from sie_triton.planning.plan import TritonPlan
from sie_triton.repository.config import CpuShape, triton_configs
from sie_triton.repository.render import render
from sie_triton.verify.model_runner import config_path

WriteGraphs: TypeAlias = "Callable[[TritonPlan, Path, Precision], float | None]"
TOO_COARSE = "SIE513"
# However the graph is written, these come out again.
_HOPELESS = frozenset({OVERFLOW, TOO_COARSE})


@dataclass(frozen=True, slots=True)
class Site:
    """Where the graphs of one plan are written and measured. `tag` tells builds apart.

    `accepted`: what int8 and bfloat16 may miss, by name, and down to where.
    """

    staging: Path
    cpu: CpuShape
    tag: str
    announce: Announce
    accepted: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MeasuredFiles:
    """What came of writing some graph files once. `written`: how, where that is worth telling."""

    distances: Mapping[str, Distance] = field(default_factory=dict)
    problems: Sequence[Diagnostic] = ()
    padding_cost: float | None = None
    answers: Answers = field(default_factory=Answers)
    written: str | None = None

    @property
    def hopeless(self) -> bool:
        """Whether the precision itself is at fault: it will be so however the graph is written."""
        return bool(self.problems) and self.problems[0].code in _HOPELESS


def write_configs(plan: TritonPlan, site: Site) -> None:
    """The configurations of a plan's Triton models."""
    for config_name, configs in triton_configs(plan, site.cpu, site.tag).items():
        for config in configs:
            path = config_path(site.staging / config.name)
            if config_name:
                path = path.parent / "configs" / f"{config_name}.pbtxt"
                path.parent.mkdir(exist_ok=True)
            path.write_text(render(config), encoding="utf-8")


def too_coarse(name: str, precision: Precision, site: Site, figures: Sequence[str]) -> Diagnostic:
    """A precision that loses too much, with what was asked for and what came out."""
    return Diagnostic(
        TOO_COARSE,
        f"`{name}` is not close enough in {precision}: {', '.join(required(precision, site.accepted))}. "
        + " | ".join(figures),
        Where(site.staging / name),
        "build it with `--precision float32`, or take less by name: `--accept cosine=0.99`, `--accept nearest=0.95`",
    )
