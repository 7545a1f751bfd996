"""What a graph is given of a picture is, bit for bit, what the processors of the checkpoints make of it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sie_frontend.contract.requests import MAX_IMAGE_PIXELS
from sie_frontend.images import fitting
from sie_frontend.images.decoding import decode
from sie_frontend.images.entry import ImageInput, Resample
from sie_frontend.images.fitting import fitted

from frontend.pictures import encoded, every_mode, noise, photographs

CROP = ImageInput("pixels", 224, "crop", "bicubic", "nothing to read")
SQUASH = ImageInput("pixels", 384, "squash", "bicubic", "nothing to read")
ENTRIES = (CROP, SQUASH)

# Pillow says so of pictures that it reads all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Palette images with Transparency")


@pytest.fixture(scope="module")
def processors() -> dict[str, Any]:
    """transformers' own, of the kind that is Pillow and numpy."""
    pytest.importorskip("transformers")
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    return {
        "crop": CLIPImageProcessorPil(),
        "squash": SiglipImageProcessorPil(size={"height": SQUASH.size, "width": SQUASH.size}),
    }


def theirs(processor: Any, data: bytes, **options: Any) -> NDArray[Any]:
    """`[3, size, size]`: uint8 where nothing is divided.

    The processor gets what SIE's server gives to it, a picture in RGB. Those of transformers 5 would put a picture with
    alpha on white, which is not the contract.
    """
    with Image.open(io.BytesIO(data)) as picture:
        rgb = picture.convert("RGB")
    made = processor(rgb, input_data_format="channels_last", return_tensors="np", **options)
    found: NDArray[Any] = made["pixel_values"][0]
    return found


def ours(data: bytes, entry: ImageInput) -> NDArray[Any]:
    return fitted(decode(data, MAX_IMAGE_PIXELS), entry)


def assert_equal(processors: dict[str, Any], data: bytes, name: str = "") -> None:
    for entry in ENTRIES:
        expected = theirs(processors[entry.fit], data, do_rescale=False, do_normalize=False)
        found = ours(data, entry)
        assert found.shape == (entry.size, entry.size, 3) and found.dtype == expected.dtype == np.uint8
        np.testing.assert_array_equal(found.transpose(2, 0, 1), expected, err_msg=f"{name} {entry.fit}")


@pytest.mark.parametrize(
    ("source", "made", "resample", "digest"),
    [
        ((50, 80), (28, 28), "bicubic", "2ad6caf3e7438612"),
        ((700, 1000), (448, 448), "bicubic", "fe0980e7a0db778a"),
        ((100, 130), (90, 90), "bilinear", "f7cc3a02fa002ee0"),
        ((200, 200), (300, 100), "lanczos", "5a3af8969742d54e"),
        ((3, 400), (40, 40), "bicubic", "4f2cbaf69fb53e5e"),
        ((1000, 700), (448, 448), "bicubic", "428dc11dba19417a"),
    ],
)
def test_a_newer_pillow_changes_no_pixel(
    source: tuple[int, int], made: tuple[int, int], resample: Resample, digest: str
) -> None:
    """What Pillow 12.3 gave in the environment of sie-server 0.10.1; 13.0 gives something else for the first four."""
    numbers = np.arange(source[0] * source[1] * 3, dtype=np.uint64)
    levels = (numbers * numbers * 2654435761 >> 7) % 256
    picture = Image.fromarray(levels.astype(np.uint8).reshape(source[1], source[0], 3))
    found = fitting.resized(picture, made, fitting.FILTERS[resample])
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == digest


def test_photographs(processors: dict[str, Any]) -> None:
    for data in photographs():
        assert_equal(processors, data)
        with Image.open(io.BytesIO(data)) as picture:
            upright = picture.rotate(90, expand=True)
            for format in ("PNG", "WEBP", "GIF", "TIFF", "BMP"):
                assert_equal(processors, encoded(upright, format), format)


@pytest.mark.parametrize(("width", "height"), [(5, 7), (33, 480), (480, 33), (224, 224), (225, 224), (384, 385)])
def test_every_mode_and_odd_sizes(processors: dict[str, Any], width: int, height: int) -> None:
    for name, data in every_mode(width, height):
        assert_equal(processors, data, name)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (50, 1), (1, 50), (50, 2), (50, 3), (3, 50), (3, 3)])
