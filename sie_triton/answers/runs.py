"""Rows through the graphs of a model, in runs of a server's size; and how many texts a model is asked about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sie_frontend.rows import Array, Row, padded_width

from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.public_model import PublicModel

TEXTS, FEWEST_TEXTS = 5000, 500
# A graph of more weights than this is slow enough that fewer texts have to do.
QUICK_BYTES = 150_000_000
# As on a server: a batch that fits the cache.
RUN_TOKENS = 512


def texts_for(repository: Path) -> int:
    """How many texts a model is asked about, by the size of its graphs: a minute of work, however large it is."""
    weight = sum(path.stat().st_size for path in repository.glob("*/1/model*"))
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


def computed(
    model: PublicModel, runner: ModelRunner, rows: Sequence[Row], names: Sequence[str]
) -> Iterator[tuple[int, Mapping[str, Array]]]:
    """Each row's place with its named tensors, without the batch axis; nothing is run where nothing is named."""
    if not names:
        yield from ((place, {}) for place in range(len(rows)))
        return
    for run in runs_of(rows):
        width = padded_width(max(rows[i].cost for i in run), model.reader.widths(exact=False))
        tensors = runner.run(model.reader.batch([rows[i] for i in run], width), names)
        for line, place in enumerate(run):
            yield place, {name: array[line] for name, array in tensors.items()}
