"""Verifies graphs in half precision as a GPU computes them: every tensor rounded, and every tensor's range looked at.

A build calls it, on the machine that builds. It needs the packages that a build needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sie_frontend.manifest import Distance
from sie_frontend.reference import REFERENCE_NAME, Case, read_reference
from sie_frontend.rows import Array

from sie_triton.diagnostics import Diagnostic, Where
from sie_triton.formats import Format, Precision
from sie_triton.half_precision.ranges import LARGEST, Peak, Ranges
from sie_triton.verify.model_runner import Graph, ModelRunner, Runtime, Timed
from sie_triton.verify.parity import check_parity, measure
from sie_triton.verify.public_model import PublicModel

OVERFLOW = "SIE506"
# A text in a message: enough to recognise it.
SHOWN = 60


class HalfRunner(ModelRunner):
    """A public model in half precision, whose runs also fill `ranges`."""

    def __init__(self, repository: Path, name: str, config_name: str, precision: Precision) -> None:
        self.ranges = Ranges(precision)
        super().__init__(repository, name, config_name, runtimes=half_runtimes(self.ranges))

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """One more numbered run."""
        self.ranges.run += 1
        return super().run(inputs, outputs)


def half_runtimes(ranges: Ranges) -> Mapping[Format, Runtime]:
    """For each format, what opens a graph so that its runs fill `ranges`; its packages are imported with the first."""

    def open_onnx(config: Any, path: Path, timed: Timed | None) -> Graph:
        from sie_triton.half_precision.rounded_onnx import open_rounded

        return open_rounded(ranges, config, path, timed)

    def open_torchscript(config: Any, path: Path, timed: Timed | None) -> Graph:
        from sie_triton.half_precision.watched_torchscript import open_watched

        return open_watched(ranges, config, path, timed)

    return {"onnx": open_onnx, "torchscript": open_torchscript}


def measure_half(
    repository: Path,
    model: PublicModel,
    config_name: str,
    precision: Precision,
    accepted: Mapping[str, float] | None = None,
) -> tuple[dict[str, Distance], list[Diagnostic]]:
    """`verify.measure` with every half-precision tensor rounded; then what speaks against publishing.

    Numbers that leave the type's range come first, since they are the cause of whatever else is wrong. The graph as it
    is served on a CPU has to hold as well. `accepted`: what less is asked of, by name.
    """
    runner = HalfRunner(repository, model.name, config_name, precision)
    measured = measure(repository, model, config_name, runner)
    problems = out_of_range(repository, model.name, runner.ranges)
    problems += check_parity(repository, model, measured, precision, accepted)
    if not problems and not all(row.half_as_served for row in runner.formats.values()):
        served = measure(repository, model, config_name)
        problems += check_parity(repository, model, served, precision, accepted)
    return measured, problems


def out_of_range(repository: Path, name: str, ranges: Ranges) -> list[Diagnostic]:
    """One diagnostic for all tensors beyond their limits: it tells of the first, which spoils the rest."""
    beyond = ranges.beyond()
    if not beyond:
        return []
    first, precision = beyond[0], ranges.precision
    cases = read_reference(repository / name / "1" / REFERENCE_NAME).cases
    what = "overflows" if first.magnitude > LARGEST[precision] else "has no room left"
    more = f"; {len(beyond) - 1} more of {len(ranges.peaks)} tensors leave theirs" if len(beyond) > 1 else ""
    return [
        Diagnostic(
            OVERFLOW,
            f"{precision} {what} in `{first.graph}`: tensor `{first.tensor}`, made by {first.made_by}, reaches "
            f"{first.magnitude:.6g} on {_text(cases, first)}, and {first.limit(precision):.6g} is its limit{more}",
            Where(repository / name),
            "build it with `--precision float32`"
            + (", or with `--precision bfloat16 --format torchscript`" if precision == "float16" else ""),
        )
    ]


def _text(cases: Sequence[Case], peak: Peak) -> str:
    """On what a peak was reached: cases run alone and in their order before they run in batches."""
    if peak.run < 0:
        return "every text"
    if peak.run >= len(cases):
        return "a batch of texts of different lengths"
    case = cases[peak.run]
    parts = [part for part in (case.query, case.document) if part is not None]
    return " with ".join(repr(part if len(part) <= SHOWN else f"{part[:SHOWN]}…") for part in parts)
