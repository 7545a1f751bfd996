"""What prepares the pictures of each kind of image input: the one place that names the kinds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from PIL import Image

from sie_frontend.images.entry import AnyImageInput, ImageInput, TiledInput
from sie_frontend.images.fitting import fitted
from sie_frontend.images.tiling import tiles
from sie_frontend.rows import Array

CHANNELS: Final = 3


@dataclass(frozen=True, slots=True, eq=False)
class ImageRow:
    """One picture, prepared: its tensors by name, without the batch axis. Nothing of a picture is ever padded."""

    arrays: Mapping[str, Array]
    cost: int = 1
    shape_key: Hashable = None
    cut: bool = False
    blank: bool = False
    kept: None = None

    @property
    def nbytes(self) -> int:
        """Those of its pixels."""
        return sum(array.nbytes for array in self.arrays.values())


class Preparer(Protocol):
    """Makes the rows of one image input. Pure computation: any thread may run it."""

    @property
    def tensors(self) -> Sequence[str]:
        """The names of the graph's inputs."""

    @property
    def widths(self) -> Sequence[int]:
        """What a row may cost, ascending."""

    @property
    def row_bytes(self) -> int:
        """How many bytes the pixels of the largest row take."""

    def row(self, picture: Image.Image) -> ImageRow:
        """The row of a picture in mode `RGB`, whatever its size."""

    def probe(self, cost: int) -> ImageRow:
        """A row of black, of this cost or the nearest that there is."""


class SquarePreparer:
    """Pictures that all become one square."""

    def __init__(self, entry: ImageInput) -> None:
        self._entry = entry
        self.tensors = (entry.tensor,)
        self.widths = (entry.positions,)
        self.row_bytes = entry.size**2 * CHANNELS

    def row(self, picture: Image.Image) -> ImageRow:
        """uint8 `[size, size, 3]`."""
        return self._row(fitted(picture, self._entry))

    def probe(self, cost: int) -> ImageRow:
        """A black square."""
        return self._row(np.zeros((self._entry.size, self._entry.size, CHANNELS), dtype=np.uint8))

    def _row(self, pixels: Array) -> ImageRow:
        return ImageRow({self._entry.tensor: pixels}, self._entry.positions)


class TiledPreparer:
    """Pictures that become tiles among tokens. Only pictures with equal grids have rows of one shape."""

    def __init__(self, entry: TiledInput) -> None:
        self._entry = entry
        self._ids = {grid: _expanded(layout, entry) for grid, layout in entry.layouts.items()}
        self.tensors = (entry.pixels, entry.ids)
        self.widths = tuple(sorted({len(ids) for ids in self._ids.values()}))
        self.row_bytes = max(map(_tile_count, entry.layouts)) * entry.size**2 * CHANNELS

    def row(self, picture: Image.Image) -> ImageRow:
        """uint8 `[tiles, size, size, 3]` and the ids of its grid."""
        grid, pixels = tiles(picture, self._entry)
        return self._row(grid, pixels)

    def probe(self, cost: int) -> ImageRow:
        """Black tiles, of the smallest grid that costs as much, else of the largest."""
        grids = sorted(self._ids, key=lambda grid: len(self._ids[grid]))
        grid = next((grid for grid in grids if len(self._ids[grid]) >= cost), grids[-1])
        size = self._entry.size
        return self._row(grid, np.zeros((_tile_count(grid), size, size, CHANNELS), dtype=np.uint8))

    def _row(self, grid: str, pixels: Array) -> ImageRow:
        ids = self._ids[grid]
        return ImageRow({self._entry.pixels: pixels, self._entry.ids: ids}, len(ids), shape_key=grid)


def _tile_count(grid: str) -> int:
    """Those of the grid, and the whole picture."""
    rows, columns = map(int, grid.split("x"))
    return rows * columns + 1


def _expanded(layout: Sequence[int], entry: TiledInput) -> Array:
    """The ids of a grid, one for each position."""
    tile = [entry.image_id] * entry.tile_positions
    return np.array([number for one in layout for number in (tile if one < 0 else [one])], dtype=np.int64)


def preparer(entry: AnyImageInput) -> Preparer:
    """What prepares the pictures of an input."""
    match entry:
        case ImageInput():
            return SquarePreparer(entry)
        case TiledInput():
            return TiledPreparer(entry)
