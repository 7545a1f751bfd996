"""Graphs, measured: the candidates of a plan in their order, until one is close enough to be published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from sie_frontend.manifest import Distance

from sie_triton.compiler.options import Announce
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.formats import Precision
from sie_triton.half_precision.measure import OVERFLOW, measure_half
from sie_triton.planning.plan import TritonPlan
from sie_triton.repository.config import CpuShape, machines, triton_configs
from sie_triton.repository.render import render
from sie_triton.verify.model_runner import config_path
from sie_triton.verify.parity import check_parity, measure
from sie_triton.verify.public_model import PublicModel

WriteGraphs: TypeAlias = "Callable[[TritonPlan, Path, Precision], float | None]"


@dataclass(frozen=True, slots=True)
class Site:
    """Where the graphs of one plan are written and measured. `tag` tells builds apart."""

    staging: Path
    cpu: CpuShape
    tag: str
    announce: Announce


@dataclass(frozen=True, slots=True)
class MeasuredGraphs:
    """The candidate that held: its plan, how close each precision is, and what a padded position costs on a CPU."""

    plan: TritonPlan
    parity: Mapping[Precision, Mapping[str, Distance]]
    padding_cost: float | None


@dataclass(frozen=True, slots=True)
class _GraphFiles:
    """The graphs of a plan in one precision. A graph that CUDA falls back to is not the one packed for CPUs alone."""

    precision: Precision
    packed: bool
    traced: bool


@dataclass(frozen=True, slots=True)
class _Measured:
    """What came of writing some graph files once."""

    distances: Mapping[str, Distance] = field(default_factory=dict)
    problems: Sequence[Diagnostic] = ()
    padding_cost: float | None = None

    @property
    def overflows(self) -> bool:
        """Whether numbers leave the precision's range, as they will however the graph is written."""
        return bool(self.problems) and self.problems[0].code == OVERFLOW


def candidates(plan: TritonPlan, *, insisted: bool) -> list[TritonPlan]:
    """The plan, then traced by torch where it can, then with all padding computed, then in float32.

    A precision that the user `insisted` on is kept.
    """
    found = [plan]
    if plan.graph_format.written and plan.traceable and not plan.traced:
        plan = replace(plan, traced=True)
        found.append(plan)
    if plan.packing:
        found.append(replace(plan, packing=False))
    if not insisted and set(plan.precisions.values()) != {"float32"}:
        found += [replace(one, precisions=dict.fromkeys(plan.precisions, "float32")) for one in found]
    return found


def write_measured_graphs(
    plan: TritonPlan, model: PublicModel, write: WriteGraphs, site: Site, *, insisted: bool
) -> MeasuredGraphs:
    """The first candidate that is close enough, written with its configurations.

    No graphs are written and measured twice, and a candidate with some that are known to miss is passed over. Raises
    `DiagnosticError` with what speaks against the last one if none holds.
    """
    known: dict[_GraphFiles, _Measured] = {}
    problems: Sequence[Diagnostic] = ()
    for candidate in candidates(plan, insisted=insisted):
        wanted = _files_of(candidate)
        if any(_misses(files, known) for files in wanted):
            continue
        if problems:
            site.announce(f"{plan.name}: {_given_way(candidate, wanted, known)}: {problems[0].message}")
        _write_configs(candidate, site)
        for files in wanted:
            if files not in known:
                known[files] = _write_and_measure(candidate, files, model, write, site)
            if problems := known[files].problems:
                break
        else:
            _remove_other_graphs(candidate, site.staging)
            return MeasuredGraphs(
                candidate,
                {files.precision: known[files].distances for files in wanted},
                next((known[files].padding_cost for files in wanted if _on_cpu(candidate, files)), None),
            )
    raise DiagnosticError(problems)


def _files_of(plan: TritonPlan) -> list[_GraphFiles]:
    precisions = dict.fromkeys(plan.precisions.values())
    return [_GraphFiles(precision, plan.packs(precision), plan.traced) for precision in precisions]


def _misses(files: _GraphFiles, known: Mapping[_GraphFiles, _Measured]) -> bool:
    if files in known and known[files].problems:
        return True
    return any(other.precision == files.precision and measured.overflows for other, measured in known.items())


def _given_way(plan: TritonPlan, wanted: Sequence[_GraphFiles], known: dict[_GraphFiles, _Measured]) -> str:
    """What takes the place of what missed last, in words."""
    missed = next(f for f, measured in reversed(known.items()) if measured.problems and f not in wanted)
    if plan.traced and not missed.traced:
        return "written without torch it is not close enough, what torch traces takes its place"
    if missed.precision in plan.precisions.values():
        return "packed it is not close enough, padded takes its place"
    return f"{missed.precision} is not close enough, float32 takes its place"


def _on_cpu(plan: TritonPlan, files: _GraphFiles) -> bool:
    return plan.precisions.get("cpu") == files.precision


def _write_and_measure(
    plan: TritonPlan, files: _GraphFiles, model: PublicModel, write: WriteGraphs, site: Site
) -> _Measured:
    padding_cost = write(plan, site.staging, files.precision)
    if padding_cost is not None:
        site.announce(f"{plan.name}: on CPUs, padding is computed only where tokens meet")
    machine = next(device for device, chosen in plan.precisions.items() if chosen == files.precision)
    config_name = machines(plan)[machine]
    if files.precision != "float32":
        distances, problems = measure_half(site.staging, model, config_name, files.precision)
    else:
        distances = measure(site.staging, model, config_name)
        problems = list(check_parity(site.staging, model, distances, files.precision))
    return _Measured(distances, problems, padding_cost)


def _write_configs(plan: TritonPlan, site: Site) -> None:
    for config_name, configs in triton_configs(plan, site.cpu, site.tag).items():
        for config in configs:
            path = config_path(site.staging / config.name)
            if config_name:
                path = path.parent / "configs" / f"{config_name}.pbtxt"
                path.parent.mkdir(exist_ok=True)
            path.write_text(render(config), encoding="utf-8")


def _remove_other_graphs(plan: TritonPlan, staging: Path) -> None:
    """What earlier candidates left: graphs, and the weights beside them, in precisions that are not used."""
    fmt = plan.graph_format
    unused = [fmt.filename(precision) for precision in fmt.precisions if precision not in plan.precisions.values()]
    for graph in plan.graphs:
        for name in unused:
            for path in (staging / graph.triton_model / "1").glob(f"{name}*"):
                # `model.onnx*` would find no other precision's graph: their names go on before the suffix.
                path.unlink()
