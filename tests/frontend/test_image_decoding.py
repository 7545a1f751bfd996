"""Pictures from strangers: what is read of them, and what is refused before it costs anything."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from sie_frontend.contract.errors import WireError
from sie_frontend.contract.requests import MAX_IMAGE_PIXELS, Limits
from sie_frontend.images.decoding import MAX_PIECES, MAX_SCANS, Unreadable, decode
from sie_frontend.images.entry import ImageInput
from sie_frontend.images.reader import ImageReader

from frontend.pictures import bombs, chunk, crumbs, encoded, every_mode, many_scans, noise, photographs, png

TESTS = Path(__file__).resolve().parents[1]
RED, BLUE = (255, 0, 0), (0, 0, 255)
UNREADABLE = "^image data is not a decodable image$"


def pixels(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    picture = decode(data, MAX_IMAGE_PIXELS)
    assert picture.mode == "RGB"
    return np.asarray(picture)


# What the contract reads of a picture


def test_alpha_is_dropped_and_hidden_colours_show() -> None:
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[..., 0] = 255
    rgba = Image.fromarray(clear)
    palette = rgba.convert("RGB").convert("P")
    grey = Image.new("LA", (8, 8), (128, 0))
    cases = {
        "rgba": (encoded(rgba, "PNG"), RED),
        "webp": (encoded(rgba, "WEBP", lossless=True, exact=True), RED),
        "palette": (encoded(palette, "PNG", transparency=bytes(256)), RED),
        "one colour": (encoded(rgba.convert("RGB"), "PNG", transparency=RED), RED),
        "grey": (encoded(grey, "PNG"), (128, 128, 128)),
    }
    for name, (data, colour) in cases.items():
        assert (pixels(data) == colour).all(), name


@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
def test_a_photograph_is_not_turned(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = encoded(Image.fromarray(noise(30, 20)), "JPEG", quality=95)
    turned = encoded(Image.fromarray(noise(30, 20)), "JPEG", quality=95, exif=exif)
    assert Image.open(io.BytesIO(turned)).getexif()[0x0112] == orientation
    np.testing.assert_array_equal(pixels(turned), pixels(plain))


def test_a_tiff_is_turned_by_pillow_itself() -> None:
    """Which is what SIE gives, too: libtiff's orientation is one of the picture's, and not of a camera."""
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = noise(30, 20)
    turned = encoded(Image.fromarray(upright), "TIFF", exif=exif)
    np.testing.assert_array_equal(pixels(turned), np.rot90(upright, -1))


@pytest.mark.parametrize("format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_frame_is_the_picture(format: str) -> None:
    red, blue = Image.new("RGB", (9, 7), RED), Image.new("RGB", (9, 7), BLUE)
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(red, format, save_all=True, append_images=[blue], **options)
    assert (pixels(data) == RED).all()


def test_the_bytes_tell_the_format() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert (np.abs(pixels(encoded(cmyk, "JPEG", quality=100)).astype(int) - RED) <= 2).all()
    assert pixels(encoded(Image.new("1", (8, 8), 1), "PNG")).min() == 255


# Damage


def test_a_jpeg_without_its_end() -> None:
    """Where Pillow has all pixels without the last marker they are taken; it never makes any up."""
    small = encoded(Image.fromarray(noise(64, 48)), "JPEG", quality=50)
    np.testing.assert_array_equal(pixels(small[:-2]), pixels(small))
    for data in (small, *photographs()):
        for kept in (len(data) - 128, len(data) // 2, 200, 3):
            with pytest.raises(Unreadable, match=UNREADABLE):
                decode(data[:kept], MAX_IMAGE_PIXELS)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"no picture at all",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>',
        b"\0\0\0\x18ftypheic" + bytes(100),
        b"P6 2 2 255 " + bytes(12),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
        b"%PDF-1.4",
        encoded(Image.new("RGB", (8, 8)), "TGA"),
    ],
)
def test_what_is_no_picture_of_a_served_format(data: bytes) -> None:
    with pytest.raises(Unreadable, match=UNREADABLE):
        decode(data, MAX_IMAGE_PIXELS)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damage_is_refused_or_read_and_never_anything_else() -> None:
    random = np.random.default_rng(7)
    refused = 0
    for _, data in every_mode(13, 11):
        for _ in range(30):
            spoiled = bytearray(data[: int(random.integers(1, len(data) + 1))])
            for place in random.integers(0, len(spoiled), 3):
                spoiled[place] = int(random.integers(0, 256))
            try:
                assert decode(bytes(spoiled), 1_000_000).mode == "RGB"
            except Unreadable:
                refused += 1
    assert refused > 300


def test_sizes_of_nothing() -> None:
    gif = encoded(Image.new("P", (8, 8)), "GIF")
    frame = gif.index(b",", 13)
    bmp = encoded(Image.new("RGB", (8, 8)), "BMP")
    for data in (png(0, 5), png(5, 0), gif[: frame + 5] + bytes(4) + gif[frame + 9 :], bmp[:18] + bytes(8) + bmp[26:]):
        assert refusal_of(reader(), (data,)).endswith("- at `$.items[0].images[0].data`")


# Bombs


def test_the_limit_is_on_pixels() -> None:
    data = encoded(Image.new("1", (100, 50)), "PNG")
    assert pixels(data).shape == (50, 100, 3)
    assert decode(data, 5000).size == (100, 50)
    with pytest.raises(Unreadable, match=r"^image data has 100 x 50 pixels, and at most 4999 are read; scale it down$"):
        decode(data, 4999)


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused_for_their_size(name: str) -> None:
    with pytest.raises(Unreadable, match=r"pixels.* at most 50000000 are read|more pixels than the 50000000"):
        decode(bombs()[name], MAX_IMAGE_PIXELS)


def test_bombs_of_other_kinds() -> None:
    scans = many_scans(MAX_SCANS + 1)
    with pytest.raises(Unreadable, match=f"JPEG of {MAX_SCANS + 1} scans, and at most {MAX_SCANS} are read"):
        decode(scans, MAX_IMAGE_PIXELS)
    assert pixels(many_scans(MAX_SCANS)).shape == (64, 64, 3)
    text = zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK + 1), 9)
    for more in (chunk(b"zTXt", b"a\0\0" + text), chunk(b"iCCP", b"a\0\0" + text) + chunk(b"tEXt", b"a\0b") * 1000):
        try:
            assert pixels(png(8, 8, before=more)).shape == (8, 8, 3)
        except Unreadable as refusal:
            assert str(refusal) == "image data is not a decodable image"


@pytest.mark.parametrize("name", crumbs(1))
def test_what_has_no_end_of_pieces_is_refused_before_its_pixels(name: str) -> None:
    with pytest.raises(Unreadable, match=f"^image data has more than {MAX_PIECES} pieces; save it anew$"):
        decode(crumbs(6 << 20)[name], MAX_IMAGE_PIXELS)
    decode(crumbs(30_000)[name], MAX_IMAGE_PIXELS)


def test_a_png_in_as_many_chunks_as_fit_a_body_of_kilobytes_is_read() -> None:
    whole = encoded(Image.fromarray(noise(200, 170)), "PNG", compress_level=0)
    start = whole.index(b"IDAT") - 4
    data = zlib.compress(zlib.decompress(b"".join(_pixels_of(whole))), 0)
    parts = b"".join(chunk(b"IDAT", data[at : at + 3]) for at in range(0, len(data), 3))
    assert parts.count(b"IDAT") > 34_000
    np.testing.assert_array_equal(pixels(whole[:start] + parts + chunk(b"IEND", b"")), noise(200, 170))


def _pixels_of(whole: bytes) -> Iterator[bytes]:
    place = 8
    while place < len(whole):
        length = int.from_bytes(whole[place : place + 4], "big")
        if whole[place + 4 : place + 8] == b"IDAT":
            yield whole[place + 8 : place + 8 + length]
        place += 12 + length


READING = """
import resource, sys
from pathlib import Path
from sie_frontend.images.decoding import Unreadable, decode

files = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
decode(files[0], 50_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for data in files[1:]:
    try:
        decode(data, 50_000_000)
    except Unreadable:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
photograph = Path(sys.argv[2]).read_bytes()
for count in (30, 200):
    for _ in range(count):
        decode(photograph, 50_000_000)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_bombs_take_no_memory_and_nothing_is_kept(tmp_path: Path) -> None:
    """In a process of its own, whose largest size tells: 20000 x 20000 pixels in RGB would be 1.6 gigabytes.

    A photograph that is read over and over takes as much as one that is read a few times.
    """
    text = zlib.compress(bytes(200_000_000), 1)
    sent = {
        "0": encoded(Image.new("RGB", (16, 16)), "PNG"),
        **bombs(),
        "text": png(8, 8, before=chunk(b"zTXt", b"a\0\0" + text)),
        "profile": png(8, 8, before=chunk(b"iCCP", b"a\0\0" + text)),
        "texts": png(8, 8, before=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000), 9)) * 60),
    }
    (tmp_path / "sent").mkdir()
    for name, data in sent.items():
        (tmp_path / "sent" / name).write_bytes(data)
    photograph = encoded(Image.fromarray(noise(500, 400)), "JPEG", quality=95)
    (tmp_path / "photograph").write_bytes(photograph)
    command = [sys.executable, "-c", READING, str(tmp_path / "sent"), str(tmp_path / "photograph")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=TESTS)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    grown, few, many = map(int, done.stdout.split())
    assert grown < 20_000  # kilobytes
    assert many - few < len(photograph) * 20 // 1024  # a tenth of what was sent


