"""The pictures of one item, opened within the limits: whoever reads pictures, the refusals are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from PIL import Image

from sie_frontend.contract.errors import invalid_input, resource_exhausted
from sie_frontend.contract.requests import Limits
from sie_frontend.images.decoding import Unreadable, View, decode

MadeT = TypeVar("MadeT")


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens what one call gives; `view` is how it wants pictures seen."""

    limits: Limits
    view: View

    def opened(self, encoded: Sequence[bytes], place: str, prepare: Callable[[Image.Image], MadeT]) -> list[MadeT]:
        """What `prepare` makes of each picture of the item at `place`.

        Raises `WireError`: 400 for the first picture that cannot be read or prepared, and for more of them than one
        item may have; 503 where there is no memory for one.
        """
        if len(encoded) > self.limits.item_images:
            raise invalid_input(
                f"{len(encoded)} images, and at most {self.limits.item_images} are read of one item - "
                f"at `$.{place}.images`"
            )
        return [self._one(data, f"$.{place}.images[{n}].data", prepare) for n, data in enumerate(encoded)]

    def _one(self, data: bytes, place: str, prepare: Callable[[Image.Image], MadeT]) -> MadeT:
        if len(data) > self.limits.image_bytes:
            raise invalid_input(
                f"image data has {len(data)} bytes, and at most {self.limits.image_bytes} are read - at `{place}`"
            )
        # Raised where no error is handled: what was decoded would be held by its traceback.
        try:
            return prepare(decode(data, self.limits.image_pixels, self.view))
        except Unreadable as error:
            refusal = invalid_input(f"{error} - at `{place}`")
        except MemoryError:
            refusal = resource_exhausted(f"no memory to decode the image at `{place}`")
        raise refusal
