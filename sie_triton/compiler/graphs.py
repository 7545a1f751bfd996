"""Graphs, measured: the candidates of a plan in their order, until one is close enough to be published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sie_frontend.manifest import Distance

from sie_triton.compiler.answers import Answers
from sie_triton.compiler.measured import MeasuredFiles, Site, WriteGraphs, too_coarse, write_configs
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.formats import Device, Precision
from sie_triton.half_precision.measure import measure_half
from sie_triton.planning.plan import TritonPlan
from sie_triton.repository.config import machines
from sie_triton.verify.parity import check_parity, measure
from sie_triton.verify.public_model import PublicModel


@dataclass(frozen=True, slots=True)
class MeasuredGraphs:
    """The candidate that held: its plan, how close each precision is, and what a padded position costs on a CPU.

    `answers` and `written`: what coarse precisions do to answers, and how their graphs were made.
    """

    plan: TritonPlan
    parity: Mapping[Precision, Mapping[str, Distance]]
    padding_cost: float | None
    answers: Mapping[Precision, Answers]
    written: Mapping[Precision, str]


@dataclass(frozen=True, slots=True)
class _GraphFiles:
    """The graphs of a plan in one precision. A graph that CUDA falls back to is not the one packed for CPUs alone."""

    precision: Precision
    packed: bool
    traced: bool


def candidates(plan: TritonPlan, *, insisted: Precision | None) -> list[TritonPlan]:
    """The plan, then with all padding computed, then both traced by torch where it can, then all in float32.

    To trace takes torch, and tens of seconds. A precision that the user `insisted` on is kept.
    """
    found = [plan, replace(plan, packing=False)] if plan.packing else [plan]
    if plan.graph_format.written and plan.traceable and not plan.traced:
        found += [replace(one, traced=True) for one in found]
    fallen: dict[Device, Precision] = {
        device: chosen if chosen == insisted else "float32" for device, chosen in plan.precisions.items()
    }
    if fallen != plan.precisions:
        found += [replace(one, precisions=fallen) for one in found]
    return found


def write_measured_graphs(
    plan: TritonPlan, model: PublicModel, write: WriteGraphs, site: Site, *, insisted: Precision | None
) -> MeasuredGraphs:
    """The first candidate that is close enough, written with its configurations.

    No graphs are written and measured twice, and a candidate with some that are known to miss is passed over. Raises
    `DiagnosticError` with what speaks against the last one if none holds.
    """
    known: dict[_GraphFiles, MeasuredFiles] = {}
    problems: Sequence[Diagnostic] = ()
    for candidate in candidates(plan, insisted=insisted):
        wanted = _files_of(candidate)
        if any(_misses(files, known) for files in wanted):
            continue
        if problems:
            site.announce(f"{plan.name}: {_given_way(candidate, wanted, known)}: {problems[0].message}")
        write_configs(candidate, site)
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
                {files.precision: known[files].answers for files in wanted if known[files].answers != Answers()},
                {files.precision: told for files in wanted if (told := known[files].written) is not None},
            )
    raise DiagnosticError(problems)


def _files_of(plan: TritonPlan) -> list[_GraphFiles]:
    precisions = dict.fromkeys(plan.precisions.values())
    return [_GraphFiles(precision, plan.packs(precision), plan.traced) for precision in precisions]


def _misses(files: _GraphFiles, known: Mapping[_GraphFiles, MeasuredFiles]) -> bool:
    if files in known and known[files].problems:
        return True
    return any(other.precision == files.precision and measured.hopeless for other, measured in known.items())


def _given_way(plan: TritonPlan, wanted: Sequence[_GraphFiles], known: dict[_GraphFiles, MeasuredFiles]) -> str:
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
) -> MeasuredFiles:
    if files.precision == "int8":
        from sie_triton.compiler.eight_bits import write_eight_bits

        return write_eight_bits(plan, model, write, site)
    if files.precision == "bfloat16" and plan.engine == "openvino":
        return _by_openvino(plan, model, write, site)
    padding_cost = write(plan, site.staging, files.precision)
    if padding_cost is not None:
        site.announce(f"{plan.name}: on CPUs, padding is computed only where tokens meet")
    machine = next(device for device, chosen in plan.precisions.items() if chosen == files.precision)
    config_name = machines(plan)[machine]
    if files.precision != "float32":
        distances, problems = measure_half(site.staging, model, config_name, files.precision, site.accepted)
    else:
        distances = measure(site.staging, model, config_name)
        problems = list(check_parity(site.staging, model, distances, files.precision))
    if problems or plan.precisions.get("cpu") != files.precision or files.precision != "bfloat16":
        return MeasuredFiles(distances, problems, padding_cost)
    return _with_answers(plan, model, write, site, MeasuredFiles(distances, problems, padding_cost))


def _by_openvino(plan: TritonPlan, model: PublicModel, write: WriteGraphs, site: Site) -> MeasuredFiles:
    """A float32 graph under the name of bfloat16, which OpenVINO computes in it, measured with that."""
    fmt = plan.graph_format
    padding_cost = write(replace(plan, precisions={"cpu": "float32"}), site.staging, "float32")
    for graph in plan.graphs:
        folder = site.staging / graph.triton_model / "1"
        # A large graph names the file of its weights, which stays.
        (folder / fmt.filename("float32")).rename(folder / fmt.filename("bfloat16"))
    distances = measure(site.staging, model, machines(plan)["cpu"])
    problems = tuple(check_parity(site.staging, model, distances, "bfloat16", site.accepted))
    measured = MeasuredFiles(distances, problems, padding_cost, written="a float32 graph, computed in bfloat16")
    return measured if problems else _with_answers(plan, model, write, site, measured)


def _with_answers(
    plan: TritonPlan, model: PublicModel, write: WriteGraphs, site: Site, measured: MeasuredFiles
) -> MeasuredFiles:
    """Graphs for a CPU that are as close in bfloat16 as they must be, with what they do to answers."""
    from sie_triton.compiler.float32_side import bfloat16_answers

    answers = bfloat16_answers(plan, model, write, site, machines(plan)["cpu"])
    problems = () if answers.close(site.accepted) else (too_coarse(plan.name, "bfloat16", site, list(answers.told())),)
    return replace(measured, answers=answers, problems=problems)


def _remove_other_graphs(plan: TritonPlan, staging: Path) -> None:
    """What earlier candidates left: graphs, and the weights beside them, in precisions that are not used."""
    fmt = plan.graph_format
    unused = [fmt.filename(precision) for precision in fmt.precisions if precision not in plan.precisions.values()]
    for graph in plan.graphs:
        for name in unused:
            for path in (staging / graph.triton_model / "1").glob(f"{name}*"):
                # `model.onnx*` would find no other precision's graph: their names go on before the suffix.
                path.unlink()
