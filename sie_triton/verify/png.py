"""PNG files of arrays, always the same bytes: what a library writes depends on its version (ISO/IEC 15948:2004)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import numpy as np
from sie_frontend.rows import Array

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_COLOUR_TYPES = {1: _GREY, 2: _GREY_ALPHA, 3: _RGB, 4: _RGB_ALPHA}
# The most that one block of deflate holds uncompressed.
_BLOCK = 65535


def png(levels: Array) -> bytes:
    """`[height, width, channels]` of uint8: grey, grey and alpha, RGB, or RGB and alpha."""
    return _file(levels.shape, 8, _COLOUR_TYPES[levels.shape[2]], levels.reshape(levels.shape[0], -1))


def palette_png(numbers: Array, colours: Array) -> bytes:
    """`numbers` `[height, width]` of uint8 are rows of `colours`, `[256 or fewer, 3]` of uint8."""
    return _file((*numbers.shape, 1), 8, _PALETTE, numbers, _chunk(b"PLTE", colours.tobytes()))


def bilevel_png(white: Array) -> bytes:
    """`[height, width]` of booleans, a bit each."""
    return _file((*white.shape, 1), 1, _GREY, np.packbits(white, axis=1))


def _file(shape: tuple[int, ...], bits: int, colours: int, lines: Array, *more: bytes) -> bytes:
    height, width = shape[:2]
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    # Every line begins with its filter: none.
    unfiltered = np.zeros((height, lines.shape[1] + 1), np.uint8)
    unfiltered[:, 1:] = lines
    chunks = (_chunk(b"IHDR", header), *more, _chunk(b"IDAT", _stored(unfiltered.tobytes())), _chunk(b"IEND", b""))
    return _SIGNATURE + b"".join(chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _stored(data: bytes) -> bytes:
    """A zlib stream of blocks that are not compressed (RFC 1950, RFC 1951)."""
    return b"\x78\x01" + b"".join(_blocks(data)) + struct.pack(">I", zlib.adler32(data))


def _blocks(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _BLOCK):
        part = data[start : start + _BLOCK]
        last = start + _BLOCK >= len(data)
        yield struct.pack("<BHH", last, len(part), len(part) ^ 0xFFFF) + part
