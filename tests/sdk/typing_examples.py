"""What type checkers infer; checked by mypy, never run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sie_sdk import SIEAsyncClient, SIEClient
from sie_sdk.encoding import dense_embedding
from sie_sdk.scoring import maxsim, maxsim_batch
from sie_sdk.types import EncodeResult, Item, ModelInfo, ScoreEntry, ScoreResult
from typing_extensions import assert_type


def one_item_gives_one_result(client: SIEClient) -> None:
    result = client.encode("m", Item(text="x"))
    assert_type(result, EncodeResult)
    assert_type(result["dense"], NDArray[Any])
    assert_type(result["sparse"]["indices"], NDArray[np.int32])
    assert_type(client.encode("m", {"text": "x"}, is_query=True, output_types=["dense", "sparse"]), EncodeResult)
    assert_type(dense_embedding(result), list[float])


def a_list_gives_a_list(client: SIEClient) -> None:
    assert_type(client.encode("m", [Item(text="x")]), list[EncodeResult])
    assert_type(client.encode("m", [{"text": "x"}, {"images": [b"...", "a.png"]}]), list[EncodeResult])


def scores(client: SIEClient) -> None:
    ranked = client.score("m", Item(text="q"), [Item(text="a")], options={"score_mode": "hybrid"})
    assert_type(ranked, ScoreResult)
    assert_type(ranked["scores"], list[ScoreEntry])
    assert_type(ranked["scores"][0]["score"], float)


def models(client: SIEClient) -> None:
    assert_type(client.list_models(), list[ModelInfo])
    assert_type(client.get_model("m")["dims"]["dense"], int)


def context_managers() -> None:
    with SIEClient("http://localhost:8080", api_key="k", gpu="l4", pool={"name": "p"}) as client:
        assert_type(client, SIEClient)


async def asynchronous() -> None:
    async with SIEAsyncClient("http://localhost:8080") as client:
        assert_type(client, SIEAsyncClient)
        assert_type(await client.encode("m", Item(text="x")), EncodeResult)
        assert_type(await client.encode("m", [Item(text="x")]), list[EncodeResult])
        assert_type(await client.score("m", Item(text="q"), []), ScoreResult)
        assert_type(await client.get_model("m"), ModelInfo)


def late_interaction(query: NDArray[np.float16], documents: list[NDArray[np.float32]]) -> None:
    assert_type(maxsim(query, documents), list[float])
    assert_type(maxsim_batch([query], documents), NDArray[np.float32])
