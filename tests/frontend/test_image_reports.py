"""What went wrong with pictures in other people's servers, case by case, in ours.

Each input is made here, and each right answer by numpy or by Pillow alone. What other tests of this folder hold already
(bombs, cut JPEGs, EXIF and alpha by option, `data:` URLs, floods) is not repeated.
"""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from compiler import tiny
from numpy.typing import NDArray
from PIL import Image
from sie_frontend.images.decoding import decode
from sie_frontend.images.entry import ImageInput
from sie_frontend.images.fitting import fitted

from frontend.conftest import Service
from frontend.fake_triton import FakeTriton
from frontend.pictures import encoded, noise
from frontend.test_images_served import BAD, item, picture, sees, two_way, url_of, vector
from frontend.wire import dense, encode, refusal

__all__ = ["sees", "two_way"]
Pixels = NDArray[np.uint8]
LIMIT = 50_000_000
RED, BLUE = (255, 0, 0), (0, 0, 255)


def levels(data: bytes) -> Pixels:
    return np.asarray(decode(data, LIMIT))


def entry(size: int, fit: Any) -> ImageInput:
    return ImageInput("pixels", size, fit, "bicubic", "either")


# Bytes to colours


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("mode", ["P", "1"])
def test_a_palette_and_single_bits_are_scaled_as_colours_and_not_by_nearest_pixel(mode: str, fit: str) -> None:
    """Pillow scales both by the nearest pixel, whatever filter is asked: the colours must come first.

    A board of single pixels, black and white, is mid grey at half its size.
    """
    board = np.indices((448, 448)).sum(0) % 2 == 0
    bits = Image.fromarray(board)
    rgb = Image.fromarray(np.where(board[..., None], 255, 0).astype(np.uint8).repeat(3, 2))
    given = bits.convert(mode) if mode == "1" else rgb.quantize(2)
    assert given.mode == mode
    found, twin = (fitted(decode(encoded(one, "PNG"), LIMIT), entry(224, fit)) for one in (given, rgb))
    np.testing.assert_array_equal(found, twin)
    assert (np.abs(found[4:-4, 4:-4].astype(int) - 128) <= 1).all()


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
@pytest.mark.asyncio
async def test_an_animation_is_its_first_frame_on_every_route(sees: Service, format: str) -> None:
    first, second = (Image.new("RGB", (21, 11), colour) for colour in (RED, BLUE))
    options = {"lossless": True} if format == "WEBP" else {}
    moving = encoded(first, format, save_all=True, append_images=[second], duration=100, **options)
    still = encoded(first, "PNG")
    async with sees.open() as client:
        items = dense(await encode(client, {"items": [item(moving), item(still)]}))
        body = {"model": tiny.MODEL_ID, "input": url_of(moving)}
        url = (await client.post("/v1/embeddings", json=body)).json()["data"][0]["embedding"]
    np.testing.assert_array_equal(items[0], items[1])
    np.testing.assert_array_equal(np.float32(url), items[1])


@pytest.mark.parametrize(("mode", "colour"), [("L", 90), ("LA", (90, 255)), ("1", 1), ("CMYK", (0, 255, 255, 0))])
@pytest.mark.asyncio
async def test_grey_bits_and_inks_have_a_vector_like_their_colours(sees: Service, mode: str, colour: Any) -> None:
    """Red ink stays red: it is not cyan, as it is where nobody inverts."""
    made = Image.new(mode, (24, 12), colour)
    data = encoded(made, "JPEG", quality=100) if mode == "CMYK" else encoded(made, "PNG")
    wanted = {"L": [90] * 3, "LA": [90] * 3, "1": [255] * 3, "CMYK": RED}[mode]
    assert (np.abs(levels(data).astype(int) - wanted) <= 2).all()
    async with sees.open() as client:
        (found,) = dense(await encode(client, {"items": [item(data)]}))
    np.testing.assert_array_equal(found, vector(encoded(Image.fromarray(levels(data)), "PNG")))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\0\0\0\x1cftypavif\0\0\0\0" + bytes(100), "image data is AVIF, which is not read"),
        (b"\0\0\0\x20ftypavis" + bytes(100), "image data is AVIF, which is not read"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "image data is JPEG 2000, which is not read"),
        (encoded(Image.new("RGB", (16, 16)), "ICO"), "image data is ICO, which is not read"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "image data is not a decodable image - at"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "image data is not a decodable image - at"),
    ],
    ids=["AVIF", "AVIF sequence", "JPEG 2000", "ICO", "SVG", "HEIC"],
)
@pytest.mark.asyncio
async def test_other_formats_are_a_400_whatever_their_label_says(sees: Service, data: bytes, said: str) -> None:
    """Those that SIE's Pillow reads are named; of what it does not read either, the message is SIE's."""
    labelled = {"images": [{"data": data, "format": "png"}]}
    async with sees.open() as client:
        status, code, message = refusal(await encode(client, {"items": [item(picture(0)), labelled]}))
    assert (status, code) == (400, "INVALID_INPUT")
    assert message.startswith(said)
    assert message.endswith("- at `$.items[1].images[0].data`")


@pytest.mark.parametrize("label", ["jpeg", "image/jpeg", "text/plain", "x", None])
@pytest.mark.asyncio
async def test_a_wrong_label_changes_nothing(sees: Service, label: str | None) -> None:
    image = {"data": picture(3), **({"format": label} if label else {})}
    async with sees.open() as client:
        (found,) = dense(await encode(client, {"items": [{"images": [image]}]}))
    np.testing.assert_array_equal(found, vector(picture(3)))


# Geometry


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])
def test_stripes_of_one_pixel_are_smoothed_as_pillows_bicubic_does(axis: int, fit: str) -> None:
    """Without antialiasing they turn black, white, or into waves."""
    stripes = np.where(np.indices((768, 1024))[axis][..., None] % 2, 255, 0).astype(np.uint8).repeat(3, 2)
    data = encoded(Image.fromarray(stripes), "PNG")
    found = fitted(decode(data, LIMIT), entry(224, fit))
    scaled = Image.fromarray(stripes).resize((224 if fit == "squash" else 298, 224), Image.Resampling.BICUBIC)
    left = (scaled.width - 224) // 2
    np.testing.assert_array_equal(found, np.asarray(scaled)[:, left : left + 224])
    assert np.abs(found[8:-8, 8:-8].astype(int) - 128).max() <= 24


def test_side_edges_survive_a_squash_and_are_gone_after_a_crop() -> None:
    """Which a square picture cannot show: 320 x 160, green for 40 pixels on either side, else red."""
    wide = np.full((160, 320, 3), RED, np.uint8)
    wide[:, :40] = wide[:, -40:] = (0, 255, 0)
    data = encoded(Image.fromarray(wide), "PNG")
    squashed, cropped = (fitted(decode(data, LIMIT), entry(64, fit)) for fit in ("squash", "crop"))
    for edge in (squashed[:, :4], squashed[:, -4:]):
        assert (edge[..., 1] > 250).all() and (edge[..., 0] < 5).all()
    assert (cropped[:, 4:-4, 0] > 250).all() and (cropped[:, 4:-4, 1] < 5).all()


# Bad pictures and limits


@pytest.mark.asyncio
async def test_bad_pictures_between_good_ones_neither_stall_nor_change_them(sees: Service) -> None:
    """As SIE has it, a bad item fails its request; the next request and its neighbours are as alone."""
    tiny_one = encoded(Image.new("RGB", (1, 1), BLUE), "PNG")
    async with sees.open() as client:
        (alone,) = dense(await encode(client, {"items": [item(picture(1))]}))
        (smallest,) = dense(await encode(client, {"items": [item(tiny_one)]}))
        for turn in range(10):
            broken = encoded(Image.fromarray(noise(60, 40)), "JPEG")[: 200 + 30 * turn]
            told, good, health = await asyncio.gather(
                encode(client, {"items": [item(picture(0)), item(broken)]}),
                encode(client, {"items": [item(picture(1)), item(tiny_one)]}),
                client.get("/readyz"),
            )
            assert refusal(told)[0] == 400
            assert refusal(told)[2].endswith("- at `$.items[1].images[0].data`")
            np.testing.assert_array_equal(dense(good), [alone, smallest])
            assert health.status_code == 200
        assert refusal(await encode(client, {"items": [item(BAD)]}))[0] == 400
        np.testing.assert_array_equal(dense(await encode(client, {"items": [item(picture(1))]}))[0], alone)


