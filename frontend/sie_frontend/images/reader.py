"""Items' pictures to rows. Pure computation: any thread may run it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from msgspec import UNSET

from sie_frontend.contract.errors import invalid_input
from sie_frontend.contract.requests import Item, Limits
from sie_frontend.images.entry import AnyImageInput
from sie_frontend.images.opening import Opener
from sie_frontend.images.options import view_of
from sie_frontend.images.preparing import ImageRow, preparer
from sie_frontend.rows import Array, Call, Row, stack

Pictures: TypeAlias = "tuple[bytes, ...] | str"
"""The encoded pictures of one item; a text is one picture in base64, which is what JSON can hold."""

# A picture takes about as long to read as so many characters.
_PICTURE_WORK = 1 << 20
_USUAL_BYTES = 224 * 224 * 3
# As many times this may an image hold before fewer of them fit into a request.
LARGE = 4


class ImageReader:
    """Makes the rows of one model's image input: one for each picture. Of a call, `IMAGE_OPTIONS` alone count."""

    recounts = False
    apart = True

    def __init__(
        self,
        entry: AnyImageInput,
        repository: Path,
        *,
        profiles: Mapping[str, Mapping[str, Any]],
        limits: Limits | None = None,
    ) -> None:
        self.entry = entry
        self._preparer = preparer(entry)
        self._limits = limits or Limits()

    @property
    def room(self) -> int:
        """How many pictures of 224 x 224 pixels would lie where one of this model does."""
        return max(1, self._preparer.row_bytes // _USUAL_BYTES)

    def given(self, items: Sequence[Item]) -> list[tuple[bytes, ...]]:
        """Every item's pictures. Raises `WireError` (400) where there is none, or too many in all."""
        pictures = []
        for item in items:
            if not item.images:
                raise invalid_input(self.entry.requires)
            # What is not there is no picture either, and is refused with its place.
            pictures.append(tuple(b"" if image.data is UNSET else image.data for image in item.images))
        # All rows of a request are held at once, and a picture of one pixel may become many tiles.
        most = max(1, min(self._limits.images, self._limits.images * LARGE // self.room))
        if (count := sum(map(len, pictures))) > most:
            raise invalid_input(
                f"Request has {count} images but at most {most} images are read per request; split the request"
            )
        return pictures

    def work(self, given: Sequence[Pictures]) -> int:
        """Much: a picture of few bytes may be a large one."""
        return _PICTURE_WORK * sum(self.row_counts(given))

    def row_counts(self, given: Sequence[Pictures]) -> list[int]:
        """One row for each picture."""
        return [1 if isinstance(one, str) else len(one) for one in given]

    def check_together(self, given: Sequence[Pictures], call: Call, places: Sequence[str]) -> None:
        """Nothing: `given` counts the pictures of a request."""

    def rows(
        self, given: Sequence[Pictures], call: Call, *, is_query: bool, places: Sequence[str] = ()
    ) -> list[ImageRow]:
        """One row for each picture, in order. Raises `WireError` (400) that names the first that cannot be read."""
        rows: list[ImageRow] = []
        opener = Opener(self._limits, view_of(call.options))
        for number, one in enumerate(given):
            place = places[number] if places else f"items[{number}]"
            pictures = _from_text(one) if isinstance(one, str) else one
            rows += opener.opened(pictures, place, self._preparer.row)
        return rows

    def pairs(self, query: Any, given: Sequence[Any], call: Call) -> list[Row]:
        """Refused: no model that is served reads a picture together with something else."""
        raise invalid_input("images are not scored in pairs")

    def check(self, rows: Sequence[ImageRow], places: Sequence[str]) -> None:
        """Nothing: every byte is a pixel."""

    def billed(self, given: Sequence[Any], rows: Sequence[ImageRow], call: Call, *, is_query: bool) -> None:
        """Nothing: pictures have no tokens."""

    def probe(self, cost: int) -> ImageRow:
        """A black picture."""
        return self._preparer.probe(cost)

    def widths(self, *, exact: bool) -> Sequence[int]:
        """What rows may cost: no picture is padded."""
        return self._preparer.widths

    def batch(self, rows: Sequence[ImageRow], width: int) -> dict[str, Array]:
        """The tensors of rows of one shape, `[rows, …]`."""
        return stack(rows, width, dict.fromkeys(self._preparer.tensors))


def _from_text(text: str) -> tuple[bytes, ...]:
    try:
        return (base64.b64decode(text, validate=True),)
    except binascii.Error as error:
        raise invalid_input(f"not base64: {error}") from error
