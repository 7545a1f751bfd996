"""A public model in two precisions over the same texts: how many of the true ten nearest stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sie_frontend.manifest import Nearest
from sie_frontend.outputs.kind import Shape
from sie_frontend.reference import Case
from sie_frontend.rows import Array, Row, padded_width

from sie_triton.eight_bits.corpus import digest
from sie_triton.eight_bits.neighbours import kept, nearest, unit
from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.public_model import PublicModel

TEXTS, FEWEST_TEXTS = 5000, 500
# Every so many texts one is asked for, as a query.
QUERY_EVERY = 10
# A graph of more weights than this is slow enough that fewer texts have to do.
QUICK_BYTES = 150_000_000
# As on a server: a batch that fits the cache.
RUN_TOKENS = 512


def texts_for(repository: Path) -> int:
    """How many texts a model is asked about, by the size of its graphs: a minute of work, however large it is."""
    weight = sum(path.stat().st_size for path in repository.rglob("*.onnx*"))
    return max(FEWEST_TEXTS, min(TEXTS, TEXTS * QUICK_BYTES // max(1, weight)))


def runs_of(rows: Sequence[Row]) -> Iterator[list[int]]:
    """The places of rows in runs of rows that are about as long, each of a server's size."""
    run: list[int] = []
    for index in sorted(range(len(rows)), key=lambda i: rows[i].cost):
        if run and (len(run) + 1) * rows[index].cost > RUN_TOKENS:
            yield run
            run = []
        run.append(index)
    if run:
        yield run


@dataclass(frozen=True, slots=True)
class Vectors:
    """Of one output, unit vectors of all texts `[texts, width]`, and of those that are asked for, as queries."""

    texts: Array
    queries: Array


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts, their rows, and what float32 makes of them, by output."""

    model: PublicModel
    texts: tuple[str, ...]
    rows: tuple[Row, ...]
    asked: tuple[Row, ...]
    float32: Mapping[str, Vectors]

    @classmethod
    def of(cls, model: PublicModel, runner: ModelRunner, texts: tuple[str, ...]) -> Corpus:
        """Compute float32's side."""
        rows = tuple(model.rows([Case(text) for text in texts]))
        asked = tuple(model.rows([Case(None, text) for text in texts[::QUERY_EVERY]]))
        return cls(model, texts, rows, asked, _vectors(model, runner, rows, asked))


def measure_nearest(corpus: Corpus, runner: ModelRunner) -> dict[str, Nearest]:
    """What the graphs of `runner` do to an index of the corpus, for each output that is a vector."""
    ours = _vectors(corpus.model, runner, corpus.rows, corpus.asked)
    own = np.arange(0, len(corpus.texts), QUERY_EVERY)
    found = {}
    for name, theirs in corpus.float32.items():
        mine = ours[name]
        true = nearest(theirs.queries, theirs.texts, own)
        found[name] = Nearest(
            texts=len(corpus.texts),
            queries=len(corpus.asked),
            alike=kept(true, nearest(mine.queries, mine.texts, own)),
            mixed=kept(true, nearest(mine.queries, theirs.texts, own)),
            min_cosine=float(np.min(np.sum(mine.texts * theirs.texts, axis=1))),
            corpus="sentences of Python's documentation",
            digest=digest(corpus.texts),
        )
    return found


def _vectors(model: PublicModel, runner: ModelRunner, rows: Sequence[Row], asked: Sequence[Row]) -> dict[str, Vectors]:
    names = [compared.tensors[0] for compared in model.comparables if compared.shape is Shape.VECTOR]
    documents, queries = _computed(model, runner, rows, names), _computed(model, runner, asked, names)
    return {name: Vectors(unit(documents[name]), unit(queries[name])) for name in names}


def _computed(model: PublicModel, runner: ModelRunner, rows: Sequence[Row], names: Sequence[str]) -> dict[str, Array]:
    made: dict[str, list[Array]] = {name: [np.empty(0)] * len(rows) for name in names}
    for run in runs_of(rows):
        width = padded_width(max(rows[i].cost for i in run), model.reader.widths(exact=False))
        for name, array in runner.run(model.reader.batch([rows[i] for i in run], width), names).items():
            for place, index in enumerate(run):
                made[name][index] = array[place]
    return {name: np.stack(arrays) for name, arrays in made.items()}