@pytest.mark.parametrize("cut", [16, 128, 1000])
@pytest.mark.asyncio
async def test_a_photograph_that_lost_its_end_is_a_400_with_its_place(sees: Service, cut: int) -> None:
    """Never a vector of grey."""
    whole = encoded(Image.fromarray(noise(400, 300)), "JPEG", quality=90)
    async with sees.open() as client:
        response = await encode(client, {"items": [item(picture(0)), item(picture(1), whole[:-cut])]})
    wanted = "image data is not a decodable image - at `$.items[1].images[1].data`"
    assert refusal(response) == (400, "INVALID_INPUT", wanted)


# Memory and order


def resident() -> int:
    """Bytes of this process that lie in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.asyncio
async def test_the_same_photograph_sent_over_and_over_takes_no_more_memory(sees: Service, triton: FakeTriton) -> None:
    """Elsewhere every picture left its bytes behind: 300 KB each would be 24 MB of the second part."""
    photograph = encoded(Image.fromarray(noise(800, 400)), "JPEG", quality=90)
    body = {"items": [item(photograph)]}
    assert 150_000 < len(photograph) < 400_000
    repeats = 2000 if os.environ.get("SIE_TRITON_ALL_RECIPES") else 80

    async def send(client: httpx.AsyncClient) -> None:
        for _ in range(repeats):
            assert (await encode(client, body)).status_code == 200
            triton.runs.clear()

    async with sees.open() as client:
        await send(client)
        before = resident()
        await send(client)
        assert resident() - before < repeats * len(photograph) // 3


@pytest.mark.asyncio
async def test_answer_i_is_that_of_item_i_however_long_each_takes(sees: Service) -> None:
    """Twelve at once, the first slow to decode; then texts between a large and a tiny one."""
    large, small = encoded(Image.fromarray(noise(1200, 900)), "PNG"), encoded(Image.new("RGB", (2, 1), RED), "PNG")
    twelve: list[dict[str, Any]] = [item(large), *(item(picture(number)) for number in range(11))]
    mixed: list[dict[str, Any]] = [{"text": "the cell"}, item(large), {"text": "search"}, item(small)]
    async with sees.open() as client:
        for items in (twelve, mixed):
            alone = [dense(await encode(client, {"items": [one]}))[0] for one in items]
            together = dense(await encode(client, {"items": items}))
            np.testing.assert_array_equal(together, alone)
    assert len({one.tobytes() for one in together}) == len(mixed)


# Other people's clients


BASE64_LIKE = ("A" * 120, base64.b64encode(picture(0)).decode(), "iVBORw0KGgo=")


@pytest.mark.parametrize("text", BASE64_LIKE, ids=["letters", "a picture without a head", "a PNG's first bytes"])
@pytest.mark.asyncio
async def test_a_text_that_looks_like_base64_is_a_text(sees: Service, text: str) -> None:
    async with sees.open() as client:
        (wanted,) = dense(await encode(client, {"items": [{"text": text}]}))
        body = {"model": tiny.MODEL_ID, "input": [text, url_of(picture(1))]}
        found = (await client.post("/v1/embeddings", json=body)).json()["data"]
    assert [entry["index"] for entry in found] == [0, 1]
    np.testing.assert_array_equal(np.float32(found[0]["embedding"]), wanted)
    np.testing.assert_array_equal(np.float32(found[1]["embedding"]), vector(picture(1)))


@pytest.mark.parametrize("form", ["float", "base64"])
@pytest.mark.asyncio
async def test_a_picture_by_openais_client_is_one_row_of_the_models_width(sees: Service, form: str) -> None:
    """Clients ask for base64 by default, and get as many numbers as the vector has."""
    body = {"model": tiny.MODEL_ID, "input": [url_of(picture(2))], "encoding_format": form}
    async with sees.open() as client:
        (found,) = (await client.post("/v1/embeddings", json=body)).json()["data"]
    numbers = found["embedding"]
    row = np.frombuffer(base64.b64decode(numbers), "<f4") if form == "base64" else np.float32(numbers)
    np.testing.assert_array_equal(row, vector(picture(2)))
