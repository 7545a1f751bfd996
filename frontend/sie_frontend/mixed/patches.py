"""Pictures to patches, and where every patch and every token stands: what a graph of a fixed form is told of them.

The sizes and the pixels are those of the checkpoints' own processor on Pillow; `tests/sighted` compares with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from PIL import Image

from sie_frontend.images.decoding import Unreadable
from sie_frontend.images.fitting import FILTERS, resized
from sie_frontend.mixed.entry import Patching
from sie_frontend.rows import Array

# A longer strip would be scaled to something that no model was trained on.
MAX_RATIO: Final = 200

Grid: TypeAlias = "tuple[int, int]"
"""How many patches a picture is high and wide."""


class TooNarrow(Unreadable):
    """A picture is a strip; the message is one for the client."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(f"image of {width} x {height} pixels: one side may be at most {MAX_RATIO} times the other")


@dataclass(frozen=True, slots=True, eq=False)
class Patches:
    """One picture: `levels` `[patches, 3 * edge * edge]` of uint8, square by square; a patch channel by channel."""

    grid: Grid
    levels: Array


def scaled_size(width: int, height: int, patching: Patching) -> tuple[int, int]:
    """Width and height that a picture is scaled to, never 0. Raises `TooNarrow`."""
    if max(width, height) > MAX_RATIO * min(width, height):
        raise TooNarrow(width, height)
    square = patching.patch_size * patching.merge_size
    high, wide = (round(edge / square) * square for edge in (height, width))
    if high * wide > patching.max_pixels:
        shrink = math.sqrt(height * width / patching.max_pixels)
        high, wide = (max(square, math.floor(edge / shrink / square) * square) for edge in (height, width))
    elif high * wide < patching.min_pixels:
        grow = math.sqrt(patching.min_pixels / (height * width))
        high, wide = (math.ceil(edge * grow / square) * square for edge in (height, width))
    return max(square, wide), max(square, high)


def cut_into_patches(picture: Image.Image, patching: Patching) -> Patches:
    """The patches of a picture in mode `RGB`. Raises `TooNarrow`."""
    scaled = resized(picture, scaled_size(*picture.size, patching), FILTERS[patching.resample])
    edge, merge = patching.patch_size, patching.merge_size
    high, wide = scaled.height // edge, scaled.width // edge
    levels = np.asarray(scaled, dtype=np.uint8).reshape(high // merge, merge, edge, wide // merge, merge, edge, 3)
    # Square by square, in each patch by patch; then red, green and blue, row by row.
    flat = levels.transpose(0, 3, 1, 4, 6, 2, 5).reshape(high * wide, 3 * edge * edge)
    return Patches((high, wide), np.ascontiguousarray(flat))


@lru_cache(maxsize=64)
def patch_places(grid: Grid, merge: int) -> Array:
    """Row and column of each patch, `[patches, 2]`, square by square."""
    places = np.moveaxis(np.indices(grid), 0, -1)
    high, wide = grid
    squares = places.reshape(high // merge, merge, wide // merge, merge, 2).transpose(0, 2, 1, 3, 4)
    made: Array = np.ascontiguousarray(squares.reshape(-1, 2), dtype=np.int64)
    return made


@lru_cache(maxsize=64)
def table_places(grid: Grid, merge: int, side: int) -> tuple[Array, Array]:
    """Which four rows of a table of `side` by `side` positions a patch lies between, and how near, `[patches, 4]`.

    The table's corners lie on the picture's, and between two rows is a straight line.
    """
    places = patch_places(grid, merge)
    before, after, share = [], [], []
    for axis, count in enumerate(grid):
        step = np.float32(side - 1) / np.float32(max(count - 1, 1))
        at = places[:, axis].astype(np.float32) * step
        low = np.clip(np.floor(at).astype(np.int64), 0, side - 1)
        before.append(low)
        after.append(np.minimum(low + 1, side - 1))
        share.append(at - low.astype(np.float32))
    rows = [top * side + left for top in (before[0], after[0]) for left in (before[1], after[1])]
    near = [down * right for down in (1 - share[0], share[0]) for right in (1 - share[1], share[1])]
    return np.stack(rows, -1), np.stack(near, -1).astype(np.float32)


def window_numbers(grids: Sequence[Grid], merge: int, window: int) -> Array:
    """The number of the window that each patch of some pictures lies in, `[all patches]`; windows are `window` squares
    wide and high, from the upper left corner on, and no picture shares one with another.
    """
    found, first = [], 0
    for grid in grids:
        row, column = (patch_places(grid, merge) // (merge * window)).T
        across = -(-grid[1] // (merge * window))
        found.append(first + row * across + column)
        first += across * -(-grid[0] // (merge * window))
    made: Array = np.concatenate(found)
    return made


def token_places(ids: Array, picture_id: int, grids: Sequence[Grid], merge: int) -> Array:
    """Time, row and column of each token, `[tokens, 3]`: words count on in all three, a picture's squares as it lies.

    What follows a picture stands as far behind its beginning as its longer edge is long.
    """
    made = np.empty((len(ids), 3), np.int64)
    places = np.flatnonzero(ids == picture_id)
    token = start = taken = 0
    for grid in grids:
        high, wide = (edge // merge for edge in grid)
        first = int(places[taken])
        words = first - token
        made[token:first] = start + np.arange(words)[:, None]
        start, token = start + words, first + high * wide
        squares = np.moveaxis(np.indices((high, wide)), 0, -1).reshape(-1, 2)
        made[first:token, 0] = start
        made[first:token, 1:] = start + squares
        start += max(high, wide)
        taken += high * wide
    made[token:] = start + np.arange(len(ids) - token)[:, None]
    return made
