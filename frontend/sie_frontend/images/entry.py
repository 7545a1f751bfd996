"""The manifest's entry of an image input: how a picture becomes the pixels that the graph takes."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Fit = Literal["crop", "squash"]
Places = Literal["trained", "shifted"]
Resample = Literal["bicubic", "bilinear", "lanczos", "nearest", "box", "hamming"]


class ImageInput(msgspec.Struct, frozen=True, tag="square", tag_field="kind"):
    """Everything that turns a picture into a row: the tensor `tensor`, uint8 `[size, size, 3]`, red first.

    `fit` is how a picture becomes a square. `crop`: its shorter edge becomes `size`, the longer one
    `int(size * longer / shorter)`, and of that the middle is kept. `squash`: both edges become `size`. `resample` is
    Pillow's filter. `requires` is the message for an item that has nothing that the model reads. `positions` is how
    many positions a row has in a multivector, and what it costs.
    """

    tensor: str
    size: int
    fit: Fit
    resample: Resample
    requires: str
    positions: int = 1


class TiledInput(msgspec.Struct, frozen=True, tag="tiles", tag_field="kind"):
    """Pictures cut into tiles, among tokens of text: the tensors `pixels`, uint8 `[tiles, size, size, 3]`, red first,
    and `ids`, int64 `[positions]` (Idefics3, Laurençon et al., 2024).

    A picture's longer edge becomes `longest`, then both edges the next multiples of `size`; tiles follow row by row,
    and the whole picture as one more tile. A picture that is one tile then stands alone. `layouts` has the ids for
    every grid, `ROWSxCOLUMNS`, or `0x0` for one tile alone; -1 stands for all positions of a tile, which are
    `tile_positions` times `image_id`. `patch_positions` tells what the graph does, and changes nothing here: whether
    the patches of a tile have the positions that they were trained with, or those of the row and the column in front,
    which SIE computes on a CPU.
    """

    pixels: str
    ids: str
    size: int
    longest: int
    resample: Resample
    requires: str
    image_id: int
    tile_positions: int
    layouts: dict[str, tuple[int, ...]]
    patch_positions: Places = "trained"


AnyImageInput: TypeAlias = ImageInput | TiledInput
"""Every kind of image input, told apart by `kind`."""
