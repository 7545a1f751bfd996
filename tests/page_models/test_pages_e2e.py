"""Two page models behind one real server, beside transformers' own classes and processors."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from compiler.command import sie_triton
from e2e.processes import Serving
from frontend.pictures import encoded
from PIL import Image
from sie_frontend.outputs.muvera import MuveraConfig, encode_tokens
from sie_frontend.rows import Array
from sie_sdk import SIEClient
from sie_sdk.errors import RequestError
from sie_sdk.types import Item
from transformers import (
    AutoTokenizer,
    ColPaliProcessor,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    SiglipImageProcessorPil,
)

from . import idefics3
from .checkpoints import WIDTH, write_colpali
from .idefics3 import END, write_colsmol
from .test_colpali_graphs import bundle_text
from .test_colsmol_graphs import ADAPTER, POSITIONS, prepared, seen

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
# One of them in every run: they differ in their graphs and in what reads queries, which other tests see to.
NAMES = ["colsmol", *(["colpali"] if os.environ.get("SIE_TRITON_ALL_RECIPES") else [])]
QUERIES = ("total revenue", "What is in the table?", "")
SIZES = ((50, 80), (28, 28), (300, 40))
MUVERA = MuveraConfig(num_repetitions=4, num_simhash_projections=2, final_projection_dim=64)


@dataclass(frozen=True)
class Told:
    """A model's id, and what another implementation makes of every page and of every query, each by itself."""

    model: str
    pages: list[Array]
    queries: list[Array]


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    random = np.random.default_rng(3)
    return [Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in SIZES]


@pytest.fixture(scope="module")
def colpali(tmp_path_factory: pytest.TempPathFactory, pictures: list[Image.Image]) -> tuple[Path, Told]:
    folder = tmp_path_factory.mktemp("colpali")
    model = write_colpali(folder, older=True)
    images = SiglipImageProcessorPil.from_pretrained(folder)
    processor = ColPaliProcessor(images, AutoTokenizer.from_pretrained(folder))
    with torch.inference_mode():
        pages = [model(**processor(images=[picture])).embeddings[0].numpy() for picture in pictures]
        queries = [model(**processor(text=[text])).embeddings[0].numpy() for text in QUERIES]
    return folder, Told("acme/colpali", pages, queries)


@pytest.fixture(scope="module")
def colsmol(tmp_path_factory: pytest.TempPathFactory, pictures: list[Image.Image]) -> tuple[Path, Told]:
    folder = tmp_path_factory.mktemp("colsmol")
    model = write_colsmol(folder)
    images = Idefics3ImageProcessorPil.from_pretrained(folder)
    processor = Idefics3Processor(images, AutoTokenizer.from_pretrained(folder), image_seq_len=POSITIONS)
    pages = [seen(model, prepared(folder, picture))[0] for picture in pictures]
    texts = [processor(text=[text + END * 10], return_tensors="pt") for text in QUERIES]
    return folder, Told("acme/colsmol", pages, [seen(model, dict(text))[0] for text in texts])


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest) -> dict[str, tuple[Path, Told]]:
    """By name: the checkpoint of each model, and what is told of it."""
    return {name: request.getfixturevalue(name) for name in NAMES}


