"""int8 in a build: the float32 graphs first, then what is tried of them in 8 bits until one is close enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx
from sie_frontend.manifest import Distance
from sie_frontend.rows import Array, Row

from sie_triton.answers.runs import runs_of, texts_for
from sie_triton.backends.onnxruntime.operators import BLOCK_BITS_SINCE
from sie_triton.compiler.answers import Answers, Float32Answers, calibration
from sie_triton.compiler.float32_side import float32_side
from sie_triton.compiler.measured import MeasuredFiles, Site, WriteGraphs, too_coarse
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.eight_bits.products import products_of, values_of
from sie_triton.eight_bits.ranges_seen import largest_seen
from sie_triton.eight_bits.rewrite import EightBits, Ranges8, eight_bit_graph, tried
from sie_triton.onnx_graphs.finish import save_whole
from sie_triton.planning.plan import GraphPlan, TritonPlan
from sie_triton.repository.config import machines
from sie_triton.repository.processor import instructions
from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.parity import check_parity, measure
from sie_triton.verify.public_model import PublicModel


def write_eight_bits(plan: TritonPlan, model: PublicModel, write: WriteGraphs, site: Site) -> MeasuredFiles:
    """The graphs of a plan in int8, and how close they are to the reference and to float32 in an index.

    What speaks against the float32 graphs comes first, since nothing can be made of them then.
    """
    _check_runtime()
    with float32_side(plan, model, write, site) as (whole, apart, padding_cost):
        distances = measure(apart.staging, model)
        problems = tuple(check_parity(apart.staging, model, distances))
        if problems:
            return MeasuredFiles(distances, problems, padding_cost)
        return _first_close(plan, whole, model, apart, site, padding_cost)


def _check_runtime() -> None:
    """Raises `DiagnosticError` (`SIE530`) where ONNX Runtime is older than weights of 8 bits."""
    import onnxruntime

    found = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    if found < BLOCK_BITS_SINCE[8]:
        needed = ".".join(map(str, BLOCK_BITS_SINCE[8]))
        message = (
            f"int8 needs ONNX Runtime {needed}, the first with weights of 8 bits; here is {onnxruntime.__version__}"
        )
        raise DiagnosticError([Diagnostic("SIE530", message, hint=f"`pip install 'onnxruntime>={needed}'`")])


def _first_close(
    plan: TritonPlan, whole: TritonPlan, model: PublicModel, apart: Site, site: Site, padding_cost: float | None
) -> MeasuredFiles:
    seen = _seen(whole, model, apart)
    machine = next(device for device, chosen in plan.precisions.items() if chosen == "int8")
    config_name = machines(plan)[machine]
    float32_answers: Float32Answers | None = None
    figures: list[str] = []
    for how in tried(_values(whole, apart)):
        for graph in plan.graphs:
            _rewrite(whole, plan, graph, apart.staging, site.staging, how, seen)
        distances = measure(site.staging, model, config_name)
        missed = list(check_parity(site.staging, model, distances, "int8", site.accepted))
        told = [_distance_told(name, distance) for name, distance in distances.items()]
        answers = Answers()
        if not missed:
            if float32_answers is None:
                count = texts_for(apart.staging)
                site.announce(f"{plan.name}: answers over {count} sentences or pairs of them, in float32 and in int8")
                float32_answers = Float32Answers.of(model, ModelRunner(apart.staging, model.name), count)
            answers = float32_answers.against(ModelRunner(site.staging, model.name, config_name))
            told += answers.told()
        figures.append(f"{how.told()}: {'; '.join(told)}")
        site.announce(f"{plan.name}: {figures[-1]}")
        if not missed and answers.close(site.accepted):
            written = f"{how.told()}; measured on a processor with {', '.join(instructions() or ()) or 'nothing known'}"
            return MeasuredFiles(distances, (), padding_cost, answers, written)
    return MeasuredFiles(problems=[too_coarse(plan.name, "int8", site, figures)], padding_cost=padding_cost)


def _seen(plan: TritonPlan, model: PublicModel, apart: Site) -> dict[str, Ranges8]:
    """By graph, how large the states of its products become; nothing of graphs that follow another one."""
    rows = model.rows(calibration(model))
    first = plan.graphs[0]
    path = apart.staging / first.triton_model / "1" / plan.graph_format.filename("float32")
    return {first.triton_model: largest_seen(path, _inputs(model, rows))}


def _values(plan: TritonPlan, apart: Site) -> frozenset[str]:
    """The weights of attention's values in the float32 graphs."""
    paths = (apart.staging / g.triton_model / "1" / plan.graph_format.filename("float32") for g in plan.graphs)
    graphs = (onnx.load(str(path), load_external_data=False) for path in paths)
    return frozenset(name for graph in graphs for name in values_of(products_of(graph)))


def _inputs(model: PublicModel, rows: Sequence[Row]) -> Iterator[Mapping[str, Array]]:
    for run in runs_of(rows):
        yield model.reader.batch([rows[i] for i in run], max(rows[i].cost for i in run))


def _rewrite(
    whole: TritonPlan,
    plan: TritonPlan,
    graph: GraphPlan,
    source: Path,
    staging: Path,
    how: EightBits,
    seen: Mapping[str, Ranges8],
) -> None:
    path = source / graph.triton_model / "1" / whole.graph_format.filename("float32")
    made = onnx.load(str(path))
    eight_bit_graph(made, how, seen.get(graph.triton_model, {}))
    save_whole(made, staging / graph.triton_model / "1" / plan.graph_format.filename("int8"))


def _distance_told(name: str, distance: Distance) -> str:
    cosine = "" if distance.min_cosine is None else f"lowest cosine {distance.min_cosine:.5f}, "
    relative = distance.max_abs / distance.largest
    return f"`{name}` {cosine}largest difference {relative:.1e}, alone against batched {distance.batch_max_abs:.1e}"
