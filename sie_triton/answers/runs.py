"""Rows through the graphs of a model, in runs of a server's size; and how many items a model is asked about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sie_frontend.rows import Array, Row, padded_width

from sie_triton.answers.items import ITEMS
from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.public_model import PublicModel

# Graphs of more weights than this are slow enough that fewer items have to do.
QUICK_BYTES = 150_000_000


def items_for(model: PublicModel, repository: Path) -> int:
    """How many items a model is asked about, by the size of its graphs: minutes of work, however large it is."""
    items = ITEMS[model.modality]
    weight = sum(path.stat().st_size for path in repository.glob("*/1/model*"))
    return max(items.fewest, min(items.most, items.most * QUICK_BYTES // max(1, weight)))


def runs_of(model: PublicModel, rows: Sequence[Row]) -> Iterator[list[int]]:
    """The places of rows in runs of rows of one shape that are about as long, each of a server's size."""
    alike: dict[object, list[int]] = {}
    for index, row in enumerate(rows):
        alike.setdefault(row.shape_key, []).append(index)
    for places in alike.values():
        run: list[int] = []
        for index in sorted(places, key=lambda i: rows[i].cost):
            if run and (len(run) + 1) * rows[index].cost > model.run_cost:
                yield run
                run = []
            run.append(index)
        yield run


def computed(
    model: PublicModel, runner: ModelRunner, rows: Sequence[Row], names: Sequence[str]
) -> Iterator[tuple[int, Mapping[str, Array]]]:
    """Each row's place with its named tensors, without the batch axis; nothing is run where nothing is named."""
    if not names:
        yield from ((place, {}) for place in range(len(rows)))
        return
    for run in runs_of(model, rows):
        width = padded_width(max(rows[i].cost for i in run), model.reader.widths(exact=False))
        tensors = runner.run(model.reader.batch([rows[i] for i in run], width), names)
        for line, place in enumerate(run):
            yield place, {name: array[line] for name, array in tensors.items()}