@pytest.fixture(scope="module")
def url(served: dict[str, tuple[Path, Told]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("serving")
    (root / "bundles").mkdir()
    for folder, told in served.values():
        width, adapter = (idefics3.WIDTH, ADAPTER) if told.model == "acme/colsmol" else (WIDTH, "ColPaliAdapter")
        text = bundle_text(folder, width, adapter, told.model)
        (root / "bundles" / f"{folder.name}.yaml").write_text(text, encoding="utf-8")
    named = [part for _, told in served.values() for part in ("-m", told.model)]
    done = sie_triton("build", "--bundles", root / "bundles", *named, "--device", "cpu", "-r", root / "repository")
    assert done.code == 0, done.stderr
    server = Serving(root / "repository", root / "log")
    server.wait_ready()
    yield server.url
    assert server.stop() == 0


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[SIEClient]:
    with SIEClient(url) as made:
        yield made


@pytest.fixture(scope="module", params=NAMES)
def told(request: pytest.FixtureRequest, served: dict[str, tuple[Path, Told]]) -> Told:
    return served[request.param][1]


def png(picture: Image.Image) -> bytes:
    return encoded(picture, "PNG")


def assert_close(ours: Array, wanted: Array) -> None:
    assert ours.shape == wanted.shape
    np.testing.assert_allclose(ours, wanted, atol=2e-5, rtol=0)


def test_pages_and_texts_of_one_request(client: SIEClient, pictures: list[Image.Image], told: Told) -> None:
    """In their order; several pages of one item are joined, and images win over a text that is no query."""
    items = [
        Item(images=[png(pictures[0])]),
        Item(text=QUERIES[0]),
        Item(images=[png(picture) for picture in pictures], text="not read"),
        Item(text=QUERIES[2]),
    ]
    found = client.encode(told.model, items, output_types=["multivector"])
    wanted = (told.pages[0], told.queries[0], np.concatenate(told.pages), told.queries[2])
    for one, right in zip(found, wanted, strict=True):
        assert_close(one["multivector"], right)


def test_a_page_is_the_same_beside_others(client: SIEClient, pictures: list[Image.Image], told: Told) -> None:
    """As many rows and the same numbers, whatever shares its run."""
    data = [png(picture) for picture in pictures]
    many = client.encode(told.model, [Item(images=[one]) for one in data * 4], output_types=["multivector"])
    for number, one in enumerate(many):
        assert_close(one["multivector"], told.pages[number % 3])


def test_a_querys_text_is_read_although_it_has_images(
    client: SIEClient, pictures: list[Image.Image], told: Told
) -> None:
    item = Item(text=QUERIES[1], images=[png(pictures[1])])
    found = client.encode(told.model, item, output_types=["multivector"], is_query=True, instruction="no effect")
    assert_close(found["multivector"], told.queries[1])


def test_muvera_makes_one_vector_of_several_pages(client: SIEClient, pictures: list[Image.Image], told: Told) -> None:
    item = Item(images=[png(pictures[0]), png(pictures[2])])
    page = client.encode(f"{told.model}:muvera", item)["dense"]
    query = client.encode(f"{told.model}:muvera", Item(text=QUERIES[0]), is_query=True)["dense"]
    joined = np.concatenate([told.pages[0], told.pages[2]])
    np.testing.assert_allclose(page, encode_tokens(joined, MUVERA, is_query=False), atol=1e-3)
    np.testing.assert_allclose(query, encode_tokens(told.queries[0], MUVERA, is_query=True), atol=1e-3)


def test_a_page_on_openais_route(url: str, client: SIEClient, pictures: list[Image.Image], told: Told) -> None:
    """One vector, by MUVERA, of a page as a data URL; a model of many vectors has none there."""
    data = png(pictures[0])
    body = {"input": "data:image/png;base64," + base64.b64encode(data).decode(), "encoding_format": "float"}
    found = httpx.post(f"{url}/v1/embeddings", json={**body, "model": f"{told.model}:muvera"}, timeout=60)
    wanted = client.encode(f"{told.model}:muvera", Item(images=[data]))["dense"]
    np.testing.assert_allclose(found.json()["data"][0]["embedding"], wanted, atol=1e-6)
    assert httpx.post(f"{url}/v1/embeddings", json={**body, "model": told.model}, timeout=60).status_code == 400


def test_what_has_nothing_to_read(client: SIEClient, pictures: list[Image.Image], told: Told) -> None:
    with pytest.raises(RequestError, match="Adapter requires either text or images input"):
        client.encode(told.model, Item(id="empty"), output_types=["multivector"])
    with pytest.raises(
        RequestError, match=r"image data is not a decodable image - at `\$.items\[0\].images\[0\].data`"
    ):
        client.encode(told.model, Item(images=[b"\x89PNG\r\n\x1a\n"]), output_types=["multivector"])


def test_queries_without_a_text(client: SIEClient, pictures: list[Image.Image], told: Told) -> None:
    """ColPali reads the page then, and ColSmol refuses, as in SIE."""
    item = Item(images=[png(pictures[1])])
    if told.model == "acme/colpali":
        found = client.encode(told.model, item, output_types=["multivector"], is_query=True)
        assert_close(found["multivector"], told.pages[1])
        return
    with pytest.raises(RequestError, match="ColSmolAdapter requires either text or images input"):
        client.encode(told.model, item, output_types=["multivector"], is_query=True)


def test_the_page_can_be_followed(
    url: str,
    pictures: list[Image.Image],
    colsmol: tuple[Path, Told],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "pages.md").read_text(encoding="utf-8"), re.DOTALL)
    for number, picture in enumerate(pictures[:2], start=1):
        picture.save(tmp_path / f"page-{number}.png")
    monkeypatch.chdir(tmp_path)
    told: dict[str, Any] = {}
    program = program.replace("http://localhost:8080", url).replace("vidore/colSmol-256M", colsmol[1].model)
    exec(program, told)
    query, *_ = colsmol[1].queries
    wanted = [float((query @ page.T).max(axis=1).sum()) for page in colsmol[1].pages[:2]]
    # The SDK sends files as JPEG, so that vectors are a little off.
    np.testing.assert_allclose(told["scores"], wanted, rtol=0.05)
