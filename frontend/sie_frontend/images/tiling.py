"""RGB pictures to tiles, as Idefics3's processor on Pillow makes them: three resizes on bytes, each of the last one's.

`tests/frontend/test_image_tiles.py` compares with that processor.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from sie_frontend.images.entry import TiledInput
from sie_frontend.images.fitting import FILTERS, resized
from sie_frontend.rows import Array


def tiles(picture: Image.Image, entry: TiledInput) -> tuple[str, Array]:
    """The grid of a picture in mode `RGB`, `ROWSxCOLUMNS`, and its tiles: uint8 `[tiles, size, size, 3]`.

    The last tile is the whole picture; `0x0` is a picture that is one tile alone.
    """
    size, resample = entry.size, FILTERS[entry.resample]
    scaled = resized(picture, _longest(*picture.size, entry.longest), resample)
    whole = resized(scaled, _multiples(*scaled.size, size), resample)
    if whole.size == (size, size):
        return "0x0", np.array(whole, dtype=np.uint8)[None]
    columns, rows = (edge // size for edge in whole.size)
    levels = np.array(whole, dtype=np.uint8)
    cut = levels.reshape(rows, size, columns, size, 3).swapaxes(1, 2).reshape(rows * columns, size, size, 3)
    last = np.array(resized(whole, (size, size), resample), dtype=np.uint8)
    return f"{rows}x{columns}", np.concatenate([cut, last[None]])


def grids(longest: int, size: int) -> tuple[str, ...]:
    """Every grid that a picture may have."""
    most = math.ceil(longest / size)
    if most == 1:
        return ("0x0",)
    wide = [f"{rows}x{most}" for rows in range(1, most + 1)]
    return (*wide, *(f"{most}x{columns}" for columns in range(1, most)))


def _longest(width: int, height: int, longest: int) -> tuple[int, int]:
    """The size at which the longer edge is `longest`; the other one is even, and no less than 1."""
    ratio = width / height
    if width >= height:
        return longest, max(_even(int(longest / ratio)), 1)
    return max(_even(int(longest * ratio)), 1), longest


def _even(edge: int) -> int:
    return edge + edge % 2


def _multiples(width: int, height: int, size: int) -> tuple[int, int]:
    """The size whose edges are the next multiples of `size`: the longer edge's first, and the other's of that."""
    ratio = width / height
    if width >= height:
        width = _up(width, size)
        return width, _up(max(int(width / ratio), 1), size)
    height = _up(height, size)
    return _up(max(int(height * ratio), 1), size), height


def _up(edge: int, size: int) -> int:
    return math.ceil(edge / size) * size
