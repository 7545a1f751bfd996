"""Recorded scoring requests, their very bytes, over HTTP to the application with a reranker behind it.

The recorded model scored otherwise than any text reranker, so numbers and token counts are not compared: ids, ranks,
order, fields, headers and refusals are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgpack
import numpy as np
import orjson
import pytest
from aiohttp import web
from contract.recorded import Exchange, exchanges
from frontend.conftest import Service
from frontend.fake_triton import FakeTriton, Run, tensors
from frontend.repository import write_repository
from replay import decoded_answer
from sie_frontend.settings import Settings

MODEL = "acme/fake-score"
BUNDLE = f"""\
sie_id: {MODEL}
hf_id: {MODEL}
tasks:
  score: {{}}
max_sequence_length: 48
profiles:
  default:
    max_batch_tokens: 1024
    adapter_path: sie_server.adapters.bert_flash_cross_encoder:BertFlashCrossEncoderAdapter
"""
SCORED = ("score_512", "score_dup_ids", "score_empty_id", "score_json", "score_msgpack")
MEASURED = {"x-queue-time", "x-tokenization-time", "x-inference-time", "x-total-time", "content-length"}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("score") / "repository", BUNDLE, num_labels=1)


@pytest.fixture
def service(repository: Path) -> Iterator[Service]:
    with FakeTriton() as triton:
        yield Service(Settings(repository=repository, triton_url=triton.url))


async def send(service: Service, exchange: Exchange) -> httpx.Response:
    async with service.open() as client:
        return await client.post(exchange.path, content=exchange.request_body, headers=dict(exchange.request_headers))


def decoded(response: httpx.Response) -> dict[str, Any]:
    read: dict[str, Any] = (
        msgpack.unpackb(response.content)
        if "msgpack" in response.headers["content-type"]
        else orjson.loads(response.content)
    )
    return read


@pytest.mark.asyncio
@pytest.mark.parametrize("name", SCORED)
async def test_a_ranking_is_answered_as_recorded(service: Service, name: str) -> None:
    exchange = exchanges()[name]
    response = await send(service, exchange)
    assert response.status_code == exchange.status == 200, response.text
    assert response.headers.keys() == exchange.response_headers.keys()
    for header in exchange.response_headers.keys() - MEASURED - {"x-sie-runtime-instance", "x-sie-server-version"}:
        assert response.headers[header] == exchange.response_headers[header]
    ours, theirs = decoded(response), decoded_answer(exchange)
    assert list(ours) == list(theirs)
    assert (ours["model"], ours["query_id"]) == (theirs["model"], theirs["query_id"])
    assert sorted(entry["item_id"] for entry in ours["scores"]) == sorted(
        entry["item_id"] for entry in theirs["scores"]
    )
    _check_ranking(ours)


@pytest.mark.asyncio
async def test_a_query_without_text_is_refused_as_recorded_in_the_words_of_the_recipe(
    service: Service,
) -> None:
    """The recorded message is the fake adapter's own; a real one has its own words too."""
    exchange = exchanges()["score_query_no_text"]
    response = await send(service, exchange)
    assert response.status_code == exchange.status == 400
    assert response.headers.keys() == exchange.response_headers.keys()
    recorded = orjson.loads(exchange.response_body)["detail"]
    assert decoded(response) == {"detail": {**recorded, "message": "BertFlashCrossEncoder requires text input"}}


@pytest.mark.asyncio
async def test_options_that_no_reranker_reads_are_ignored(service: Service) -> None:
    """The recorded 500 is the fake adapter's, which takes no options at all; real ones ignore what they do not know."""
    exchange = exchanges()["score_options_nonempty_default_delegate"]
    response = await send(service, exchange)
    assert exchange.status == 500
    assert response.status_code == 200
    plain = decoded(await send(service, exchanges()["score_msgpack"]))
    assert decoded(response) == plain
    _check_ranking(plain)


@pytest.mark.asyncio
async def test_a_pair_that_is_not_finite_is_named(repository: Path) -> None:
    async def infinite(run: Run) -> web.StreamResponse:
        scores = np.zeros((len(run.rows), 1), np.float32)
        scores[[len(row) > 10 for row in run.rows]] = np.inf
        return tensors(run, dict.fromkeys(run.outputs, scores))

    body = {"query": {"text": "the cell"}, "items": [{"text": "a"}, {"text": "the cell is a power house of the cell"}]}
    with FakeTriton(answer=infinite) as triton:
        service = Service(Settings(repository=repository, triton_url=triton.url))
        async with service.open() as client:
            response = await client.post(f"/v1/score/{MODEL}", json=body)
            good = await client.post(f"/v1/score/{MODEL}", json={**body, "items": [{"text": "a"}]})
    assert good.status_code == 200
    assert response.status_code == 500
    assert response.json()["detail"]["code"] == "INFERENCE_ERROR"
    assert response.json()["detail"]["message"].startswith(
        f"Model '{MODEL}' produced non-finite scores: `query + items[1]` gave"
    )


def _check_ranking(answer: dict[str, Any]) -> None:
    scores = [entry["score"] for entry in answer["scores"]]
    assert scores == sorted(scores, reverse=True)
    assert [entry["rank"] for entry in answer["scores"]] == list(range(len(scores)))
