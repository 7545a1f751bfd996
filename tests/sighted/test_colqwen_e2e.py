"""ColQwen2.5, a LoRA adapter of Qwen2.5-VL, behind the real server: beside transformers, with the adapter unmerged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from e2e.processes import Serving
from PIL import Image
from safetensors.torch import load_file
from sie_frontend.manifest import read_manifest
from sie_frontend.rows import Array
from sie_sdk import SIEClient
from sie_sdk.errors import RequestError
from sie_sdk.types import Item
from transformers import AutoTokenizer, Qwen2_5_VLModel, Qwen2VLImageProcessorPil

from .checkpoints import DIM, PAGES, PROJECTION
from .test_qwen3_vl_e2e import png

pytestmark = pytest.mark.e2e
PAGE = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|><|endoftext|>"


class ColQwen:
    """The base model with the adapter beside its layers, as PEFT computes it before anything is merged."""

    def __init__(self, folder: Path) -> None:
        base, adapter = folder / "base", folder / "adapter"
        self.model: Any = Qwen2_5_VLModel.from_pretrained(base).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(adapter)
        bounds = {"shortest_edge": 256 * 28 * 28, "longest_edge": 768 * 28 * 28}
        self.images: Any = Qwen2VLImageProcessorPil.from_pretrained(adapter, size=bounds)
        weights = load_file(base / "model.safetensors")
        self.projection = torch.nn.Linear(weights[f"{PROJECTION}.weight"].shape[1], DIM)
        self.projection.weight.data = weights[f"{PROJECTION}.weight"]
        self.projection.bias.data = weights[f"{PROJECTION}.bias"]
        told = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = load_file(adapter / "adapter_model.safetensors")
        self.adapted = 0
        for name in sorted({key.rpartition(".lora_")[0] for key in tensors}):
            path = name.removeprefix("base_model.model.")
            layer = self.projection
            if path != PROJECTION:
                layer = self.model.get_submodule(f"language_model.{path.removeprefix('model.')}")
            first, second = (tensors[f"{name}.lora_{part}.weight"] for part in "AB")
            scale = told["lora_alpha"] / told["r"]

            def add(_: Any, given: Any, made: Any, a: Any = first, b: Any = second, s: float = scale) -> Any:
                return made + given[0] @ a.T @ b.T * s

            layer.register_forward_hook(add)
            self.adapted += 1

    def __call__(self, prompt: str, picture: Image.Image | None = None) -> Array:
        given: dict[str, Any] = {}
        if picture is not None:
            given = dict(self.images(picture, return_tensors="pt"))
            squares = int(given["image_grid_thw"].prod()) // 4
            prompt = prompt.replace("<|image_pad|>", "<|image_pad|>" * squares)
        ids = self.tokenizer(prompt, return_tensors="pt")["input_ids"]
        given["mm_token_type_ids"] = (ids == self.model.config.image_token_id).int()
        with torch.inference_mode():
            found = self.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **given)
            vectors = self.projection(found.last_hidden_state[0])
        made: Array = torch.nn.functional.normalize(vectors, dim=-1).numpy()
        return made

    def text(self, text: str) -> Array:
        return self(text + "<|endoftext|>" * 10)


@pytest.fixture(scope="module")
def told(root: Path) -> ColQwen:
    return ColQwen(root / "pages")


@pytest.fixture(scope="module")
def client(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SIEClient]:
    server = Serving(root / "repository", tmp_path_factory.mktemp("pages"))
    server.wait_ready()
    with SIEClient(server.url) as made:
        yield made
    assert server.stop() == 0


@pytest.fixture(scope="module")
def pages() -> list[Image.Image]:
    random = np.random.default_rng(4)
    return [Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ((90, 60), (30, 200))]


def vectors(client: SIEClient, item: Item, **more: Any) -> Array:
    found: Array = client.encode(PAGES, item, output_types=["multivector"], **more)["multivector"]
    return found


def test_the_adapter_is_merged_into_every_layer_that_it_names(root: Path, told: ColQwen) -> None:
    assert told.adapted == 3 * 7 + 1
    built = read_manifest(root / "repository").built["acme__pages"]
    assert any("(LoRA)" in line for line in built.certificate.not_compared)
    assert any("keeps what stands behind it" in line for line in built.certificate.departures)
    assert set(built.triton_models) == {"acme__pages"}


def test_queries_and_pages(client: SIEClient, told: ColQwen, pages: list[Image.Image]) -> None:
    """A query has ten end tokens behind it; a page is a picture in a prompt, and images win over a text."""
    found = vectors(client, Item(text="total revenue"), is_query=True)
    np.testing.assert_allclose(found, told.text("total revenue"), atol=1e-5, rtol=0)
    for page in pages:
        right = told(PAGE, page)
        found = vectors(client, Item(text="unread", images=[png(page)]))
        assert found.shape == right.shape
        np.testing.assert_allclose(found, right, atol=1e-5, rtol=0)


def test_several_pages_are_joined_in_order(client: SIEClient, told: ColQwen, pages: list[Image.Image]) -> None:
    data = [png(page) for page in pages]
    items = [Item(images=data), Item(text="and a text"), Item(images=data[1:])]
    found = [result["multivector"] for result in client.encode(PAGES, items, output_types=["multivector"])]
    right = [told(PAGE, page) for page in pages]
    np.testing.assert_allclose(found[0], np.concatenate(right), atol=1e-5, rtol=0)
    np.testing.assert_allclose(found[1], told.text("and a text"), atol=1e-5, rtol=0)
    np.testing.assert_allclose(found[2], right[1], atol=1e-5, rtol=0)


def test_a_query_is_read_by_its_text(client: SIEClient, told: ColQwen, pages: list[Image.Image]) -> None:
    item = Item(text="embed", images=[png(pages[0])])
    found = vectors(client, item, is_query=True)
    np.testing.assert_allclose(found, told.text("embed"), atol=1e-5, rtol=0)


def test_muvera_makes_one_vector(client: SIEClient, pages: list[Image.Image]) -> None:
    found = client.encode(f"{PAGES}:muvera", [Item(images=[png(pages[0])]), Item(text="sparse")])
    assert [result["dense"].shape for result in found] == [(64,), (64,)]


def test_what_is_no_page_is_refused(client: SIEClient) -> None:
    for item, said in (
        (Item(), "ColQwen2Adapter requires either text or images input"),
        (Item(text="a <|image_pad|>"), "must not hold the model's own token"),
        (Item(images=[png(Image.new("RGB", (403, 2)))]), "one side may be at most 200 times the other"),
    ):
        with pytest.raises(RequestError, match=said):
            vectors(client, item)
