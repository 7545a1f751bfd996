"""int8 in a build: the float32 graphs first, then what is tried of them in 8 bits until one is close enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
from sie_frontend.manifest import Distance
from sie_frontend.rows import Array, Row

from sie_triton.answers.items import ITEMS
from sie_triton.answers.runs import items_for, runs_of
from sie_triton.backends.onnxruntime.operators import BLOCK_BITS_SINCE
from sie_triton.compiler.answers import Answers, Float32Answers, calibration
from sie_triton.compiler.float32_side import float32_side
from sie_triton.compiler.measured import MeasuredFiles, Site, WriteGraphs, too_coarse
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.eight_bits.products import products_of, values_of
from sie_triton.eight_bits.ranges_seen import largest_seen
from sie_triton.eight_bits.rewrite import EightBits, eight_bit_graph, tried
from sie_triton.formats import Precision
from sie_triton.onnx_graphs.finish import save_whole
from sie_triton.planning.plan import TritonPlan
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
    machine = next(device for device, chosen in plan.precisions.items() if chosen == "int8")

    def files(of: TritonPlan, folder: Path, precision: Precision) -> Iterator[Path]:
        for graph in of.graphs:
            yield folder / graph.triton_model / "1" / of.graph_format.filename(precision)

    @cache
    def float32() -> Float32Answers:
        count = items_for(model, apart.staging)
        told = ITEMS[model.modality].told
        site.announce(f"{plan.name}: answers over {count} {told} or pairs of them, in float32 and in int8")
        return Float32Answers.of(model, ModelRunner(apart.staging, model.name), count)

    graphs = list(zip(files(whole, apart.staging, "float32"), files(plan, site.staging, "int8"), strict=True))
    figures: list[str] = []
    for attempt in attempts(graphs, site.staging, model, float32, machines(plan)[machine], site.accepted):
        figures.append(attempt.told())
        site.announce(f"{plan.name}: {figures[-1]}")
        if attempt.close:
            seen = ", ".join(instructions() or ()) or "nothing known"
            written = f"{attempt.how.told()}; measured on a processor with {seen}"
            return MeasuredFiles(attempt.distances, (), padding_cost, attempt.answers, written)
    return MeasuredFiles(problems=[too_coarse(plan.name, "int8", site, figures)], padding_cost=padding_cost)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way of writing graphs in 8 bits, and what came of it. `close`: whether it may be published."""

    how: EightBits
    distances: Mapping[str, Distance]
    answers: Answers
    close: bool

    def told(self) -> str:
        """The way and its figures, in words."""
        distances = (_distance_told(name, distance) for name, distance in self.distances.items())
        return f"{self.how.told()}: {'; '.join((*distances, *self.answers.told()))}"


def attempts(
    graphs: Sequence[tuple[Path, Path]],
    folder: Path,
    model: PublicModel,
    float32: Callable[[], Float32Answers],
    config_name: str = "",
    accepted: Mapping[str, float] | None = None,
) -> Iterator[Attempt]:
    """Write float32 `graphs` in 8 bits, each as `(from, to)`, one way after the other, and measure each in `folder`.

    The first graph is the one that reads the model's inputs. `float32` is asked once answers have to be compared.
    `accepted`: what less is asked of, by name.
    """
    accepted = accepted or {}
    (first, _), *_ = graphs
    rows = model.rows(calibration(model))
    # Nothing is known of the states in graphs that follow another one.
    seen = {first: largest_seen(first, _inputs(model, rows))}
    for how in tried(_values(graphs)):
        for source, target in graphs:
            made = onnx.load(str(source))
            eight_bit_graph(made, how, seen.get(source, {}))
            save_whole(made, target)
        distances = measure(folder, model, config_name)
        if any(check_parity(folder, model, distances, "int8", accepted)):
            yield Attempt(how, distances, Answers(), close=False)
            continue
        answers = float32().against(ModelRunner(folder, model.name, config_name))
        yield Attempt(how, distances, answers, answers.close(accepted))


def _values(graphs: Sequence[tuple[Path, Path]]) -> frozenset[str]:
    """The weights of attention's values in the float32 graphs."""
    opened = (onnx.load(str(source), load_external_data=False) for source, _ in graphs)
    return frozenset(name for graph in opened for name in values_of(products_of(graph)))


def _inputs(model: PublicModel, rows: Sequence[Row]) -> Iterator[Mapping[str, Array]]:
    for run in runs_of(model, rows):
        yield model.reader.batch([rows[i] for i in run], max(rows[i].cost for i in run))


def _distance_told(name: str, distance: Distance) -> str:
    cosine = "" if distance.min_cosine is None else f"lowest cosine {distance.min_cosine:.5f}, "
    relative = distance.max_abs / distance.largest
    return f"`{name}` {cosine}largest difference {relative:.1e}, alone against batched {distance.batch_max_abs:.1e}"
