"""The pictures on which a build is compared with its reference: made by arithmetic, of many sizes, shapes and modes.

Each is a case's document: the bytes of a PNG in base64, so that a stored reference holds all that it is about.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from sie_frontend.reference import Case
from sie_frontend.rows import Array

from sie_triton.verify.png import bilevel_png, palette_png, png

# Width and height: below and above what graphs take, square, and so narrow that much is cut off. Pictures of one or
# three lines are left to other tests: transformers' processors take their lines for channels.
SIZES: Final = ((8, 8), (33, 97), (224, 224), (260, 180), (180, 260), (301, 57), (57, 301), (320, 240))
_MODE_SIZE: Final = (120, 90)
# How far the levels of a wave rise and fall before they are cut at 0 and 255.
_SWING: Final = 160


def image_cases() -> tuple[Case, ...]:
    """A pattern in every size, black and white, and every mode that a PNG has."""
    return tuple(Case(base64.b64encode(data).decode("ascii")) for data in (*_sized(), *_moded()))


def encoded_picture(number: int, size: tuple[int, int]) -> str:
    """A pattern of a width and a height, a PNG in base64."""
    return base64.b64encode(png(_PATTERNS[number % len(_PATTERNS)](*size))).decode("ascii")


def _sized() -> Iterator[bytes]:
    for number, size in enumerate(SIZES):
        yield png(_PATTERNS[number % len(_PATTERNS)](*size))
    for level in (0, 255):
        yield png(np.full((64, 64, 3), level, np.uint8))


def _moded() -> Iterator[bytes]:
    """Grey, alpha, a palette and single bits. Colours that alpha hides count, since alpha is dropped."""
    levels = _waves(*_MODE_SIZE)
    grey = levels[..., :1]
    alpha = np.broadcast_to(np.arange(_MODE_SIZE[0], dtype=np.uint8)[None, :, None] * 2, grey.shape)
    yield png(grey)
    yield png(np.concatenate([_squares(*_MODE_SIZE)[..., :1], alpha], -1))
    yield png(np.concatenate([levels, alpha], -1))
    yield palette_png(levels[..., 2] // 16, _grain(16, 1)[0])
    yield bilevel_png(grey[..., 0] > 127)


def _waves(width: int, height: int) -> Array:
    """Colours that run from edge to edge, and a wave across them."""
    x, y = _places(width, height)
    wave = np.abs((x * 3 + y * 5) % (2 * _SWING) - _SWING) * 2 - 32
    return _stacked(x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), wave)


def _squares(width: int, height: int) -> Array:
    """Squares of seven pixels in two colours: edges tell filters apart, and where the middle is."""
    x, y = (places // 7 for places in _places(width, height))
    dark = (x + y) % 2
    return _stacked(dark * 230, dark * 40 + x % 9 * 20, 255 - dark * 200)


def _grain(width: int, height: int) -> Array:
    """Levels without a pattern: powers of a primitive root, modulo the prime 2^31 - 1 (Lehmer, 1951)."""
    numbers, state = [], 42
    for _ in range(width * height * 3):
        state = state * 48271 % 2147483647
        numbers.append(state >> 11 & 255)
    return np.array(numbers, np.uint8).reshape(height, width, 3)


def _places(width: int, height: int) -> tuple[Array, Array]:
    y, x = np.indices((height, width))
    return x, y


def _stacked(*channels: Array) -> Array:
    made: Array = np.stack([np.clip(channel, 0, 255) for channel in channels], -1).astype(np.uint8)
    return made


_PATTERNS: Final[tuple[Callable[[int, int], Array], ...]] = (_waves, _squares, _grain)
