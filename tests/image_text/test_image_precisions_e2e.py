"""A model for images and texts by OpenVINO, in bfloat16 where the processor multiplies it, behind the real server."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from e2e.processes import Serving
from PIL import Image
from sie_sdk import SIEClient
from sie_sdk.types import Item

from .builds import MODEL
from .precisions import HALVED, ITEMS, PRECISION, least_cosine, there
from .served import Reference

pytestmark = [pytest.mark.e2e, there]

TEXTS = ("retrieval systems embed", "hello, WORLD", "a text that is longer than the others, and then some more", "")
RANDOM = np.random.default_rng(9)
PICTURES = [
    Image.fromarray(RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8)).resize(size[::-1], Image.Resampling.BICUBIC)
    for size in ((50, 80), (24, 24), (300, 40), (31, 33), (90, 64))
]


@pytest.fixture(scope="module")
def client(clip_serving: Serving) -> Iterator[SIEClient]:
    with SIEClient(clip_serving.url) as made:
        yield made


def items() -> list[Item]:
    """Texts and pictures in turn."""
    found = [Item(text=text) for text in TEXTS]
    for place, picture in enumerate(PICTURES):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        found.insert(2 * place, Item(images=[buffer.getvalue()]))
    return found


def test_both_towers_are_those_of_transformers_alone_and_with_others(
    client: SIEClient, clip_serving: Serving, clip_root: Path
) -> None:
    reference = Reference(clip_root / "checkpoint")
    given = items()
    expected = np.empty((len(given), 20), np.float32)
    expected[[place for place, item in enumerate(given) if "images" in item]] = reference.seen(PICTURES)
    expected[[place for place, item in enumerate(given) if "images" not in item]] = reference.read(TEXTS)
    together = np.stack([result["dense"] for result in client.encode(HALVED, given)])
    assert least_cosine(together, expected) > 0.999
    alone = np.stack([client.encode(HALVED, item)["dense"] for item in given])
    assert least_cosine(alone, together) > 0.9999
    whole = np.stack([result["dense"] for result in client.encode(MODEL, given)])
    # Rounding that rounds nothing was none.
    assert (np.abs(together - whole).max(axis=1) > 1e-5).all() == (PRECISION == "bfloat16")
    with ThreadPoolExecutor(8) as threads:
        crowd = list(threads.map(lambda _: encoded(clip_serving.url, given), range(16)))
    assert min(least_cosine(one, together) for one in crowd) > 0.9999


def encoded(url: str, given: list[Item]) -> list[np.ndarray]:
    with SIEClient(url) as one:
        return [result["dense"] for result in one.encode(HALVED, given)]


def test_each_input_has_figures_of_its_own(clip_serving: Serving) -> None:
    told = httpx.get(f"{clip_serving.url}/v1/models/{HALVED}").json()["certificate"]
    assert told.keys() == {"text", "image"}
    for modality, corpus in (("text", "sentences of Python's documentation"), ("image", "pictures of leaves")):
        certificate = told[modality]
        assert certificate["precisions"] == {"cpu": PRECISION}
        assert certificate["distances"][PRECISION]["dense"]["min_cosine"] > 0.999
        if PRECISION == "bfloat16":
            nearest = certificate["nearest"]["bfloat16"]["dense"]
            assert nearest["texts"] == ITEMS and nearest["corpus"].startswith(corpus)
            assert min(nearest["alike"], nearest["mixed"]) >= 0.3
