"""Rows of tokens and patches, and batches of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from sie_frontend.mixed.entry import Patching
from sie_frontend.mixed.groups import picture_groups, window_groups
from sie_frontend.mixed.patches import Grid, Patches, patch_places, table_places, token_places, window_numbers
from sie_frontend.rows import Array

# The graph's inputs beside the tokens and their mask.
POSITION_IDS: Final = "position_ids"
PATCHES: Final = "patches"
PATCH_POSITIONS: Final = "patch_positions"
PATCH_IMAGES: Final = "patch_images"
TABLE_ROWS: Final = "table_rows"
TABLE_WEIGHTS: Final = "table_weights"
PATCH_WINDOWS: Final = "patch_windows"
IMAGE_GROUPS: Final = "image_groups"
IMAGE_PLACES: Final = "image_places"
WINDOW_GROUPS: Final = "window_groups"
WINDOW_PLACES: Final = "window_places"


@dataclass(frozen=True, eq=False)
class MixedRow:
    """One item or pair. Rows whose pictures have equal sizes may share a run; tokens are padded like any text's."""

    ids: Array
    pictures: tuple[Patches, ...]
    patching: Patching
    picture_id: int
    cut: bool = False
    blank: bool = False
    kept: None = None

    @property
    def cost(self) -> int:
        """Its tokens, of which a square of patches is one."""
        return len(self.ids)

    @property
    def shape_key(self) -> tuple[Grid, ...]:
        """The sizes of its pictures, in order."""
        return tuple(picture.grid for picture in self.pictures)

    @property
    def nbytes(self) -> int:
        """Those of its patches."""
        return sum(picture.levels.nbytes for picture in self.pictures)

    @property
    def arrays(self) -> Mapping[str, Array]:
        """All inputs of the graph, made anew: a query's pictures would be held once with each of its documents.

        A text alone brings one square of patches, which stands for no token.
        """
        merge, side = self.patching.merge_size, self.patching.table_side
        levels = [picture.levels for picture in self.pictures]
        grids = self.shape_key
        if not grids:
            grids, levels = ((merge, merge),), [np.zeros((merge**2, 3 * self.patching.patch_size**2), np.uint8)]
        arrays = {
            "input_ids": self.ids,
            "attention_mask": np.ones_like(self.ids),
            POSITION_IDS: token_places(self.ids, self.picture_id, self.shape_key, merge),
            PATCHES: levels[0] if len(levels) == 1 else np.concatenate(levels),
            PATCH_POSITIONS: np.concatenate([patch_places(grid, merge) for grid in grids]),
            PATCH_IMAGES: np.repeat(np.arange(len(grids)), [high * wide for high, wide in grids]),
        }
        if side:
            tables = [table_places(grid, merge, side) for grid in grids]
            arrays[TABLE_ROWS] = np.concatenate([rows for rows, _ in tables])
            arrays[TABLE_WEIGHTS] = np.concatenate([near for _, near in tables])
        return arrays | _sight(grids, self.patching)


def _sight(grids: tuple[Grid, ...], patching: Patching) -> dict[str, Array]:
    """Which patches look at each other."""
    merge, window = patching.merge_size, patching.window
    if not patching.grouped:
        return {PATCH_WINDOWS: window_numbers(grids, merge, window)} if window else {}
    pictures = picture_groups(grids)
    arrays = {IMAGE_GROUPS: pictures.members, IMAGE_PLACES: pictures.places}
    if window:
        windows = window_groups(grids, merge, window)
        arrays |= {WINDOW_GROUPS: windows.members, WINDOW_PLACES: windows.places}
    return arrays


def fills(pad_id: int, patching: Patching) -> dict[str, int | None]:
    """What pads each input of a batch; None where all rows have one shape."""
    padded: dict[str, int | None] = {"input_ids": pad_id, "attention_mask": 0, POSITION_IDS: 0}
    table = (TABLE_ROWS, TABLE_WEIGHTS) if patching.table_side else ()
    sight: tuple[str, ...] = (PATCH_WINDOWS,) if patching.window else ()
    if patching.grouped:
        sight = (IMAGE_GROUPS, IMAGE_PLACES, *((WINDOW_GROUPS, WINDOW_PLACES) if patching.window else ()))
    return padded | dict.fromkeys((PATCHES, PATCH_POSITIONS, PATCH_IMAGES, *table, *sight))


def expanded(ids: Sequence[int], picture_id: int, counts: Sequence[int]) -> Array:
    """The ids with the token of each picture as often as it has squares."""
    found = np.asarray(ids, dtype=np.int64)
    repeats = np.ones(len(found), np.int64)
    repeats[found == picture_id] = counts
    made: Array = np.repeat(found, repeats)
    return made
