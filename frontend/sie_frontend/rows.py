"""What serving knows of a modality: a reader makes rows of items, and a batch of rows. Nothing here knows a token."""

from __future__ import annotations

import bisect
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import numpy as np

from sie_frontend.contract.requests import Item

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"
# So many bytes are copied in about as long as a hop to another thread and back takes.
INLINE_BYTES: Final = 1 << 20

AnyRow = TypeVar("AnyRow", bound="Queued")


class Queued(Protocol):
    """What a queue knows of a row."""

    @property
    def cost(self) -> int:
        """What it takes of a run, in positions: the tokens of a text, a constant for what has one shape."""

    @property
    def shape_key(self) -> Hashable:
        """Only rows whose keys are equal may share a run; padding makes all texts alike."""


class Row(Queued, Protocol):
    """One thing to compute, made of an item or of a pair. Rows never change."""

    @property
    def arrays(self) -> Mapping[str, Array]:
        """Its tensors by the names of the model's inputs, unpadded and without the batch axis."""

    @property
    def nbytes(self) -> int:
        """How many bytes of it are copied into a batch, small arrays left out."""

    @property
    def cut(self) -> bool:
        """Whether the item had more than the model reads."""

    @property
    def blank(self) -> bool:
        """Whether there is nothing in it to encode, such as white space alone."""

    @property
    def kept(self) -> Array | None:
        """Which positions have a vector in a multivector, as booleans; None: all."""


class Call(Protocol):
    """What a reader looks at of a call."""

    @property
    def options(self) -> Mapping[str, Any]:
        """The profile's runtime options under the request's."""

    @property
    def instruction(self) -> str | None:
        """The instruction of the call, if it has one."""


class Reader(Protocol):
    """Makes the rows of one input of one model. Pure computation: any thread may run it.

    `given` is what items give this modality, such as their texts: hashable, so that equal ones are computed once.
    Everything raises `WireError` (400) for what cannot be read; `places` names the items in messages.
    """

    @property
    def recounts(self) -> bool:
        """Whether `billed` reads the items again."""

    @property
    def apart(self) -> bool:
        """Whether one takes so long to read that they are read one at a time, with those of others in between."""

    def given(self, items: Sequence[Item]) -> Sequence[Any]:
        """What each item gives."""

    def work(self, given: Sequence[Any]) -> int:
        """How much there is to read, in characters or what takes as long."""

    def row_counts(self, given: Sequence[Any]) -> Sequence[int]:
        """How many rows each has: one, or one for each image of an item."""

    def check_together(self, given: Sequence[Any], call: Call, places: Sequence[str]) -> None:
        """Refuse what is too much in all, where they are read one at a time and none of them sees the others."""

    def rows(self, given: Sequence[Any], call: Call, *, is_query: bool, places: Sequence[str] = ()) -> Sequence[Row]:
        """The rows of each, in order."""

    def pairs(self, query: Any, given: Sequence[Any], call: Call) -> Sequence[Row]:
        """One row for the query with each."""

    def check(self, rows: Sequence[Any], places: Sequence[str]) -> None:
        """Refuse rows that would fail the runs that they share with others."""

    def billed(self, given: Sequence[Any], rows: Sequence[Any], call: Call, *, is_query: bool) -> list[int] | None:
        """The tokens of each that `usage` counts; None where nothing has any."""

    def probe(self, cost: int) -> Row:
        """A row to try the model with, of this cost or the nearest that there is."""

    def widths(self, *, exact: bool) -> Sequence[int]:
        """The costs that rows are padded to, ascending: all of them, or few where shapes are expensive."""

    def batch(self, rows: Sequence[Any], width: int) -> dict[str, Array]:
        """The model's input tensors `[rows, …]`, padded to `width`."""


def padded_width(cost: int, widths: Sequence[int]) -> int:
    """The least width that holds `cost` positions. `widths` ascend and end at the most that a row may cost."""
    index = bisect.bisect_left(widths, cost)
    if index == len(widths):
        raise ValueError(f"{cost} positions exceed the widest shape, {widths[-1]}")
    return widths[index]


def stack(rows: Sequence[Row], width: int, fills: Mapping[str, int | None]) -> dict[str, Array]:
    """The batch of some rows: the named arrays side by side, `[rows, …]`.

    `fills` has the number that pads the first axis of an array to `width`; None where all have the same shape.
    """
    given = [row.arrays for row in rows]
    batch: dict[str, Array] = {}
    for name, fill in fills.items():
        if fill is None:
            batch[name] = np.stack([arrays[name] for arrays in given])
            continue
        first = given[0][name]
        padded = np.full((len(rows), width, *first.shape[1:]), fill, dtype=first.dtype)
        for index, arrays in enumerate(given):
            padded[index, : len(arrays[name])] = arrays[name]
        batch[name] = padded
    return batch
