"""Weights in blocks of 8 bits, as ONNX Runtime's `MatMulNBits` and a look-up read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

LEVELS = 255


@dataclass(frozen=True, slots=True)
class Blocks:
    """A weight `[inputs, outputs]`: for each output, blocks of its inputs with a scale and a zero point each.

    `codes` uint8 `[outputs, blocks, block]`, `scales` float32 `[outputs, blocks]`, `zeros` uint8 `[outputs, blocks]`.
    A number is `(code - zero) * scale`.
    """

    codes: Array
    scales: Array
    zeros: Array

    def numbers(self, inputs: int) -> Array:
        """The weight that products are computed with, `[inputs, outputs]`."""
        steps = self.codes.astype(np.float32) - self.zeros[..., None].astype(np.float32)
        flat = (steps * self.scales[..., None]).reshape(len(self.codes), -1)
        return np.ascontiguousarray(flat[:, :inputs].T)


def in_blocks(weight: Array, block: int) -> Blocks:
    """`weight` `[inputs, outputs]` in blocks of `block` inputs; the last block is filled up with zeros.

    The levels lie between the smallest and the largest number of a block, and one of them is 0: what is filled up, and
    weights that are 0, stay exact.
    """
    inputs, outputs = weight.shape
    count = -(-inputs // block)
    padded = np.zeros((outputs, count * block), np.float32)
    padded[:, :inputs] = weight.T
    numbers = padded.reshape(outputs, count, block)
    low = np.minimum(numbers.min(axis=2), 0.0)
    high = np.maximum(numbers.max(axis=2), 0.0)
    scales = np.where(high > low, (high - low) / LEVELS, 1.0).astype(np.float32)
    zeros = np.clip(np.rint(-low / scales), 0, LEVELS)
    codes = np.clip(np.rint(numbers / scales[..., None]) + zeros[..., None], 0, LEVELS)
    return Blocks(codes.astype(np.uint8), scales, zeros.astype(np.uint8))


def in_rows(table: Array) -> tuple[Array, Array]:
    """A table `[rows, width]` as int8 with a scale for each row: codes `[rows, width]`, scales `[rows, 1]`."""
    largest = np.abs(table).max(axis=1, keepdims=True)
    scales = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    return np.rint(table / scales).astype(np.int8), scales
