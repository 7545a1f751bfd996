"""The tensors of a model that reads texts and pictures in one row."""

from __future__ import annotations

from sie_frontend.mixed.rows import (
    PATCH_IMAGES,
    PATCH_POSITIONS,
    PATCH_WINDOWS,
    PATCHES,
    POSITION_IDS,
    TABLE_ROWS,
    TABLE_WEIGHTS,
)

from sie_triton.facts import Sighted
from sie_triton.planning.tensors import ATTENTION_MASK, INPUT_IDS, Axis, Tensor


def mixed_inputs(sighted: Sighted | None, *, windows: bool) -> tuple[Tensor, ...]:
    """What goes in: tokens with their three positions, and patches with theirs.

    `patches` hold their levels channel by channel, each row by row, uint8; `patch_positions` their row and column,
    `patch_images` the number of their picture. With `windows`, `patch_windows` are the numbers of theirs; else the
    tables say where in the table of positions a patch lies, and how near.
    """
    levels: Axis = 3 * sighted.patch_size**2 if sighted else "levels"
    placed: tuple[Tensor, ...] = (Tensor(PATCH_WINDOWS, "INT64", ("batch", "patches")),)
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
        *placed,
    )
