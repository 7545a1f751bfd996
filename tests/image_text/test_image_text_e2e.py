"""A model for images and texts behind the real server, beside transformers' own model and processors."""

from __future__ import annotations

import io
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from e2e.processes import Serving
from PIL import Image
from sie_frontend.rows import Array
from sie_sdk import SIEClient
from sie_sdk.errors import RequestError
from sie_sdk.types import Item
from sie_triton_fastembed import ImageEmbedding
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from .builds import MODEL
from .checkpoints import SIZE, TINY
from .test_image_text_graphs import unit

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ("retrieval systems embed", "hello, WORLD", "")
SIZES = ((50, 80), (24, 24), (300, 40))


@pytest.fixture(scope="module")
def root(clip_root: Path) -> Path:
    return clip_root


@pytest.fixture(scope="module")
def url(clip_serving: Serving) -> str:
    return clip_serving.url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[SIEClient]:
    with SIEClient(url) as made:
        yield made


@pytest.fixture(scope="module")
def model(root: Path) -> CLIPModel:
    return CLIPModel.from_pretrained(root / "checkpoint").eval()


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    random = np.random.default_rng(3)
    return [Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in SIZES]


@pytest.fixture(scope="module")
def seen(model: CLIPModel, pictures: list[Image.Image], root: Path) -> Array:
    processor = CLIPImageProcessorPil.from_pretrained(root / "checkpoint")
    with torch.inference_mode():
        return unit(model.get_image_features(**processor(pictures, return_tensors="pt")))


@pytest.fixture(scope="module")
def read(model: CLIPModel, root: Path) -> Array:
    tokenizer = AutoTokenizer.from_pretrained(root / "checkpoint")
    given = [tokenizer([text], return_tensors="pt") for text in TEXTS]
    with torch.inference_mode():
        return np.concatenate([unit(model.get_text_features(**dict(one))) for one in given])


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_texts_and_images_of_one_request(
    client: SIEClient, pictures: list[Image.Image], seen: Array, read: Array
) -> None:
    """In their order; images win over a text, and several are the mean of their unit vectors, which has no length 1."""
    data = [png(picture) for picture in pictures]
    items = [
        Item(text=TEXTS[0]),
        Item(images=[data[0]]),
        Item(text=TEXTS[2]),
        Item(images=[data[1], data[2]]),
        Item(text="unread", images=[data[2]]),
        Item(text=TEXTS[1], images=[]),
    ]
    found = np.stack([result["dense"] for result in client.encode(MODEL, items)])
    expected = np.stack([read[0], seen[0], read[2], (seen[1] + seen[2]) / 2, seen[2], read[1]])
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    assert np.linalg.norm(found[3]) < 0.999


def test_options_of_texts_change_nothing(client: SIEClient, read: Array) -> None:
    options = {"query_template": "query: {text}", "normalize": False}
    found = client.encode(MODEL, Item(text=TEXTS[0]), options=options, instruction="find", is_query=True)
    np.testing.assert_allclose(found["dense"], read[0], atol=1e-5, rtol=0)


def test_an_item_that_gives_neither_is_refused(client: SIEClient) -> None:
    with pytest.raises(RequestError, match="CLIPAdapter requires either text or images input"):
        client.encode(MODEL, [Item(text="a text"), Item(id="nothing")])


def test_fastembeds_own_classes_give_the_same_vectors(
    url: str, root: Path, model: CLIPModel, pictures: list[Image.Image], tmp_path: Path
) -> None:
    """Fastembed's pipeline on a graph of transformers' own tower, under the name that it has for CLIP."""
    fastembed = pytest.importorskip("fastembed", reason="development dependency `fastembed`")
    export_vision(model, root / "checkpoint", tmp_path / "vision")
    theirs = fastembed.ImageEmbedding(
        "Qdrant/clip-ViT-B-32-vision", specific_model_path=str(tmp_path / "vision"), threads=1
    )
    files = [tmp_path / name for name in ("photo.jpg", "palette.gif", "clear.png")]
    pictures[2].save(files[0], quality=80)
    pictures[0].quantize(16).save(files[1])
    clear = Image.fromarray(np.random.default_rng(4).integers(0, 256, (33, 90, 4), dtype=np.uint8), "RGBA")
    clear.save(files[2])
    given: list[Any] = [*pictures, *files, str(files[0]), clear.convert("L")]
    ours = ImageEmbedding(MODEL, base_url=url)
    assert ours.embedding_size == TINY["projection_dim"]
    for size in (2, 16):
        left, right = (list(one.embed(given, batch_size=size)) for one in (ours, theirs))
        assert [(one.shape, one.dtype) for one in left] == [(one.shape, one.dtype) for one in right]
        np.testing.assert_allclose(left, right, atol=1e-5, rtol=0)


def export_vision(model: CLIPModel, checkpoint: Path, folder: Path) -> None:
    """What Fastembed reads: the vision tower as transformers computes it, and how its pictures are prepared."""
    folder.mkdir()
    shutil.copy(checkpoint / "preprocessor_config.json", folder)
    (folder / "config.json").write_text("{}", encoding="utf-8")

    class Vision(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.model.get_image_features(pixel_values=pixel_values).pooler_output
            return found

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Vision().eval(),
            (torch.zeros(2, 3, SIZE, SIZE),),
            folder / "model.onnx",
            dynamo=False,
            dynamic_axes={"pixel_values": {0: "batch"}, "image_embeds": {0: "batch"}},
            input_names=["pixel_values"],
            output_names=["image_embeds"],
            opset_version=18,
        )


def test_the_page_can_be_followed(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "images.md").read_text(encoding="utf-8")
    asking, seeing, preparing = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    colours = np.random.default_rng(7).integers(0, 256, (90, 131, 3), dtype=np.uint8)
    Image.fromarray(colours).resize((393, 270)).save(tmp_path / "dog.jpg")
    monkeypatch.chdir(tmp_path)
    told: dict[str, Any] = {}
    exec(asking.replace("http://localhost:8080", url).replace("openai/clip-vit-base-patch32", MODEL), told)
    assert [result["dense"].shape for result in told["found"]] == [(TINY["projection_dim"],)] * 2
    seen: dict[str, Any] = {}
    exec(seeing.replace("http://localhost:8080", url).replace("openai/clip-vit-base-patch32", MODEL), seen)
    np.testing.assert_allclose(seen["seen"]["dense"], told["found"][1]["dense"], atol=0.05)
    prepared: dict[str, Any] = {}
    exec(preparing, prepared)
    processor = CLIPImageProcessorPil(do_rescale=False, do_normalize=False)
    with Image.open("dog.jpg") as picture:
        wanted = processor(picture, return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
    assert prepared["pixels"].dtype == np.uint8
    np.testing.assert_array_equal(prepared["pixels"], wanted)