def test_pictures_of_few_rows_are_not_taken_for_channels(processors: dict[str, Any], width: int, height: int) -> None:
    """Asked without `input_data_format`, the processors refuse one row, and read three as channels."""
    assert_equal(processors, encoded(Image.fromarray(noise(width, height)), "PNG"))


def test_a_table_of_256_numbers_a_channel_gives_the_processors_floats(processors: dict[str, Any]) -> None:
    """So that the graph may begin with bytes."""
    for entry in ENTRIES:
        processor = processors[entry.fit]
        levels = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
        mean, std = (np.asarray(values, dtype=np.float32) for values in (processor.image_mean, processor.image_std))
        table = (levels[:, None] - mean) / std
        for data in photographs():
            made = np.stack([table[ours(data, entry)[..., channel], channel] for channel in range(3)])
            np.testing.assert_array_equal(made, theirs(processor, data))


def mistakes() -> Iterator[tuple[str, Literal["crop", "squash"], Any]]:
    """What is done wrong elsewhere, in the order of what it costs."""
    bilinear = msgspec.structs.replace(CROP, resample="bilinear")
    yield "bilinear", "crop", lambda data: ours(data, bilinear)
    yield "squashed", "crop", lambda data: ours(data, msgspec.structs.replace(CROP, fit="squash"))
    yield "cropped", "squash", lambda data: ours(data, msgspec.structs.replace(SQUASH, fit="crop"))

    def one_off(data: bytes) -> NDArray[Any]:
        with Image.open(io.BytesIO(data)) as picture:
            scaled = picture.resize((int(224 * picture.width / picture.height), 224), Image.Resampling.BICUBIC)
        left = (scaled.width - 224) // 2 + 1
        return np.asarray(scaled.crop((left, 0, left + 224, 224)))

    yield "one pixel off", "crop", one_off

    def again(data: bytes) -> NDArray[Any]:
        with Image.open(io.BytesIO(data)) as picture:
            return ours(encoded(picture, "JPEG", quality=95), CROP)

    yield "another JPEG", "crop", again


@pytest.mark.parametrize(
    ("name", "fit", "made"), list(mistakes()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_comparison_notices(processors: dict[str, Any], name: str, fit: str, made: Any) -> None:
    data = photographs()[0]
    expected = theirs(processors[fit], data, do_rescale=False, do_normalize=False)
    assert not np.array_equal(made(data).transpose(2, 0, 1), expected)


@pytest.mark.parametrize(("width", "height"), [(700, 20), (20, 700), (900, 700), (700, 900), (701, 11), (1, 90)])
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.fit)
def test_what_is_not_made_whole_is_the_same(
    monkeypatch: pytest.MonkeyPatch, entry: ImageInput, width: int, height: int
) -> None:
    """Pictures of a few pixels by a million never are. To a level or two: a position is told in single precision, or
    the other direction is rounded first."""
    smooth = Image.fromarray(noise(9, 9)).resize((width, height), Image.Resampling.BICUBIC)
    whole = fitted(smooth, entry)
    monkeypatch.setattr(fitting, "WHOLE_PIXELS", 0)
    parts = fitted(smooth, entry)
    assert int(np.abs(whole.astype(int) - parts.astype(int)).max()) <= (1 if entry is CROP else 2)


def test_a_million_pixels_in_a_row() -> None:
    """Whole, the first would take 200 gigabytes."""
    row = np.zeros((1, 1_000_001, 3), np.uint8)
    row[0, 500_000] = (10, 200, 30)
    for pixels in (row, row.transpose(1, 0, 2)):
        made = fitted(Image.fromarray(np.ascontiguousarray(pixels)), CROP)
        # A square of which the middle pixel is all.
        np.testing.assert_allclose(made[112, 112], (10, 200, 30), atol=1)
        assert fitted(Image.fromarray(np.ascontiguousarray(pixels)), SQUASH).shape == (384, 384, 3)
