"""The manifest's entry of an image input: how a picture becomes the pixels that the graph takes."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

Fit = Literal["crop", "squash"]
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


AnyImageInput: TypeAlias = ImageInput
"""Every kind of image input, told apart by `kind`."""
