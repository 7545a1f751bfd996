"""`ImageEmbedding` over HTTP: what it takes, what travels, order, laziness, refusals. The frontend is the real one."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from frontend.fake_triton import DIM, FakeTriton, expected_of
from frontend.pictures import encoded, noise
from numpy.typing import NDArray
from PIL import Image
from sie_frontend.images.entry import ImageInput
from sie_frontend.manifest import dump_manifest, read_manifest
from sie_sdk import RequestError
from sie_triton_fastembed import ImageEmbedding, ModelNotServedError, TextEmbedding

from .conftest import DENSE, serving

CLIP = "openai/clip-vit-base-patch32"
VISION, TEXT = "Qdrant/clip-ViT-B-32-vision", "Qdrant/clip-ViT-B-32-text"
SIZE = 8


@pytest.fixture(scope="module")
def two_towers(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository of the texts, and the same model once more, with a tower for images."""
    folder = tmp_path_factory.mktemp("two-towers")
    for path in repository.rglob("tokenizer.json"):
        target = folder / path.relative_to(repository)
        target.parent.mkdir(parents=True)
        target.write_bytes(path.read_bytes())
    manifest = read_manifest(repository)
    model = manifest.models[DENSE]
    text = model.inputs["text"]
    reads = ImageInput("pixels", SIZE, "squash", "bicubic", "CLIPAdapter requires either text or images input")
    image = msgspec.structs.replace(text, triton_model=f"{text.triton_model}.image", reads=reads)
    both = {"text": text, "image": image}
    manifest.models[CLIP] = msgspec.structs.replace(model, inputs=both, declared_inputs=("text", "image"))
    (folder / "manifest.json").write_bytes(dump_manifest(manifest))
    return folder


@pytest.fixture
def url(two_towers: Path, triton: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with serving(two_towers, triton) as address:
        monkeypatch.setenv("SIE_BASE_URL", address)
        yield address


def pictures(count: int) -> list[Image.Image]:
    return [Image.fromarray(noise(20 + number, 11)) for number in range(count)]


def vector(picture: Image.Image) -> NDArray[np.float32]:
    """What Triton gives for a picture that Pillow alone has made ready."""
    return expected_of(np.asarray(picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)))


def test_a_path_a_file_and_an_image_of_pillow(url: str, tmp_path: Path) -> None:
    """Files travel as they are, also a JPEG, which would be another picture once it were written again."""
    (picture,) = pictures(1)
    path = tmp_path / "picture.jpg"
    path.write_bytes(encoded(picture, "JPEG"))
    with Image.open(path) as opened:
        decoded = opened.convert("RGB")
    model = ImageEmbedding(VISION)
    for given in (path, str(path), io.BytesIO(path.read_bytes()), decoded, Image.open(path)):
        (found,) = model.embed(given)
        assert found.shape == (DIM,) and found.dtype == np.float32
        np.testing.assert_array_equal(found, vector(decoded))
    found /= 2  # Fastembed's arrays can be written


def test_any_iterable_in_order_and_read_batch_by_batch(url: str) -> None:
    given, taken = pictures(40), 0

    def source() -> Iterator[Image.Image]:
        nonlocal taken
        for picture in given:
            taken += 1
            yield picture

    found, counts = [], []
    for one in ImageEmbedding(CLIP).embed(source(), batch_size=16):
        found.append(one)
        counts.append(taken)
    assert counts == [16] * 16 + [32] * 16 + [40] * 8
    for one, picture in zip(found, given, strict=True):
        np.testing.assert_array_equal(one, vector(picture))
    together = list(ImageEmbedding(CLIP).embed(given, batch_size=3, parallel=4))
    np.testing.assert_array_equal(together, found)
    assert list(ImageEmbedding(CLIP).embed([])) == []


def test_every_mode_of_pillow_and_a_format_that_the_server_does_not_read(url: str, tmp_path: Path) -> None:
    picture = Image.fromarray(noise(30, 17, 4), "RGBA")
    given: list[Any] = [picture.convert(mode) for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "F")]
    picture.convert("RGB").save(tmp_path / "picture.ppm")
    found = list(ImageEmbedding(CLIP).embed([*given, tmp_path / "picture.ppm"]))
    for one, right in zip(found, [*given, picture], strict=True):
        np.testing.assert_array_equal(one, vector(right))


def test_what_cannot_be_read(url: str, tmp_path: Path) -> None:
    model = ImageEmbedding(CLIP)
    with pytest.raises(FileNotFoundError):
        list(model.embed(tmp_path / "none.png"))
    (tmp_path / "text.png").write_bytes(b"<svg/>")
    with pytest.raises(OSError, match="cannot identify image file"):
        list(model.embed(tmp_path / "text.png"))
    (tmp_path / "cut.png").write_bytes(encoded(pictures(1)[0], "PNG")[:60])
    with pytest.raises(RequestError, match="not a decodable image"):
        list(model.embed(tmp_path / "cut.png"))


def test_sizes_names_and_what_is_listed(url: str) -> None:
    model = ImageEmbedding(VISION.lower(), cache_dir="somewhere", threads=3, lazy_load=True)
    assert (model.model_name, model.cache_dir, model.threads) == (VISION.lower(), "somewhere", 3)
    assert model.embedding_size == DIM == ImageEmbedding.get_embedding_size(VISION)
    assert [entry["model"] for entry in ImageEmbedding.list_supported_models()] == [CLIP]
    assert {entry["model"] for entry in TextEmbedding.list_supported_models()} == {CLIP, DENSE}


def test_texts_of_the_same_space(url: str) -> None:
    """Fastembed's name for the tower of texts is the same model here."""
    (one,), (other,) = TextEmbedding(TEXT).embed("the cell"), TextEmbedding(CLIP).embed("the cell")
    np.testing.assert_allclose(one / np.linalg.norm(one), other / np.linalg.norm(other), atol=1e-6)


def test_a_model_that_reads_no_images(url: str) -> None:
    with pytest.raises(ModelNotServedError, match=r"reads text at .*, and no images: use TextEmbedding"):
        ImageEmbedding(DENSE)
    with pytest.raises(ModelNotServedError, match=f"which has `{CLIP}` for ImageEmbedding"):
        ImageEmbedding("acme/unknown")


@pytest.mark.parametrize("name", ["Qdrant/resnet50-onnx", "Qdrant/Unicom-ViT-B-16", "nomic-ai/nomic-embed-vision-v1.5"])
def test_a_model_of_images_that_never_will_be(name: str, url: str) -> None:
    with pytest.raises(ModelNotServedError, match="keep Fastembed's class for it") as raised:
        ImageEmbedding(name)
    assert "sie-triton up" not in str(raised.value)
