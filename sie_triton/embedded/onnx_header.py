"""The two numbers in an ONNX file that ONNX Runtime does not tell: IR version and opset.

Read from the file's top-level protobuf fields, skipping the graph, since the `onnx` package is needed to build
repositories but not to serve them. Field numbers: ModelProto.ir_version = 1, .opset_import = 8;
OperatorSetIdProto.domain = 1, .version = 2 (onnx.proto).
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class OnnxHeader:
    """IR version, and opset of the default domain; 0 where the file names none."""

    ir_version: int
    opset: int


def read_header(path: Path) -> OnnxHeader:
    """Read the header of the model at `path`. Raises `ValueError` if the file is no protobuf message."""
    ir_version = opset = 0
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError(f"`{path}` is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                for number, value in _fields(data, 0, len(data)):
                    if number == 1 and isinstance(value, int):
                        ir_version = value
                    elif number == 8 and isinstance(value, tuple):
                        domain, version = _operator_set(data, *value)
                        if domain in (b"", b"ai.onnx"):
                            opset = version
            except IndexError:
                raise ValueError(f"`{path}` is cut short or is no ONNX model") from None
    return OnnxHeader(ir_version, opset)


def _operator_set(data: mmap.mmap, start: int, end: int) -> tuple[bytes, int]:
    domain, version = b"", 0
    for number, value in _fields(data, start, end):
        if number == 1 and isinstance(value, tuple):
            domain = data[value[0] : value[1]]
        elif number == 2 and isinstance(value, int):
            version = value
    return domain, version


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """Yield (field number, integer, or (start, end) of a length-delimited value)."""
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
        elif kind == _BYTES:
            length, at = _varint(data, at)
            if at + length > end:
                raise IndexError
            yield number, (at, at + length)
            at += length
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise IndexError


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError
