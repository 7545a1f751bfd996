"""The first nodes of a graph that sees: levels of red, green and blue to the numbers that they stand for."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from sie_triton.facts import Pixels
from sie_triton.onnx_graphs.builder import Array, GraphBuilder, Value

LEVELS = 256


def level_values(pixels: Pixels) -> Array:
    """What each level of each channel stands for, `[3, 256]`, float32.

    Bit for bit what transformers' processors on Pillow compute: the product in float64, rounded to float32, then the
    mean taken off and the rest divided in float32.
    """
    levels = (np.arange(LEVELS, dtype=np.uint8).astype(np.float64) * pixels.rescale).astype(np.float32)
    mean, std = (np.array(numbers, np.float32)[:, None] for numbers in (pixels.mean, pixels.std))
    values: Array = (levels[None] - mean) / std
    return values


def channels_first(b: GraphBuilder, levels: Value, pixels: Pixels) -> Value:
    """Pictures `[batch, size, size, 3]` of uint8 as `[batch, 3, size, size]` in the transformer's precision.

    The values come from one table: a picture's level plus 256 for each channel before it is a row of it.
    """
    table = b.given("level_values", level_values(pixels).reshape(-1))
    first = b.constant(np.arange(3, dtype=np.int32) * LEVELS)
    rows = b.op("Add", b.op("Cast", levels, to=TensorProto.INT32), first)
    return b.to_body(b.op("Transpose", b.op("Gather", table, rows, axis=0), perm=[0, 3, 1, 2]))
