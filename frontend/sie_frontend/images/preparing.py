"""What prepares the pictures of each kind of image input: the one place that names the kinds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from sie_frontend.images.entry import AnyImageInput, ImageInput
from sie_frontend.images.fitting import fitted
from sie_frontend.rows import Array


@dataclass(frozen=True, slots=True, eq=False)
class ImageRow:
    """One picture, prepared: its tensors by name, without the batch axis. Nothing of a picture is ever padded."""

    arrays: Mapping[str, Array]
    cost: int = 1
    shape_key: Hashable = None
    cut: bool = False
    blank: bool = False
    kept: None = None


class Preparer(Protocol):
    """Makes the rows of one image input. Pure computation: any thread may run it."""

    @property
    def tensors(self) -> Sequence[str]:
        """The names of the graph's inputs."""

    @property
    def widths(self) -> Sequence[int]:
        """What a row may cost, ascending."""

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

    def row(self, picture: Image.Image) -> ImageRow:
        """uint8 `[size, size, 3]`."""
        return self._row(fitted(picture, self._entry))

    def probe(self, cost: int) -> ImageRow:
        """A black square."""
        return self._row(np.zeros((self._entry.size, self._entry.size, 3), dtype=np.uint8))

    def _row(self, pixels: Array) -> ImageRow:
        return ImageRow({self._entry.tensor: pixels}, self._entry.positions)


def preparer(entry: AnyImageInput) -> Preparer:
    """What prepares the pictures of an input."""
    match entry:
        case ImageInput():
            return SquarePreparer(entry)
