from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sie_sdk import SIEAsyncClient, SIEClient
from sie_sdk.types import Item

from e2e.conftest import BGE, MINILM
from e2e.corpus import UNICODE, mixed_texts, transformers_vectors, worst

pytestmark = pytest.mark.e2e

LENGTHS = [" ".join(["word"] * n) for n in (1, 2, 3, 7, 13, 14, 15, 29, 30, 31, 126, 127, 253, 254, 255, 256, 300, 600)]


def vectors(client: SIEClient, model: str, texts: list[str], **options: object) -> list[NDArray[Any]]:
    results = client.encode(model, [Item(text=text) for text in texts], options=dict(options))
    return [np.asarray(result["dense"]) for result in results]


@pytest.mark.parametrize(("model", "pooling", "limit"), [(MINILM, "mean", 256), (BGE, "cls", 128)])
def test_vectors_are_those_of_transformers(
    model: str, pooling: str, limit: int, url: str, minilm: Path, bge_stand_in: Path
) -> None:
    texts = [*UNICODE, *LENGTHS, *mixed_texts(40, seed=1, longest=400)]
    checkpoint = minilm if model == MINILM else bge_stand_in
    reference = transformers_vectors(checkpoint, texts, pooling=pooling, max_length=limit)
    with SIEClient(url) as client:
        served = vectors(client, model, texts)
    assert {(vector.shape, vector.dtype) for vector in served} == {((384,), np.dtype(np.float32))}
    cosine, difference = worst(served, reference)
    assert cosine >= 0.99999
    assert difference <= 1e-5


def test_queries_get_the_bundles_template(url: str, bge_stand_in: Path) -> None:
    texts = ["what is a cell", "who knows"]
    prefixed = [f"Represent this sentence for searching relevant passages: {text}" for text in texts]
    reference = transformers_vectors(bge_stand_in, prefixed, pooling="cls", max_length=128)
    with SIEClient(url) as client:
        cosine, _ = worst(vectors(client, BGE, texts, is_query=True), reference)
        unlike, _ = worst(vectors(client, BGE, texts), reference)
    assert cosine >= 0.99999
    assert unlike < 0.999


def test_the_known_answer(url: str) -> None:
    with SIEClient(url) as client:
        (vector,) = vectors(client, MINILM, ["The mitochondrion is the powerhouse of the cell."])
    np.testing.assert_allclose(vector[:4], [-0.0478733, 0.0541967, -0.0680890, 0.0471586], atol=2e-6)


def test_singly_in_a_list_and_concurrently_are_the_same(url: str) -> None:
    texts = mixed_texts(200, seed=2)
    with SIEClient(url) as client:
        singly = [np.asarray(client.encode(MINILM, Item(text=text))["dense"]) for text in texts]
        in_a_list = vectors(client, MINILM, texts)

    async def concurrently() -> list[NDArray[Any]]:
        async with SIEAsyncClient(url) as client:
            results = await asyncio.gather(*(client.encode(MINILM, Item(text=text)) for text in texts))
        return [np.asarray(result["dense"]) for result in results]

    together = asyncio.run(concurrently())
    for other in (in_a_list, together):
        _, difference = worst(singly, other)
        assert difference <= 1e-5
    # The texts all differ, so a mix-up could not hide.
    assert len({vector.tobytes() for vector in singly}) == 200
