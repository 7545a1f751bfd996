"""Pictures to tiles, against Idefics3's processor on Pillow."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sie_frontend.contract.errors import WireError
from sie_frontend.contract.requests import Image as EncodedImage
from sie_frontend.contract.requests import Item
from sie_frontend.images.entry import ImageInput, TiledInput
from sie_frontend.images.preparing import preparer
from sie_frontend.images.reader import ImageReader
from sie_frontend.images.tiling import grids, tiles
from sie_frontend.rows import Array
from transformers import Idefics3ImageProcessorPil

from frontend.pictures import noise

# Width and height: square, of the tiles' own size, a hair beside it, turned, and so narrow that an edge would be 0.
SIZES = (
    *((8, 8), (32, 32), (64, 64), (65, 64), (64, 65), (128, 128), (128, 96), (96, 128), (100, 33), (33, 100)),
    *((31, 33), (127, 1), (1, 127), (2, 2), (4, 900), (900, 4), (513, 511), (90, 61), (61, 90), (300, 299), (5, 7)),
)
# A tile, and the longest edge: a multiple of it, more, the same, a hair more, and less.
ALL = bool(os.environ.get("SIE_TRITON_ALL_RECIPES"))
EDGES = [(32, 128), (32, 100), *([(32, 32), (32, 33), (28, 20)] if ALL else [])]
LAYOUTS = {grid: (7, *[9, -1] * 17, 8) for grid in grids(128, 32)}


def entry(size: int, longest: int, layouts: dict[str, tuple[int, ...]] | None = None) -> TiledInput:
    return TiledInput("pixels", "input_ids", size, longest, "lanczos", "nothing to read", 3, 4, layouts or LAYOUTS)


def theirs(picture: Image.Image, size: int, longest: int) -> tuple[str, Array]:
    processor = Idefics3ImageProcessorPil(
        size={"longest_edge": longest}, max_image_size={"longest_edge": size}, do_rescale=False, do_normalize=False
    )
    # A picture of three lines would be taken for one whose channels come first.
    found = processor(picture, return_tensors="np", return_row_col_info=True, input_data_format="channels_last")
    pixels: Array = found["pixel_values"][0].transpose(0, 2, 3, 1)
    assert found["pixel_attention_mask"].all()
    return f"{found['rows'][0][0]}x{found['cols'][0][0]}", pixels


@pytest.mark.parametrize(("tile", "longest"), EDGES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tiles_are_those_of_the_processor_on_pillow(size: tuple[int, int], tile: int, longest: int) -> None:
    picture = Image.fromarray(noise(*size))
    grid, made = tiles(picture, entry(tile, longest))
    wanted_grid, wanted = theirs(picture, tile, longest)
    assert grid == wanted_grid
    assert grid in grids(longest, tile)
    np.testing.assert_array_equal(made, wanted)


def test_tiles_of_a_real_size() -> None:
    """A page at 2048, tiles of 512, as the published checkpoints have it."""
    picture = Image.fromarray(noise(850, 1100))
    grid, made = tiles(picture, entry(512, 2048))
    wanted_grid, wanted = theirs(picture, 512, 2048)
    assert (grid, wanted_grid, made.shape) == ("4x4", "4x4", (17, 512, 512, 3))
    np.testing.assert_array_equal(made, wanted)


def test_order_and_filter_count() -> None:
    """Other tiles come out if they follow column by column, or with another filter."""
    picture = Image.fromarray(noise(90, 61))
    _, made = tiles(picture, entry(32, 128))
    _, wanted = theirs(picture.transpose(Image.Transpose.TRANSPOSE), 32, 128)
    assert not np.array_equal(made, wanted.swapaxes(1, 2))
    _, bicubic = tiles(picture, TiledInput("p", "i", 32, 128, "bicubic", "", 3, 4, LAYOUTS))
    assert not np.array_equal(made, bicubic)


def test_rows_have_ids_for_their_grid() -> None:
    """Only pictures with one grid share a run: as many tiles may stand in more rows."""
    layouts = {grid: (7, *[-1] * 17, *[5] * number) for number, grid in enumerate(grids(128, 32))}
    made = preparer(entry(32, 128, layouts))
    wide, tall = (made.row(Image.fromarray(noise(*size))) for size in ((128, 96), (96, 128)))
    assert wide.arrays["pixels"].shape == tall.arrays["pixels"].shape == (13, 32, 32, 3)
    assert (wide.shape_key, tall.shape_key) == ("3x4", "4x3")
    assert wide.arrays["input_ids"].tolist()[:9] == [7, 3, 3, 3, 3, 3, 3, 3, 3]
    assert wide.cost == len(wide.arrays["input_ids"])
    assert list(made.widths) == sorted(69 + number for number in range(7))
    assert made.probe(1).cost == made.widths[0]
    assert made.probe(10**6).cost == made.widths[-1]


def test_a_page_counts_as_many_pictures() -> None:
    """Admission bounds memory: a page of seventeen tiles of 512 holds as much as 88 pictures of 224."""
    layouts: dict[str, tuple[int, ...]] = dict.fromkeys(grids(2048, 512), (-1,))
    tiled = ImageReader(entry(512, 2048, layouts), Path(), profiles={})
    squares = [
        ImageReader(ImageInput("p", size, "squash", "bicubic", ""), Path(), profiles={}) for size in (8, 224, 448)
    ]
    assert tiled.room == 17 * 512**2 // 224**2 == 88
    assert [reader.room for reader in squares] == [1, 1, 4]


def test_fewer_large_pages_fit_into_a_request() -> None:
    """Seventy bytes are enough for a page of 13 megabytes: a request has no more of them than of four-fold pictures."""
    layouts: dict[str, tuple[int, ...]] = dict.fromkeys(grids(2048, 512), (-1,))
    item = Item(images=[EncodedImage(b"x")])
    tiled = ImageReader(entry(512, 2048, layouts), Path(), profiles={})
    assert len(tiled.given([item] * 23)) == 23
    with pytest.raises(WireError, match="Request has 24 images but at most 23 images are read per request"):
        tiled.given([item] * 24)
    square = ImageReader(ImageInput("pixels", 448, "squash", "bicubic", ""), Path(), profiles={})
    assert len(square.given([item] * 512)) == 512


def test_a_strip_of_a_million_pixels_takes_no_memory() -> None:
    picture = Image.new("RGB", (1_000_000, 1), (200, 10, 10))
    grid, made = tiles(picture, entry(32, 128))
    assert (grid, made.shape) == ("1x4", (5, 32, 32, 3))
    assert made[..., 0].min() == 200


def test_a_file_becomes_a_row() -> None:
    buffer = io.BytesIO()
    Image.fromarray(noise(40, 20)).save(buffer, "PNG")
    made = preparer(entry(32, 128)).row(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"))
    assert made.shape_key == "2x4"
