"""Pictures as people see them, where a request or a profile asks for it: turned by EXIF, put on white.

The expected pictures are made with numpy from the stored pixels, never by the functions that serve.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sie_frontend.contract.errors import WireError
from sie_frontend.images.decoding import View, decode
from sie_frontend.images.options import view_of
from sie_frontend.manifest import dump_manifest, read_manifest
from sie_frontend.settings import Settings

from frontend.conftest import Service
from frontend.fake_triton import FakeTriton
from frontend.pictures import encoded, noise
from frontend.test_images_served import item, two_way, vector
from frontend.wire import answer, dense, encode, refusal

__all__ = ["two_way"]
Pixels = NDArray[np.uint8]
TURNED, ON_WHITE = View(turned=True), View(on_white=True)
LIMIT = 10_000_000

# What each orientation of EXIF asks for, with numpy: rows first.
TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: p.transpose(1, 0, 2)[:, ::-1],
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: p.transpose(1, 0, 2)[::-1],
}


def with_orientation(picture: Image.Image, number: int, format: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = number
    return encoded(picture, format, exif=exif, **({"quality": 95} if format == "JPEG" else {}))


def pixels(data: bytes, view: View) -> Pixels:
    return np.asarray(decode(data, LIMIT, view))


@pytest.mark.parametrize("number", TURNS)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_photograph_is_turned_once_the_way_its_exif_says(number: int, format: str) -> None:
    picture = Image.fromarray(noise(30, 20))
    data = with_orientation(picture, number, format)
    stored = pixels(data, View())
    assert stored.shape == (20, 30, 3)
    np.testing.assert_array_equal(pixels(data, TURNED), TURNS[number](stored))


def test_a_tiff_which_pillow_turns_is_not_turned_twice() -> None:
    picture = Image.fromarray(noise(30, 20))
    data = with_orientation(picture, 6, "TIFF")
    np.testing.assert_array_equal(pixels(data, TURNED), pixels(data, View()))
    assert pixels(data, View()).shape == (30, 20, 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63"],
    ids=["empty", "damaged", "an orientation that there is not"],
)
def test_a_damaged_exif_turns_nothing_and_refuses_nothing(exif: bytes) -> None:
    data = encoded(Image.fromarray(noise(30, 20)), "JPEG", exif=exif, quality=95)
    np.testing.assert_array_equal(pixels(data, TURNED), pixels(data, View()))


def over_white(rgba: Pixels) -> Pixels:
    alpha = rgba[..., 3:].astype(np.int64)
    made: Pixels = np.rint((rgba[..., :3] * alpha + 255 * (255 - alpha)) / 255).astype(np.uint8)
    return made


def test_hidden_colours_are_white_and_half_of_it_where_alpha_is_half() -> None:
    rgba = noise(40, 30, 4)
    rgba[:10, :, 3], rgba[10:12, :, 3] = 0, 255
    data = encoded(Image.fromarray(rgba, "RGBA"), "PNG")
    found = pixels(data, ON_WHITE)
    assert np.abs(found.astype(int) - over_white(rgba)).max() <= 1
    assert (found[:10] == 255).all()
    np.testing.assert_array_equal(found[10:12], rgba[10:12, :, :3])
    np.testing.assert_array_equal(pixels(data, View()), rgba[..., :3])


def clear_red(mode: str) -> bytes:
    """8 x 8, its left half opaque blue, its right half clear over pure red; grey has levels 30 and 128."""
    left = np.arange(8)[None, :].repeat(8, 0) < 4
    if mode == "RGBA":
        rgba = np.where(left[..., None], [0, 0, 255, 255], [255, 0, 0, 0]).astype(np.uint8)
        return encoded(Image.fromarray(rgba, "RGBA"), "PNG")
    if mode == "LA":
        grey = np.where(left[..., None], [30, 255], [128, 0]).astype(np.uint8)
        return encoded(Image.fromarray(grey, "LA"), "PNG")
    if mode == "P":
        palette = Image.fromarray(np.where(left, 0, 1).astype(np.uint8), "P")
        palette.putpalette([0, 0, 255, 255, 0, 0])
        return encoded(palette, "PNG", transparency=1)
    if mode == "L":
        return encoded(Image.fromarray(np.where(left, 30, 128).astype(np.uint8), "L"), "PNG", transparency=128)
    if mode == "I;16":
        levels = np.where(left, 30 * 257, 128 * 257).astype(np.uint16)
        return encoded(Image.fromarray(levels), "PNG", transparency=128 * 257)
    rgb = np.where(left[..., None], [0, 0, 255], [255, 0, 0]).astype(np.uint8)
    return encoded(Image.fromarray(rgb, "RGB"), mode, **({"transparency": (255, 0, 0)} if mode == "PNG" else {}))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "PNG"])
def test_every_way_that_a_png_says_clear_is_white(mode: str) -> None:
    """An alpha channel, a clear entry of a palette, one clear level or colour (tRNS)."""
    found = pixels(clear_red(mode), ON_WHITE)
    assert (found[:, 4:] == 255).all()
    left = [30, 30, 30] if mode in ("LA", "L") else [0, 0, 255]
    assert (found[:, :4] == left).all()
    hidden = pixels(clear_red(mode), View())[:, 4:]
    assert (hidden == ([128, 128, 128] if mode in ("LA", "L") else [255, 0, 0])).all(), "as SIE has it"


def test_sixteen_bits_with_a_clear_level() -> None:
    """Pillow reads them; whatever it makes of the levels, they are as without the option where nothing is clear."""
    found = pixels(clear_red("I;16"), ON_WHITE)
    np.testing.assert_array_equal(found[:, :4], pixels(clear_red("I;16"), View())[:, :4])


def test_a_frame_of_a_gif_with_a_clear_colour() -> None:
    palette = Image.fromarray((np.arange(64).reshape(8, 8) % 2).astype(np.uint8), "P")
    palette.putpalette([9, 9, 9, 255, 0, 0])
    found = pixels(encoded(palette, "GIF", transparency=1), ON_WHITE)
    assert {tuple(map(int, colour)) for colour in found.reshape(-1, 3)} == {(9, 9, 9), (255, 255, 255)}


def test_what_has_no_alpha_is_as_it_was() -> None:
    data = encoded(Image.fromarray(noise(30, 20)), "JPEG")
    np.testing.assert_array_equal(pixels(data, ON_WHITE), pixels(data, View()))


def test_both_at_once() -> None:
    rgba = noise(30, 20, 4)
    data = with_orientation(Image.fromarray(rgba, "RGBA"), 8, "PNG")
    found = pixels(data, View(turned=True, on_white=True))
    assert np.abs(found.astype(int) - TURNS[8](over_white(rgba))).max() <= 1


@pytest.mark.parametrize(
    ("options", "view"),
    [
        ({}, View()),
        ({"image_orientation": None, "image_alpha": None}, View()),
        ({"image_orientation": "stored", "image_alpha": "drop"}, View()),
        ({"image_orientation": "exif"}, TURNED),
        ({"image_alpha": "white", "query_template": "x {text}"}, ON_WHITE),
    ],
    ids=str,
)
def test_the_values_of_the_options(options: dict[str, Any], view: View) -> None:
    assert view_of(options) == view


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_alpha": "black"}, "'options.image_alpha' must be 'drop' or 'white', got 'black'"),
        ({"image_alpha": True}, "'options.image_alpha' must be 'drop' or 'white', got True"),
        ({"image_orientation": ""}, "'options.image_orientation' must be 'stored' or 'exif', got ''"),
        ({"image_orientation": 6}, "'options.image_orientation' must be 'stored' or 'exif', got 6"),
    ],
    ids=str,
)
def test_other_values_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(WireError) as caught:
        view_of(options)
    assert str(caught.value) == said


@pytest.fixture
def profiled(two_way: Path, tmp_path: Path) -> Path:
    """The same model, with a profile that puts pictures on white and turns them."""
    manifest = read_manifest(two_way)
    for path in two_way.rglob("tokenizer.json"):
        target = tmp_path / path.relative_to(two_way)
        target.parent.mkdir(parents=True)
        target.write_bytes(path.read_bytes())
    for name, model in list(manifest.models.items()):
        default = model.profiles["default"]
        seen = {**default, "image_alpha": "white", "image_orientation": "exif"}
        manifest.models[name] = msgspec.structs.replace(model, profiles={**model.profiles, "default": seen})
    (tmp_path / "manifest.json").write_bytes(dump_manifest(manifest))
    return tmp_path


@pytest.mark.asyncio
async def test_a_request_and_a_profile_may_ask_and_a_request_wins(
    two_way: Path, profiled: Path, triton: FakeTriton
) -> None:
    rgba = noise(30, 20, 4)
    data = with_orientation(Image.fromarray(rgba, "RGBA"), 3, "PNG")
    stored, seen = vector(data), vector(upright(data))
    assert not np.array_equal(stored, seen)
    asked = {"image_alpha": "white", "image_orientation": "exif"}
    plain = {"image_alpha": "drop", "image_orientation": "stored"}
    async with Service(Settings(repository=two_way, triton_url=triton.url)).open() as client:
        (one,) = dense(await encode(client, {"items": [item(data)]}))
        (other,) = dense(await encode(client, {"items": [item(data)], "params": {"options": asked}}))
    np.testing.assert_array_equal(one, stored)
    np.testing.assert_array_equal(other, seen)
    async with Service(Settings(repository=profiled, triton_url=triton.url)).open() as client:
        (one,) = dense(await encode(client, {"items": [item(data)]}))
        (other,) = dense(await encode(client, {"items": [item(data)], "params": {"options": plain}}))
    np.testing.assert_array_equal(one, seen)
    np.testing.assert_array_equal(other, stored)


def upright(data: bytes) -> bytes:
    """The picture as a person has it on paper: made by Pillow alone, and saved without EXIF and alpha."""
    with Image.open(io.BytesIO(data)) as opened:
        page = Image.new("RGB", opened.size, (255, 255, 255))
        page.paste(opened, mask=opened.getchannel("A"))
    return encoded(page.rotate(180), "PNG")


@pytest.mark.asyncio
async def test_a_value_that_is_not_known_is_a_400_that_names_it(two_way: Path, triton: FakeTriton) -> None:
    data = encoded(Image.fromarray(noise(12, 9)), "PNG")
    async with Service(Settings(repository=two_way, triton_url=triton.url)).open() as client:
        for options, said in (
            ({"image_alpha": "grey"}, "'options.image_alpha' must be 'drop' or 'white', got 'grey'"),
            ({"image_orientation": ["exif"]}, "'options.image_orientation' must be 'stored' or 'exif', got ['exif']"),
        ):
            response = await encode(client, {"items": [item(data)], "params": {"options": options}})
            assert refusal(response) == (400, "INVALID_INPUT", said)
        body = {"items": [{"text": "the cell"}], "params": {"options": {"image_alpha": "white"}}}
        assert len(answer(await encode(client, body))["items"]) == 1
    assert not [run for run in triton.runs if run.model.endswith(".image")]