# The reader


@dataclass(frozen=True)
class Bare:
    """A call that asks for nothing."""

    options: Mapping[str, Any] = field(default_factory=dict)
    instruction: str | None = None


def reader(**limits: int) -> ImageReader:
    entry = ImageInput("pixels", 8, "crop", "bicubic", "XAdapter requires either text or images input")
    return ImageReader(entry, Path(), profiles={}, limits=Limits(**limits))


def refusal_of(made: ImageReader, *given: tuple[bytes, ...]) -> str:
    places = [f"items[{2 * number}]" for number in range(len(given))]
    with pytest.raises(WireError) as caught:
        made.rows(given, Bare(), is_query=False, places=places)
    assert (caught.value.status, caught.value.code) == (400, "INVALID_INPUT")
    return caught.value.message


def test_refusals_name_the_place() -> None:
    good = encoded(Image.new("RGB", (9, 9)), "PNG")
    assert refusal_of(reader(), (good,), (good, b"bad")) == (
        "image data is not a decodable image - at `$.items[2].images[1].data`"
    )
    assert refusal_of(reader(image_pixels=80), (good,)) == (
        "image data has 9 x 9 pixels, and at most 80 are read; scale it down - at `$.items[0].images[0].data`"
    )
    assert refusal_of(reader(image_bytes=len(good) - 1), (good,)) == (
        f"image data has {len(good)} bytes, and at most {len(good) - 1} are read - at `$.items[0].images[0].data`"
    )
    assert refusal_of(reader(item_images=1), (good,), (good, good)) == (
        "2 images, and at most 1 are read of one item - at `$.items[2].images`"
    )


def test_rows_have_one_shape_and_one_cost() -> None:
    pictures = [(encoded(Image.fromarray(noise(*size)), "PNG"),) for size in ((3, 9), (40, 8), (8, 8))]
    made = reader()
    rows = made.rows(pictures, Bare(), is_query=False)
    batch = made.batch(rows, 1)
    assert list(batch) == ["pixels"]
    assert batch["pixels"].shape == (3, 8, 8, 3)
    assert batch["pixels"].dtype == np.uint8
    np.testing.assert_array_equal(batch["pixels"][2], noise(8, 8))
    assert {(row.cost, row.shape_key, row.cut, row.blank) for row in rows} == {(1, None, False, False)}
    assert made.probe(5).arrays["pixels"].shape == (8, 8, 3)
