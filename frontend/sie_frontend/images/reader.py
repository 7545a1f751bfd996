"""Items' pictures to rows. Pure computation: any thread may run it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from msgspec import UNSET

from sie_frontend.contract.errors import invalid_input, resource_exhausted
from sie_frontend.contract.requests import Item, Limits
from sie_frontend.images.decoding import Unreadable, View, decode
from sie_frontend.images.entry import ImageInput
from sie_frontend.images.fitting import fitted
from sie_frontend.images.options import view_of
from sie_frontend.rows import Array, Call, Row, stack

Pictures: TypeAlias = "tuple[bytes, ...] | str"
"""The encoded pictures of one item; a text is one picture in base64, which is what JSON can hold."""

# A picture takes about as long to read as so many characters.
_PICTURE_WORK = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class ImageRow:
    """One picture: `pixels` is uint8 `[size, size, 3]`. All have one shape, so that any may share a run."""

    tensor: str
    pixels: Array
    cost: int = 1
    shape_key: None = None
    cut: bool = False
    blank: bool = False
    kept: None = None

    @property
    def arrays(self) -> Mapping[str, Array]:
        """The one tensor."""
        return {self.tensor: self.pixels}


class ImageReader:
    """Makes the rows of one model's image input: one for each picture. Of a call, `IMAGE_OPTIONS` alone count."""

    recounts = False
    apart = True

    def __init__(
        self,
        entry: ImageInput,
        repository: Path,
        *,
        profiles: Mapping[str, Mapping[str, Any]],
        limits: Limits | None = None,
    ) -> None:
        self.entry = entry
        self._limits = limits or Limits()

    def given(self, items: Sequence[Item]) -> list[tuple[bytes, ...]]:
        """Every item's pictures. Raises `WireError` (400) where there is none, or too many in all."""
        pictures = []
        for item in items:
            if not item.images:
                raise invalid_input(self.entry.requires)
            # What is not there is no picture either, and is refused with its place.
            pictures.append(tuple(b"" if image.data is UNSET else image.data for image in item.images))
        if (count := sum(map(len, pictures))) > self._limits.images:
            raise invalid_input(
                f"Request has {count} images but at most {self._limits.images} images are read per request; "
                "split the request"
            )
        return pictures

    def work(self, given: Sequence[Pictures]) -> int:
        """Much: a picture of few bytes may be a large one."""
        return _PICTURE_WORK * sum(self.row_counts(given))

    def row_counts(self, given: Sequence[Pictures]) -> list[int]:
        """One row for each picture."""
        return [1 if isinstance(one, str) else len(one) for one in given]

    def rows(
        self, given: Sequence[Pictures], call: Call, *, is_query: bool, places: Sequence[str] = ()
    ) -> list[ImageRow]:
        """One row for each picture, in order. Raises `WireError` (400) that names the first that cannot be read."""
        rows: list[ImageRow] = []
        view = view_of(call.options)
        for number, one in enumerate(given):
            place = places[number] if places else f"items[{number}]"
            pictures = _from_text(one) if isinstance(one, str) else one
            if len(pictures) > self._limits.item_images:
                raise invalid_input(
                    f"{len(pictures)} images, and at most {self._limits.item_images} are read of one item - "
                    f"at `$.{place}.images`"
                )
            rows += [self._row(data, view, f"$.{place}.images[{index}].data") for index, data in enumerate(pictures)]
        return rows

    def _row(self, data: bytes, view: View, place: str) -> ImageRow:
        if len(data) > self._limits.image_bytes:
            raise invalid_input(
                f"image data has {len(data)} bytes, and at most {self._limits.image_bytes} are read - at `{place}`"
            )
        try:
            pixels = fitted(decode(data, self._limits.image_pixels, view), self.entry)
        except Unreadable as error:
            raise invalid_input(f"{error} - at `{place}`") from error
        except MemoryError as error:
            raise resource_exhausted(f"no memory to decode the image at `{place}`") from error
        return ImageRow(self.entry.tensor, pixels)

    def pairs(self, query: Any, given: Sequence[Any], call: Call) -> list[Row]:
        """Refused: no model that is served reads a picture together with something else."""
        raise invalid_input("images are not scored in pairs")

    def check(self, rows: Sequence[ImageRow], places: Sequence[str]) -> None:
        """Nothing: every byte is a pixel."""

    def billed(self, given: Sequence[Any], rows: Sequence[ImageRow], call: Call, *, is_query: bool) -> None:
        """Nothing: pictures have no tokens."""

    def probe(self, cost: int) -> ImageRow:
        """A black square."""
        return ImageRow(self.entry.tensor, np.zeros((self.entry.size, self.entry.size, 3), dtype=np.uint8))

    def widths(self, *, exact: bool) -> Sequence[int]:
        """One: no picture is padded."""
        return (1,)

    def batch(self, rows: Sequence[ImageRow], width: int) -> dict[str, Array]:
        """The one tensor, uint8 `[rows, size, size, 3]`."""
        return stack(rows, width, {self.entry.tensor: None})


def _from_text(text: str) -> tuple[bytes, ...]:
    try:
        return (base64.b64decode(text, validate=True),)
    except binascii.Error as error:
        raise invalid_input(f"not base64: {error}") from error
