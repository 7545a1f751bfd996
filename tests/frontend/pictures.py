"""Pictures as people and their enemies send them: photographs, one of every mode that Pillow writes, and bombs."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

# The formats in which Pillow writes each of its modes.
MODES = {
    "1": ("PNG", "TIFF", "BMP"),
    "L": ("PNG", "JPEG", "TIFF", "GIF", "BMP"),
    "LA": ("PNG", "TIFF"),
    "P": ("PNG", "GIF", "TIFF", "BMP"),
    "PA": ("TIFF",),
    "RGB": ("PNG", "JPEG", "WEBP", "TIFF", "BMP"),
    "RGBA": ("PNG", "WEBP", "TIFF", "BMP"),
    "CMYK": ("JPEG", "TIFF"),
    "YCbCr": ("JPEG",),
    "LAB": ("TIFF",),
    "I": ("TIFF",),
    "I;16": ("PNG", "TIFF"),
    "F": ("TIFF",),
}


def photographs() -> list[bytes]:
    """Two photographs, JPEGs of 640 x 427."""
    datasets = pytest.importorskip("sklearn.datasets")
    folder = Path(datasets.__file__).parent / "images"
    return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]


def noise(width: int, height: int, channels: int = 3) -> NDArray[np.uint8]:
    """Something whose every pixel matters."""
    random = np.random.default_rng(width * 1000 + height)
    return random.integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(picture: Image.Image, format: str, **options: Any) -> bytes:
    """A picture as the bytes of a file."""
    buffer = io.BytesIO()
    if format in ("JPEG", "WEBP") and not options:
        options = {"quality": 90}
    picture.save(buffer, format=format, **options)
    return buffer.getvalue()


def in_mode(mode: str, width: int, height: int) -> Image.Image:
    """Noise in one of Pillow's modes."""
    picture = Image.fromarray(noise(width, height, 4), "RGBA")
    if mode in ("RGBA", "LA"):
        return picture.convert(mode)
    rgb = picture.convert("RGB")
    if mode == "LAB":
        return Image.frombytes("LAB", (width, height), noise(width, height).tobytes())
    if mode == "I;16":
        values = noise(width, height, 2).astype(np.uint16)
        return Image.fromarray(values[..., 0] * 256 + values[..., 1])
    if mode == "PA":
        return rgb.convert("P").convert("PA")
    return rgb.convert("L").convert(mode) if mode in ("I", "F") else rgb.convert(mode)


def every_mode(width: int, height: int) -> Iterator[tuple[str, bytes]]:
    """Noise in every mode and format."""
    for mode, formats in MODES.items():
        for format in formats:
            yield f"{mode} {format} {width}x{height}", encoded(in_mode(mode, width, height), format)


def png(width: int, height: int, *, rows: int | None = None, before: bytes = b"") -> bytes:
    """A black 1-bit PNG, of which only the first `rows` may be there; `before` are chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width + 7) // 8 + 1) * (height if rows is None else rows), 1)
    chunks = chunk(b"IHDR", header) + before + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def chunk(name: bytes, data: bytes) -> bytes:
    """One chunk of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@cache
def bombs() -> dict[str, bytes]:
    """Small files that say, truly or not, that they are enormous pictures, or that hide something enormous."""
    small = encoded(Image.new("RGB", (16, 16), "red"), "JPEG")
    frame = small.index(b"\xff\xc0")
    jpeg = small[: frame + 5] + struct.pack(">HH", 65_500, 65_500) + small[frame + 9 :]
    bmp = encoded(Image.new("RGB", (16, 16)), "BMP")
    gif = encoded(Image.new("P", (16, 16)), "GIF")
    place = gif.index(b",", 13 + 3 * 2)
    large = struct.pack("<HH", 65_535, 65_535)
    return {
        "true png": png(20_000, 20_000),
        "warned png": png(10_000, 10_000),
        "lying png": png(2**31 - 1, 2**31 - 1, rows=1),
        "jpeg": jpeg,
        "bmp": bmp[:18] + struct.pack("<ii", 40_000, 40_000) + bmp[26:],
        "gif screen": gif[:6] + large + gif[10:],
        "gif frame": gif[: place + 5] + large + gif[place + 9 :],
        "webp": webp(16_383, 16_383),
        "tiff": tiff_of(60_000, 60_000),
        "tiff tile": tiff_of(16, 16, tile=16_384),
    }


def webp(width: int, height: int) -> bytes:
    """The canvas of a WebP in its extended form, with a small picture in it."""
    inner = encoded(Image.new("RGB", (16, 16)), "WEBP", lossless=True)[12:]
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    # An animation of one frame, which need not fill the canvas.
    frame = bytes(6) + (15).to_bytes(3, "little") * 2 + bytes(3) + b"\0" + inner
    body = _riff(b"VP8X", b"\x02\0\0\0" + canvas) + _riff(b"ANIM", bytes(6)) + _riff(b"ANMF", frame)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _riff(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def tiff_of(width: int, height: int, tile: int = 0) -> bytes:
    """A black TIFF: one strip that has nothing in it, or one square tile, all of which is there."""
    squeeze = zlib.compressobj(1)
    pixels = b"".join(squeeze.compress(bytes(tile)) for _ in range(tile)) + squeeze.flush()
    tags = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1}
    tags |= {322: tile, 323: tile, 324: 8, 325: len(pixels)} if tile else {273: 8, 278: height, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = struct.pack("<I", 8 + len(pixels))
    return b"II*\0" + start + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)


def many_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan comes over and over."""
    whole = encoded(Image.fromarray(noise(64, 64)), "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * (scans - whole.count(b"\xff\xda")) + whole[-2:]


@cache
def crumbs(length: int) -> dict[str, bytes]:
    """Files of about so many bytes that are next to nothing but the smallest pieces of their format."""
    jpeg = encoded(Image.new("RGB", (16, 16)), "JPEG")
    gif = encoded(Image.new("P", (16, 16)), "GIF")
    frame = gif.index(b",", 13)
    return {
        "jpeg fill": jpeg[:2] + b"\xff" * length + jpeg[2:],
        "jpeg comments": jpeg[:2] + b"\xff\xfe\0\2" * (length // 4) + jpeg[2:],
        "png chunks": png(8, 8, before=chunk(b"abCd", b"") * (length // 12)),
        "png texts": png(8, 8, before=chunk(b"tEXt", b"a\0b") * (length // 15)),
        "gif comments": gif[:frame] + b"\x21\xfe\1a\0" * (length // 5) + gif[frame:],
        "gif one comment": gif[:frame] + b"\x21\xfe" + b"\1a" * (length // 2) + b"\0" + gif[frame:],
    }
