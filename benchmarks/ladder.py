"""Precisions on a CPU: what each step towards 8 bits costs in closeness, and what it gives in speed and bytes.

    sie-triton build -m sentence-transformers/all-MiniLM-L6-v2 --device cpu -r .cache/float32
    python -m benchmarks.ladder -r .cache/float32

Takes a repository of float32 models for a CPU, each one graph, and prints a Markdown table for each: the lowest cosine
to the stored reference, or of scores the largest difference; how far a text alone is from itself in a batch; the share
of float32's ten nearest that stay, with both sides in the precision and on a float32 index, by cosine, by the dot
product of sparse vectors or by MaxSim, or of a reranker the share of the ten first of its candidates, and Kendall's
tau; tokens a second against float32, the time of one text against float32's, and the bytes of the graph. Speeds are of
one thread, in turns in one process, the best of the rounds: where others compute too, only the ratios say something.
With the `openvino` package installed, its rows follow. `benchmarks.ladder_checkpoints` makes models to try it on.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from sie_frontend.manifest import Distance, read_manifest
from sie_frontend.rows import Array, Row, padded_width

from sie_triton.answers.runs import runs_of
from sie_triton.compiler.answers import Answers, Float32Answers, calibration
from sie_triton.eight_bits.products import products_of, values_of
from sie_triton.eight_bits.ranges_seen import largest_seen
from sie_triton.eight_bits.rewrite import EightBits, eight_bit_graph
from sie_triton.embedded.openvino_engine import installed
from sie_triton.onnx_graphs.finish import save_whole
from sie_triton.repository.processor import multiplies_bfloat16
from sie_triton.verify.model_runner import ModelRunner, Timed
from sie_triton.verify.parity import measure
from sie_triton.verify.public_model import PublicModel, public_model

ACCELERATOR = (
    'optimization {{ execution_accelerators {{ cpu_execution_accelerator {{ name: "openvino" '
    'parameters {{ key: "inference_precision" value: "{0}" }} }} }} }}\n'
)
# A product with so many outputs gives one for each word of a vocabulary.
WORDS = 10_000


@dataclass(frozen=True, slots=True)
class Rung:
    """One way of computing a model: a graph in float32 or 8 bits, and by OpenVINO its precision."""

    name: str
    how: EightBits | None = None
    openvino: str | None = None


FLOAT32 = Rung("float32")


@dataclass(frozen=True, slots=True)
class Seen:
    """What was measured of a rung."""

    rung: Rung
    distance: Distance
    answers: Answers
    runner: ModelRunner
    bytes: int

    @property
    def columns(self) -> str:
        """Closeness, and what becomes of answers, as cells of the table."""
        close, (kept, also) = self.distance, ("", "")
        for near in self.answers.nearest.values():
            kept, also = f"{near.alike:.1%}", f"{near.mixed:.1%}"
        for order in self.answers.reranked.values():
            kept, also = f"{order.kept:.1%}", f"tau {order.tau:.4f}"
        first = f"{close.max_abs:.1e}" if close.min_cosine is None else f"{close.min_cosine:.5f}"
        return f"{first} | {close.max_abs:.1e} | {close.batch_max_abs:.1e} | {kept} | {also}"


def rungs(values: frozenset[str], words: frozenset[str]) -> Iterator[Rung]:
    """What is compared. `values` are the weights of the attention's values, which lose the most, `words` those of the
    product that gives a number for each word of the vocabulary.
    """
    yield FLOAT32
    for block in (128, 64, 32):
        yield Rung(f"blocks of {block}", EightBits(block, moved=False, table=False))
        yield Rung(f"{block}, outliers moved", EightBits(block, table=False))
    yield Rung("64, outliers moved, values kept in float32", EightBits(64, table=False, kept=values))
    yield Rung("64, outliers moved, table in 8 bits", EightBits(64))
    yield Rung("32, outliers moved, table in 8 bits", EightBits(32))
    if words:
        yield Rung("64, outliers moved, vocabulary kept in float32", EightBits(64, table=False, kept=words))
        yield Rung("64, outliers moved, vocabulary and values kept", EightBits(64, table=False, kept=words | values))
        yield Rung("32, outliers moved, vocabulary kept in float32", EightBits(32, table=False, kept=words))
    if installed():
        yield Rung("OpenVINO, float32", openvino="f32")
        if multiplies_bfloat16():
            yield Rung("OpenVINO, bfloat16", openvino="bf16")
        for block in (128, 64, 32):
            yield Rung(f"OpenVINO, {block}, outliers moved", EightBits(block, table=False), openvino="bf16")


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.ladder", description=__doc__.splitlines()[0])
    parser.add_argument("-r", "--repository", type=Path, required=True, help="a repository in float32, for a CPU")
    parser.add_argument("--texts", type=int, default=5000, help="how many sentences the index has")
    parser.add_argument("--only", default="", help="besides float32, rows with this in their name")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the speeds")
    options = parser.parse_args()
    manifest = read_manifest(options.repository)
    for name in manifest.built:
        model = public_model(options.repository, manifest, name)
        with tempfile.TemporaryDirectory() as folder:
            climb(options.repository, model, Path(folder), options)


def climb(repository: Path, model: PublicModel, folder: Path, options: argparse.Namespace) -> None:
    """The table of one model."""
    texts, rounds = int(options.texts), int(options.rounds)
    source = repository / model.name / "1" / "model.onnx"
    rows = model.rows(calibration(model))
    seen = largest_seen(source, (model.reader.batch(*_run(model, rows, run)) for run in runs_of(model, rows)))
    products = products_of(onnx.load(str(source), load_external_data=False))
    words = frozenset(p.weight for p in products if p.outputs >= WORDS)
    float32: Float32Answers | None = None
    found: list[Seen] = []
    for number, rung in enumerate(
        r for r in rungs(values_of(products), words) if r == FLOAT32 or options.only in r.name
    ):
        place = folder / str(number)
        size = _written(repository, model.name, place, rung, seen)
        distance = next(iter(measure(place, model).values()))
        runner = ModelRunner(place, model.name, timed=Timed(1))
        float32 = float32 or Float32Answers.of(model, runner, texts)
        answers = Answers() if rung == FLOAT32 else float32.against(runner)
        found.append(Seen(rung, distance, answers, runner, size))
        print(f"{rung.name}: {found[-1].columns} {' '.join(answers.told())}", flush=True)
    speeds = _seconds(model, [one.runner for one in found], rows, rounds)
    alone = _seconds(model, [one.runner for one in found], rows[:8], rounds, alone=True)
    print(f"\n{model.name}, {texts} sentences\n")
    print("| | closeness | difference | alone against batched | ten kept | also | speed | one text | MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for one, seconds, single in zip(found, speeds, alone, strict=True):
        ratios = f"{speeds[0] / seconds:.2f} | {single / alone[0]:.2f} | {one.bytes / 1e6:.0f}"
        print(f"| {one.rung.name} | {one.columns} | {ratios} |", flush=True)


def _written(repository: Path, name: str, place: Path, rung: Rung, seen: Mapping[str, Array]) -> int:
    """A repository with the rung's graph and configuration; returns the bytes of the graph."""
    shutil.copytree(repository / name, place / name)
    path = place / name / "1" / "model.onnx"
    if rung.how is not None:
        made = onnx.load(str(path))
        eight_bit_graph(made, rung.how, seen)
        save_whole(made, path)
    if rung.openvino is not None:
        with (place / name / "config.pbtxt").open("a", encoding="utf-8") as config:
            config.write(ACCELERATOR.format(rung.openvino))
    return sum(file.stat().st_size for file in path.parent.glob("model.onnx*"))


def _run(model: PublicModel, rows: Sequence[Row], run: Sequence[int]) -> tuple[list[Row], int]:
    chosen = [rows[index] for index in run]
    return chosen, padded_width(max(row.cost for row in chosen), model.reader.widths(exact=False))


def _seconds(
    model: PublicModel, runners: Sequence[ModelRunner], rows: Sequence[Row], rounds: int, *, alone: bool = False
) -> list[float]:
    """The best time of each for all rows, in runs of a server's size or one by one; all take turns."""
    runs = [[index] for index in range(len(rows))] if alone else list(runs_of(model, rows))
    feeds = [model.reader.batch(*_run(model, rows, run)) for run in runs]
    names = [model.comparables[0].tensors[0]]
    best = [float("inf")] * len(runners)
    for _ in range(rounds):
        for number, runner in enumerate(runners):
            begun = time.perf_counter()
            for feed in feeds:
                runner.run(feed, names)
            best[number] = min(best[number], time.perf_counter() - begun)
    return best


if __name__ == "__main__":
    main()
