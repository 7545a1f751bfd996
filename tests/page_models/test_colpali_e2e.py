"""A page model behind the real server, beside transformers' own class and processor."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from e2e.processes import Serving, sie_triton
from PIL import Image
from sie_frontend.outputs.muvera import MuveraConfig, encode_tokens
from sie_frontend.rows import Array
from sie_sdk import SIEClient
from sie_sdk.errors import RequestError
from sie_sdk.types import Item
from transformers import AutoTokenizer, ColPaliForRetrieval, ColPaliProcessor, SiglipImageProcessorPil

from .checkpoints import write_colpali
from .test_colpali_graphs import bundle_text

pytestmark = pytest.mark.e2e

MODEL = "acme/pages"
QUERIES = ("total revenue", "What is in the table?", "")
SIZES = ((50, 80), (28, 28), (300, 40))
MUVERA = MuveraConfig(num_repetitions=4, num_simhash_projections=2, final_projection_dim=64)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    write_colpali(folder / "checkpoint", older=True)
    return folder


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[SIEClient]:
    (root / "bundles").mkdir()
    (root / "bundles" / "pages.yaml").write_text(bundle_text(root / "checkpoint"), encoding="utf-8")
    chosen = ("--bundles", root / "bundles", "-m", MODEL, "--device", "cpu")
    done = sie_triton("build", *chosen, "-r", root / "repository")
    assert done.returncode == 0, done.stderr
    server = Serving(root / "repository", root / "serving")
    server.wait_ready()
    with SIEClient(server.url) as made:
        yield made
    assert server.stop() == 0


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    random = np.random.default_rng(3)
    return [Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in SIZES]


@pytest.fixture(scope="module")
def theirs(root: Path, pictures: list[Image.Image]) -> tuple[list[Array], list[Array]]:
    """The vectors of every page and of every query, each by itself."""
    folder = root / "checkpoint"
    model = ColPaliForRetrieval.from_pretrained(folder).eval()
    images = SiglipImageProcessorPil.from_pretrained(folder)
    processor = ColPaliProcessor(images, AutoTokenizer.from_pretrained(folder))
    with torch.inference_mode():
        pages = [model(**processor(images=[picture])).embeddings[0].numpy() for picture in pictures]
        queries = [model(**processor(text=[text])).embeddings[0].numpy() for text in QUERIES]
    return pages, queries


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def assert_close(ours: Array, wanted: Array) -> None:
    assert ours.shape == wanted.shape
    np.testing.assert_allclose(ours, wanted, atol=2e-5, rtol=0)


def test_pages_and_texts_of_one_request(
    client: SIEClient, pictures: list[Image.Image], theirs: tuple[list[Array], list[Array]]
) -> None:
    """In their order; several pages of one item are joined, and images win over a text that is no query."""
    pages, queries = theirs
    items = [
        Item(images=[png(pictures[0])]),
        Item(text=QUERIES[0]),
        Item(images=[png(picture) for picture in pictures], text="not read"),
        Item(text=QUERIES[2]),
    ]
    found = client.encode(MODEL, items, output_types=["multivector"])
    wanted = (pages[0], queries[0], np.concatenate(pages), queries[2])
    for one, right in zip(found, wanted, strict=True):
        assert_close(one["multivector"], right)


def test_a_querys_text_is_read_although_it_has_images(
    client: SIEClient, pictures: list[Image.Image], theirs: tuple[list[Array], list[Array]]
) -> None:
    pages, queries = theirs
    items = [Item(text=QUERIES[1], images=[png(pictures[1])]), Item(images=[png(pictures[1])])]
    found = client.encode(MODEL, items, output_types=["multivector"], is_query=True, instruction="no effect")
    assert_close(found[0]["multivector"], queries[1])
    assert_close(found[1]["multivector"], pages[1])


def test_muvera_makes_one_vector_of_several_pages(
    client: SIEClient, pictures: list[Image.Image], theirs: tuple[list[Array], list[Array]]
) -> None:
    pages, queries = theirs
    item = Item(images=[png(pictures[0]), png(pictures[2])])
    page = client.encode(f"{MODEL}:muvera", item)["dense"]
    query = client.encode(f"{MODEL}:muvera", Item(text=QUERIES[0]), is_query=True)["dense"]
    joined = np.concatenate([pages[0], pages[2]])
    np.testing.assert_allclose(page, encode_tokens(joined, MUVERA, is_query=False), atol=1e-3)
    np.testing.assert_allclose(query, encode_tokens(queries[0], MUVERA, is_query=True), atol=1e-3)


def test_what_has_nothing_to_read(client: SIEClient) -> None:
    with pytest.raises(RequestError, match="ColPaliAdapter requires either text or images input"):
        client.encode(MODEL, Item(id="empty"), output_types=["multivector"])
    with pytest.raises(
        RequestError, match=r"image data is not a decodable image - at `\$.items\[0\].images\[0\].data`"
    ):
        client.encode(MODEL, Item(images=[b"\x89PNG\r\n\x1a\n"]), output_types=["multivector"])
