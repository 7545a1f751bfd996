"""numpy arrays on the wire: a msgpack map of five pairs with binary keys, in the layout that numpy users expect.

    {b"nd": true, b"type": "<f4", b"kind": b"", b"shape": [n, ...], b"data": C-order bytes}

A scalar is `{b"nd": false, b"type", b"data"}`. The bytes are put together by hand, since that layout is all
constants up to the data: msgspec writes no binary keys, and a decoded array is a view, never unpickled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

MAX_DIMENSIONS: Final = 8
_SIZED_DTYPES: Final = ("f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8")
DTYPES: Final = frozenset({"|b1", "|i1", "|u1"} | {order + name for order in "<>" for name in _SIZED_DTYPES})


class ArrayDecodeError(ValueError):
    """A map that claims to be an array and is not one we read: its dtype, rank, shape or length is wrong."""


def pack_array(array: NDArray[Any]) -> tuple[bytes, memoryview]:
    """`array` as the two pieces of its wire form: the pairs up to the data's length, and the data itself.

    The data is a view of `array` where that is C-contiguous, so that joining the pieces is the only copy.
    Raises `TypeError` for a dtype that has no numeric wire form.
    """
    contiguous = array if array.flags.c_contiguous else np.ascontiguousarray(array)
    return array_header(contiguous.dtype.str, contiguous.shape), contiguous.data


@lru_cache(maxsize=4096)
def array_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The wire form of an array up to and including its data's length; `dtype` is numpy's string, as `<f4`."""
    if dtype not in DTYPES:
        raise TypeError(f"dtype `{dtype}` has no wire form; one of {sorted(DTYPES)} has")
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return b"".join(
        (
            b"\x85\xc4\x02nd\xc3\xc4\x04type",
            msgspec.msgpack.encode(dtype),
            b"\xc4\x04kind\xc4\x00\xc4\x05shape",
            msgspec.msgpack.encode(shape),
            b"\xc4\x04data",
            _bin_header(size),
        )
    )


def is_array(value: object) -> bool:
    """Whether a decoded msgpack value claims to be a numpy array or scalar."""
    return isinstance(value, dict) and b"nd" in value


def unpack_array(pairs: Mapping[Any, Any]) -> NDArray[Any]:
    """The read-only array in a decoded map; a scalar comes back with shape []. Raises `ArrayDecodeError`."""
    dtype = pairs.get(b"type")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ArrayDecodeError(f"dtype {dtype!r} is not numeric; send one of {sorted(DTYPES)}")
    if pairs.get(b"kind", b"") not in (b"", ""):
        raise ArrayDecodeError("`kind` must be empty: structured and object arrays are not read")
    data = pairs.get(b"data")
    if not isinstance(data, bytes):
        raise ArrayDecodeError("`data` must be binary")
    shape = _shape(pairs)
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    if len(data) != expected:
        raise ArrayDecodeError(f"`data` has {len(data)} bytes where shape {list(shape)} of `{dtype}` needs {expected}")
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _shape(pairs: Mapping[Any, Any]) -> tuple[int, ...]:
    if pairs.get(b"nd") is False:
        return ()
    shape = pairs.get(b"shape")
    if not isinstance(shape, list | tuple) or len(shape) > MAX_DIMENSIONS:
        raise ArrayDecodeError(f"`shape` must be an array of at most {MAX_DIMENSIONS} integers")
    if any(type(extent) is not int or extent < 0 for extent in shape):
        raise ArrayDecodeError("`shape` must hold non-negative integers")
    return tuple(shape)


def _bin_header(size: int) -> bytes:
    if size < 1 << 8:
        return b"\xc4" + size.to_bytes(1, "big")
    if size < 1 << 16:
        return b"\xc5" + size.to_bytes(2, "big")
    return b"\xc6" + size.to_bytes(4, "big")


def map_fields(pairs: Mapping[str, Any]) -> bytes:
    """The pairs of a short map without its header, for a map that goes on behind them."""
    return msgspec.msgpack.encode(pairs)[1:]
