"""RGB pictures to the pixels that a graph takes: what the image processors of the checkpoints do before they divide.

The numbers are Pillow's, on bytes, as the processors that the models are served with have them; a resize on floats, or
without antialiasing, gives other vectors. `tests/frontend/test_image_pixels.py` compares with those processors.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from PIL import Image

from sie_frontend.images.entry import ImageInput, Resample
from sie_frontend.rows import Array

FILTERS: Final[dict[Resample, Image.Resampling]] = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}

# Pixels of a scaled picture up to which it is made whole: beyond, the strip of a picture of a few pixels by a million
# would take gigabytes, of which almost nothing is kept.
WHOLE_PIXELS: Final = 16_000_000

# How many pixels around its own the widest filter looks at, where it does not shrink.
_SUPPORT: Final = 3

# Pictures beyond this many times their width in height are scaled in height first, as Pillow 12.3 does.
_TALL: Final = 100


def resized(picture: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """A picture in mode `RGB` at `(width, height)`, its two passes in the order that SIE's Pillow takes them in.

    What lies between the passes is rounded to bytes, so that their order decides, by up to 15 levels of 255. Up to
    12.3 Pillow makes the rows first; from 13 on it begins with the cheaper pass. Here each pass is a resize of its own.
    """
    width, height = size
    tall = picture.height > _TALL * picture.width
    between = (picture.width, height) if tall else (width, picture.height)
    return (picture if between == picture.size else picture.resize(between, resample)).resize(size, resample)


def fitted(picture: Image.Image, entry: ImageInput) -> Array:
    """The pixels of a picture in mode `RGB`: uint8 `[size, size, 3]`."""
    made = _squashed(picture, entry) if entry.fit == "squash" else _cropped(picture, entry)
    return np.array(made, dtype=np.uint8)


def _squashed(picture: Image.Image, entry: ImageInput) -> Image.Image:
    size, resample = entry.size, FILTERS[entry.resample]
    # All rows, made first, would take too much.
    if size * picture.height > WHOLE_PIXELS:
        picture = picture.resize((picture.width, size), resample)
    return resized(picture, (size, size), resample)


def _cropped(picture: Image.Image, entry: ImageInput) -> Image.Image:
    size, resample = entry.size, FILTERS[entry.resample]
    shorter, longer = sorted(picture.size)
    scaled = int(size * longer / shorter)
    start = (scaled - size) // 2
    upright = picture.width <= picture.height
    if size * scaled > WHOLE_PIXELS:
        return _middle(picture, size, start, longer / scaled, resample, upright=upright)
    whole = resized(picture, (size, scaled) if upright else (scaled, size), resample)
    left, top = (0, start) if upright else (start, 0)
    return whole.crop((left, top, left + size, top + size))


def _middle(
    picture: Image.Image, size: int, start: int, step: float, resample: Image.Resampling, *, upright: bool
) -> Image.Image:
    """The kept part of a scaled picture, without the rest: `size` pixels from `start` on, `step` source pixels each.

    As from the whole, to one level of 255: a position in it is told in single precision.
    """
    margin = math.ceil(_SUPPORT * max(step, 1)) + 1
    first, last = start * step, (start + size) * step
    low = max(0, math.floor(first) - margin)
    high = min(max(picture.size), math.ceil(last) + margin)
    across = min(picture.size)
    strip = picture.crop((0, low, across, high) if upright else (low, 0, high, across))
    box = (0, first - low, across, last - low) if upright else (first - low, 0, last - low, across)
    return strip.resize((size, size), resample, box=box)
