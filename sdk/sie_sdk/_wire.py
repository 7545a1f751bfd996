"""The body format: MessagePack in which numbers of NumPy are maps with binary keys.

    array   {b"nd": true, b"type": "<f4", b"kind": b"", b"shape": [2, 3], b"data": <C order>}
    scalar  {b"nd": false, b"type": "<f4", b"data": <bytes>}

Only flat numeric dtypes pass, in both directions: `msgpack-numpy`, which invented this encoding, unpickles
whatever else a peer sends.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from msgpack.exceptions import UnpackException

# From where msgpack defines them: `msgpack_numpy.patch()` replaces the public names in the whole process,
# and its decoder unpickles.
try:
    from msgpack._cmsgpack import Packer, unpackb
except ImportError:
    from msgpack.fallback import Packer, unpackb

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MULTIBYTE = ("f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8")
DTYPES = frozenset({"|b1", "|i1", "|u1", *(order + code for order in "<>" for code in _MULTIBYTE)})
"""The dtypes that travel, as `numpy.dtype.str` spells them."""

MAX_DIMS = 8


class MalformedBody(ValueError):
    """A body that breaks the format. The message never quotes the body."""


def pack(value: object) -> bytes:
    """One request body, keys in the order of the dictionaries.

    Raises `TypeError` for what MessagePack cannot hold and for arrays that are not numeric, `ValueError` for text
    that is not Unicode, `OverflowError` for integers beyond 64 bits.
    """
    packed: bytes = Packer(default=_encode, use_bin_type=True).pack(value)
    return packed


def unpack(body: bytes) -> object:
    """One response body; arrays are read-only views over `body`. Raises `MalformedBody` and nothing else."""
    return _unpack(body, object_hook=_decode)


def unpack_plain(body: bytes) -> object:
    """One body that must not contain arrays, such as an error. Raises `MalformedBody` and nothing else."""
    return _unpack(body)


def _unpack(body: bytes, **hooks: Any) -> object:
    try:
        value: object = unpackb(body, raw=False, **hooks)
    except MalformedBody:
        raise
    except (UnpackException, ValueError, TypeError, RecursionError) as error:
        reason = type(error).__name__
    else:
        return value
    # Outside the handler: exceptions of msgpack keep parts of the body, and `__context__` would keep them alive.
    raise MalformedBody(f"not MessagePack ({reason})")


def _encode(value: object) -> dict[bytes, object]:
    if isinstance(value, np.ndarray):
        if value.ndim > MAX_DIMS:
            raise TypeError(f"cannot send an array of {value.ndim} dims; {MAX_DIMS} are the most that travel")
        return {
            b"nd": True,
            b"type": _checked(value.dtype),
            b"kind": b"",
            b"shape": value.shape,
            b"data": value.tobytes(),
        }
    if isinstance(value, np.generic):
        return {b"nd": False, b"type": _checked(value.dtype), b"data": value.tobytes()}
    raise TypeError(f"cannot send {type(value).__name__}; use str, bytes, numbers, lists, dicts or numeric arrays")


def _checked(dtype: np.dtype[Any]) -> str:
    if dtype.str not in DTYPES:
        raise TypeError(f"cannot send an array of dtype {dtype}; convert it to a float, integer or bool dtype first")
    return str(dtype.str)


def _decode(fields: dict[object, object]) -> object:
    if b"nd" not in fields:
        if b"complex" in fields:
            raise MalformedBody("complex numbers do not travel")
        return fields
    kind = fields.get(b"kind", b"")
    if not isinstance(kind, (bytes, str)) or kind:
        raise MalformedBody("only numeric arrays travel")
    name, data = fields.get(b"type"), fields.get(b"data")
    if not isinstance(name, str) or name not in DTYPES:
        raise MalformedBody("the array's dtype is not one that travels")
    if not isinstance(data, bytes):
        raise MalformedBody("the array's data are not bytes")
    if fields[b"nd"] is True:
        return _array(np.dtype(name), fields.get(b"shape"), data)
    if fields[b"nd"] is False:
        return _array(np.dtype(name), [], data)[()]
    raise MalformedBody("`nd` is not a bool")


def _array(dtype: np.dtype[Any], shape: object, data: bytes) -> NDArray[Any]:
    if not isinstance(shape, list) or len(shape) > MAX_DIMS:
        raise MalformedBody(f"the array's shape is not a list of at most {MAX_DIMS} dims")
    if not all(type(dim) is int and dim >= 0 for dim in shape):
        raise MalformedBody("the array's dims are not integers from 0")
    if prod(shape) * dtype.itemsize != len(data):
        raise MalformedBody("the array's data do not fill its shape")
    try:
        view: NDArray[Any] = np.ndarray(shape, dtype, buffer=data)
    except (ValueError, OverflowError):
        # An empty array may still claim dims beyond what NumPy can address.
        raise MalformedBody("the array's dims are too large") from None
    return view
