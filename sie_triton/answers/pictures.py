"""Pictures that every machine can draw: leaves of many sizes that cover one another, in the colours of a picture.

The sizes of leaves follow the law of the inverse cube, as those of things in photographs do, so that the pictures have
their edges and scales ("Occlusion Models for Natural Images", Lee, Mumford and Huang, 2001). Nothing is computed but
sums, products, quotients and roots, which IEEE 754 rounds alike everywhere: the same numbers give the same bytes.
"""

from __future__ import annotations

import base64
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from sie_frontend.rows import Array

from sie_triton.verify.png import png

TOLD = "pictures of leaves that cover one another"
# The edges of a picture, in pixels, and its leaves.
_EDGES = (160, 288)
_LEAVES = (12, 240)
_SMALLEST = 7.0
_LARGEST = (80.0, 320.0)


def pictures(count: int) -> Iterator[str]:
    """`count` different pictures, each a PNG in base64."""
    for number in range(count):
        yield base64.b64encode(png(_drawn(random.Random(number)))).decode("ascii")


@dataclass(frozen=True, slots=True)
class _Leaf:
    """An ellipse of half axes `long` and `short` about a point, turned to `(along, across)`, which has length 1.

    `colour` is that of its middle, `slope` how much lighter its end is, and `stripe` how wide its stripes are.
    """

    x: float
    y: float
    long: float
    short: float
    along: float
    across: float
    colour: Array
    slope: float
    stripe: float


def _drawn(chance: random.Random) -> Array:
    """`[height, width, 3]` of uint8."""
    width, height = (chance.randrange(*_EDGES) for _ in range(2))
    colours = [_colour(chance) for _ in range(chance.randrange(2, 7))]
    largest = _between(chance, _LARGEST)
    made = np.broadcast_to(colours[0], (height, width, 3)).copy()
    for _ in range(chance.randrange(*_LEAVES)):
        _cover(made, _leaf(chance, width, height, largest, colours))
    levels: Array = np.clip(made, 0, 255).astype(np.uint8)
    return levels


def _leaf(chance: random.Random, width: int, height: int, largest: float, colours: list[Array]) -> _Leaf:
    # Inverse of the law's distribution between the smallest and the largest.
    long = _SMALLEST / math.sqrt(1 - chance.random() * (1 - (_SMALLEST / largest) ** 2))
    along, across = _direction(chance)
    return _Leaf(
        x=chance.random() * width,
        y=chance.random() * height,
        long=long,
        short=long * _between(chance, (0.2, 1)),
        along=along,
        across=across,
        colour=chance.choice(colours) + _between(chance, (-24, 24)),
        slope=_between(chance, (-60, 60)),
        stripe=_between(chance, (1.5, 40)),
    )


def _cover(picture: Array, leaf: _Leaf) -> None:
    """Draw a leaf over what is there."""
    height, width = picture.shape[:2]
    left, top = (max(0, int(middle - leaf.long)) for middle in (leaf.x, leaf.y))
    right, bottom = (min(edge, int(m + leaf.long) + 1) for edge, m in ((width, leaf.x), (height, leaf.y)))
    dx = np.arange(left, right)[None, :] - leaf.x
    dy = np.arange(top, bottom)[:, None] - leaf.y
    along = (dx * leaf.along + dy * leaf.across) / leaf.long
    across = (dy * leaf.along - dx * leaf.across) / leaf.short
    stripes = np.floor(across * (leaf.short / leaf.stripe)) % 2 * 30
    inside = along * along + across * across <= 1
    levels = leaf.colour + (along * leaf.slope + stripes)[..., None]
    picture[top:bottom, left:right][inside] = levels[inside]


def _direction(chance: random.Random) -> tuple[float, float]:
    """A point of the unit circle."""
    while True:
        x, y = (_between(chance, (-1, 1)) for _ in range(2))
        if 0.01 < x * x + y * y <= 1:
            length = math.sqrt(x * x + y * y)
            return x / length, y / length


def _colour(chance: random.Random) -> Array:
    return np.array([chance.random() * 255 for _ in range(3)])


def _between(chance: random.Random, limits: tuple[float, float]) -> float:
    return limits[0] + chance.random() * (limits[1] - limits[0])
