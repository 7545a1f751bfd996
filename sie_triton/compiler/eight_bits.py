"""int8 in a build: the float32 graphs first, then what is tried of them in 8 bits until one is close enough."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx
from sie_frontend.manifest import Distance, Nearest
from sie_frontend.reference import REFERENCE_NAME, Case
from sie_frontend.rows import Array, Row

from sie_triton.backends.onnxruntime.operators import BLOCK_BITS_SINCE
from sie_triton.compiler.measured import TOO_COARSE, MeasuredFiles, Site, WriteGraphs, write_configs
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.eight_bits.corpus import documentation
from sie_triton.eight_bits.index_measure import Corpus, measure_nearest, runs_of, texts_for
from sie_triton.eight_bits.products import products_of, values_of
from sie_triton.eight_bits.ranges_seen import largest_seen
from sie_triton.eight_bits.rewrite import EightBits, Ranges8, eight_bit_graph, tried
from sie_triton.interrupts import fleeting
from sie_triton.onnx_graphs.finish import save_whole
from sie_triton.planning.plan import GraphPlan, TritonPlan
from sie_triton.repository.config import machines
from sie_triton.repository.processor import instructions
from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.parity import check_parity, measure
from sie_triton.verify.public_model import PublicModel

KEPT_NEAREST = 0.98
CALIBRATION_TEXTS = 128


def write_eight_bits(plan: TritonPlan, model: PublicModel, write: WriteGraphs, site: Site) -> MeasuredFiles:
    """The graphs of a plan in int8, and how close they are to the reference and to float32 in an index.

    What speaks against the float32 graphs comes first, since nothing can be made of them then.
    """
    _check_runtime()
    whole = replace(plan, precisions={"cpu": "float32"}, engine="onnxruntime")
    with tempfile.TemporaryDirectory(prefix="sie-triton-") as folder, fleeting(Path(folder)):
        first = _float32(whole, model, write, replace(site, staging=Path(folder)), site.staging)
        if first.problems:
            return first
        return _first_close(plan, whole, model, replace(site, staging=Path(folder)), site, first)


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


def _float32(plan: TritonPlan, model: PublicModel, write: WriteGraphs, apart: Site, staging: Path) -> MeasuredFiles:
    """The float32 graphs in a repository of their own, beside the reference."""
    for name in dict.fromkeys((*(graph.triton_model for graph in plan.graphs), plan.name)):
        (apart.staging / name / "1").mkdir(parents=True)
    home = Path(model.name) / "1" / REFERENCE_NAME
    shutil.copyfile(staging / home, apart.staging / home)
    padding_cost = write(plan, apart.staging, "float32")
    write_configs(plan, apart)
    distances = measure(apart.staging, model)
    return MeasuredFiles(distances, tuple(check_parity(apart.staging, model, distances)), padding_cost)


def _first_close(
    plan: TritonPlan, whole: TritonPlan, model: PublicModel, apart: Site, site: Site, float32: MeasuredFiles
) -> MeasuredFiles:
    seen = _seen(whole, model, apart)
    machine = next(device for device, chosen in plan.precisions.items() if chosen == "int8")
    config_name = machines(plan)[machine]
    corpus: Corpus | None = None
    figures: list[str] = []
    for how in tried(_values(whole, apart)):
        for graph in plan.graphs:
            _rewrite(whole, plan, graph, apart.staging, site.staging, how, seen)
        distances = measure(site.staging, model, config_name)
        missed = list(check_parity(site.staging, model, distances, "int8", site.accepted))
        told = [_distance_told(name, distance) for name, distance in distances.items()]
        nearest: Mapping[str, Nearest] = {}
        if not missed:
            if corpus is None:
                count = texts_for(apart.staging)
                site.announce(f"{plan.name}: the ten nearest of {count} sentences, in float32 and in int8")
                corpus = Corpus.of(model, ModelRunner(apart.staging, model.name), documentation(count))
            nearest = measure_nearest(corpus, ModelRunner(site.staging, model.name, config_name))
            told += [_nearest_told(name, found) for name, found in nearest.items()]
        figures.append(f"{how.told()}: {'; '.join(told)}")
        site.announce(f"{plan.name}: {figures[-1]}")
        least = site.accepted.get("nearest", KEPT_NEAREST)
        if not missed and all(min(found.alike, found.mixed) >= least for found in nearest.values()):
            written = f"{how.told()}; measured on a processor with {', '.join(instructions() or ()) or 'nothing known'}"
            return MeasuredFiles(distances, (), float32.padding_cost, nearest, written)
    return MeasuredFiles(problems=[_too_coarse(plan, site, figures)], padding_cost=float32.padding_cost)


def _seen(plan: TritonPlan, model: PublicModel, apart: Site) -> dict[str, Ranges8]:
    """By graph, how large the states of its products become; nothing of graphs that follow another one."""
    cases = [Case(text) for text in documentation(CALIBRATION_TEXTS)]
    rows = model.rows(cases)
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


def _nearest_told(name: str, found: Nearest) -> str:
    return (
        f"`{name}` keeps {found.alike:.1%} of the ten nearest of {found.texts} texts, {found.mixed:.1%} on a float32 "
        f"index"
    )


def _too_coarse(plan: TritonPlan, site: Site, figures: Sequence[str]) -> Diagnostic:
    cosine, least = site.accepted.get("cosine", 0.998), site.accepted.get("nearest", KEPT_NEAREST)
    return Diagnostic(
        TOO_COARSE,
        f"`{plan.name}` is not close enough in int8: a cosine of {cosine} and {least:.0%} of the ten nearest are "
        f"required, and a text alone ten times closer to itself in a batch. {' | '.join(figures)}",
        Where(site.staging / plan.name),
        "build it with `--precision float32`, or take less by name: `--accept cosine=0.99`, `--accept nearest=0.95`",
    )
