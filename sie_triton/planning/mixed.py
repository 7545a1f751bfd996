"""The tensors of a model that reads texts and pictures in one row."""

from __future__ import annotations

from sie_frontend.mixed.rows import (
    IMAGE_GROUPS,
    IMAGE_PLACES,
    PATCH_IMAGES,
    PATCH_POSITIONS,
    PATCHES,
    POSITION_IDS,
    TABLE_ROWS,
    TABLE_WEIGHTS,
    WINDOW_GROUPS,
    WINDOW_PLACES,
)

from sie_triton.facts import Sighted
from sie_triton.planning.tensors import ATTENTION_MASK, INPUT_IDS, Axis, Tensor


def mixed_inputs(sighted: Sighted | None, *, windows: bool) -> tuple[Tensor, ...]:
    """What goes in: tokens with their three positions, and patches with theirs.

    `patches` hold their levels channel by channel, each row by row, uint8; `patch_positions` their row and column,
    `patch_images` the number of their picture. `image_groups` are the patches that look at each other, in rows of one
    length, -1 where there is none, and `image_places` says where in these rows each patch lies. With `windows`, their
    groups and places follow; else the tables say where in the table of positions a patch lies, and how near.
    """
    levels: Axis = 3 * sighted.patch_size**2 if sighted else "levels"
    placed: tuple[Tensor, ...] = (
        Tensor(WINDOW_GROUPS, "INT64", ("batch", "windows", "window_places")),
        Tensor(WINDOW_PLACES, "INT64", ("batch", "patches")),
    )
    if not windows:
        placed = (
            Tensor(TABLE_ROWS, "INT64", ("batch", "patches", 4)),
            Tensor(TABLE_WEIGHTS, "FP32", ("batch", "patches", 4)),
        )
    return (
        Tensor(INPUT_IDS, "INT64", ("batch", "sequence")),
        Tensor(ATTENTION_MASK, "INT64", ("batch", "sequence")),
        Tensor(POSITION_IDS, "INT64", ("batch", "sequence", 3)),
        Tensor(PATCHES, "UINT8", ("batch", "patches", levels)),
        Tensor(PATCH_POSITIONS, "INT64", ("batch", "patches", 2)),
        Tensor(PATCH_IMAGES, "INT64", ("batch", "patches")),
        Tensor(IMAGE_GROUPS, "INT64", ("batch", "groups", "places")),
        Tensor(IMAGE_PLACES, "INT64", ("batch", "patches")),
        *placed,
    )
