"""Numbers on the wire: `output_dtype`, its label, and how JSON prints them.

Vectors are narrowed row by row, in float32 and with rounding half to even.

No scale or offset travels: the narrow values keep directions, not magnitudes.
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

OutputDtype = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]

_LABELS: Final = {"float32": "float32", "float16": "float16", "int8": "int8", "uint8": "uint8"}
OUTPUT_DTYPES: Final[tuple[OutputDtype, ...]] = get_args(OutputDtype)


def quantize_vectors(vectors: NDArray[Any], dtype: OutputDtype) -> NDArray[Any]:
    """Dense vectors or token vectors [..., d] in `dtype`, each row (last axis) by itself.

    `float32` leaves the values as they are. `int8` is scaled by the row's largest magnitude, `uint8` spans the
    row's minimum and maximum (a constant row is 0), `binary` and `ubinary` are the same: bits of `x > 0`,
    most significant first, [..., ceil(d / 8)] uint8.
    """
    match dtype:
        case "float32":
            return vectors
        case "float16":
            return vectors.astype(np.float16)
        case "int8":
            return _to_int8(vectors.astype(np.float32, copy=False))
        case "uint8":
            return _to_uint8(vectors.astype(np.float32, copy=False))
        case "binary" | "ubinary":
            return np.packbits(vectors > 0, axis=-1)


def quantize_weights(weights: NDArray[Any], dtype: OutputDtype) -> NDArray[Any]:
    """Sparse values [nnz] in `dtype`: only `float16` narrows them, every other dtype leaves float32."""
    return weights.astype(np.float16 if dtype == "float16" else np.float32, copy=False)


def _to_int8(rows: NDArray[np.float32]) -> NDArray[np.int8]:
    if rows.size == 0:
        return rows.astype(np.int8)
    scale: NDArray[np.float32] = np.abs(rows).max(axis=-1, keepdims=True)
    scale[scale == 0] = 1
    rounded: NDArray[np.float32] = np.rint(rows / scale * np.float32(127))
    return rounded.astype(np.int8)


def _to_uint8(rows: NDArray[np.float32]) -> NDArray[np.uint8]:
    if rows.size == 0:
        return rows.astype(np.uint8)
    low: NDArray[np.float32] = rows.min(axis=-1, keepdims=True)
    span: NDArray[np.float32] = rows.max(axis=-1, keepdims=True) - low
    span[span == 0] = 1
    rounded: NDArray[np.float32] = np.rint((rows - low) / span * np.float32(255))
    return rounded.astype(np.uint8)


def dtype_label(array: NDArray[Any], declared_dim: int | None) -> str:
    """The body's name of an array's dtype; packed bits are told from `uint8` only by a longer declared dim."""
    if array.dtype == np.uint8 and declared_dim is not None and array.shape[-1] < declared_dim:
        return "binary"
    return _LABELS.get(array.dtype.name, "float32")


def widened(array: NDArray[Any]) -> NDArray[Any]:
    """`array` as JSON prints it: floats as float64, so that every digit of the stored value is written."""
    return np.ascontiguousarray(array, dtype=np.float64 if array.dtype.kind == "f" else None)
