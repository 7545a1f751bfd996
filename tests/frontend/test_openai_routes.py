"""`/v1/embeddings` and `/v1/models` as OpenAI's clients use them, over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from compiler import tiny
from sie_frontend.contract.errors import WireError, model_loading, queue_full
from sie_frontend.http.dialects.openai import MAX_INPUTS
from sie_frontend.serving import bulk
from sie_frontend.serving.bulk import in_parts
from starlette.requests import ClientDisconnect

from frontend.conftest import Service
from frontend.fake_triton import FakeTriton, expected
from frontend.repository import WORDS, token_ids
from frontend.wire import answer, encode, texts

ROUTE = "/v1/embeddings"


def many(count: int) -> list[str]:
    """Texts of which neighbours differ, and some are equal."""
    return [" ".join(WORDS[number % 13 :][: 1 + number % 5]) for number in range(count)]


async def embed(client: httpx.AsyncClient, given: object, **fields: object) -> httpx.Response:
    return await client.post(ROUTE, json={"model": tiny.MODEL_ID, "input": given, **fields})


def error(response: httpx.Response) -> tuple[int, Any, Any, str]:
    told = response.json()["error"]
    return response.status_code, told["code"], told["param"], told["message"]


@pytest.mark.parametrize("count", [512, 513, 1025])
@pytest.mark.asyncio
async def test_any_number_of_inputs_is_answered_in_order_with_one_usage(
    count: int, service: Service, repository: Path
) -> None:
    given = many(count)
    async with service.open() as client:
        body = (await embed(client, given)).json()
    assert list(body) == ["object", "data", "model", "usage"]
    assert [entry["index"] for entry in body["data"]] == list(range(count))
    ids = {text: token_ids(repository, text) for text in set(given)}
    vectors = {text: expected(row) for text, row in ids.items()}
    for entry, text in zip(body["data"], given, strict=True):
        np.testing.assert_allclose(entry["embedding"], vectors[text], rtol=1e-5, atol=1e-6)
    tokens = sum(len(ids[text]) for text in given)
    assert (body["usage"]["prompt_tokens"], body["usage"]["total_tokens"]) == (tokens, tokens)


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
@pytest.mark.asyncio
async def test_an_answer_in_pieces_is_the_answer_in_one(encoding_format: str, service: Service) -> None:
    async with service.open() as client:
        whole = await embed(client, many(100), encoding_format=encoding_format)
    async with service.having(max_items=30).open() as client:
        pieces = await embed(client, many(100), encoding_format=encoding_format)
    assert "content-length" in whole.headers and "content-length" not in pieces.headers
    assert pieces.content == whole.content
    assert pieces.headers["content-type"] == whole.headers["content-type"] == "application/json"


@pytest.mark.asyncio
async def test_one_request_holds_no_more_of_the_queue_than_another(service: Service, triton: FakeTriton) -> None:
    peak = 0.0
    async with service.having(max_items=40, pending_items=60).open() as client:
        bulk_request = asyncio.ensure_future(embed(client, many(1000)))
        small = 0
        while not bulk_request.done():
            answer(await encode(client, texts("search", "the cell")))
            small += 1
            exposition = (await client.get("/metrics")).text
            lines = dict(line.rsplit(" ", 1) for line in exposition.splitlines() if not line.startswith("#"))
            peak = max(peak, float(lines["sie_frontend_pending_items"]))
        assert (await bulk_request).status_code == 200
    assert small > 3
    assert 0 < peak <= 60


@pytest.mark.asyncio
async def test_two_bulk_requests_wait_for_each_other(service: Service) -> None:
    """Either alone nearly fills the queue, so that parts find it full."""
    async with service.having(max_items=40, pending_items=70).open() as client:
        first = asyncio.ensure_future(embed(client, many(400)))
        await asyncio.sleep(0)
        while True:  # the first part of a request is told to retry, as any request is
            second = await embed(client, many(400))
            if second.status_code != 503:
                break
            assert (error(second)[1], second.headers["retry-after"]) == ("QUEUE_FULL", "1")
            await asyncio.sleep(0.01)  # a refusal does no I/O: without this nothing else would run
        assert ((await first).status_code, second.status_code) == (200, 200)
        assert (await first).json()["data"] == second.json()["data"]


@pytest.mark.asyncio
async def test_what_one_request_may_hold_is_bounded(service: Service, triton: FakeTriton) -> None:
    async with service.open() as client:
        told = error(await embed(client, ["a"] * (MAX_INPUTS + 1)))
    assert told[:3] == (400, "invalid_request", "input")
    assert f"at most {MAX_INPUTS}" in told[3]
    assert triton.runs == []


@pytest.mark.asyncio
async def test_parts_stop_where_one_fails_or_the_client_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "LOOK_S", 0.0)
    seen: list[list[int]] = []
    full = 3

    async def compute(part: Sequence[int]) -> list[int]:
        nonlocal full
        if part[0] == 4 and full:
            full -= 1
            raise queue_full("m")
        if part[0] == 8:
            raise model_loading("m")
        seen.append(list(part))
        return [number * 10 for number in part]

    async def here() -> bool:
        return False

    assert await in_parts(range(7), 4, compute, here) == [[0, 10, 20, 30], [40, 50, 60]]
    assert (full, seen) == (0, [[0, 1, 2, 3], [4, 5, 6]])
    full, seen = 1, []
    with pytest.raises(WireError, match="queue"):
        await in_parts(range(4, 6), 4, compute, here)
    with pytest.raises(WireError, match="loading"):
        await in_parts(range(12), 4, compute, here)

    async def after_the_first() -> bool:
        return bool(seen)

    seen = []
    with pytest.raises(ClientDisconnect):
        await in_parts(range(12), 4, compute, after_the_first)
    assert seen == [[0, 1, 2, 3]]
    monkeypatch.setattr(bulk, "PATIENCE_S", 0.0)
    full = 1000
    with pytest.raises(WireError, match="queue"):
        await in_parts(range(7), 4, compute, here)


@pytest.mark.asyncio
async def test_routing_headers_are_checked_as_on_the_other_routes(service: Service) -> None:
    async with service.having(machine_profile="L4-spot").open() as client:
        body = {"model": "nobody/knows", "input": []}
        remote = await client.post(ROUTE, json=body, headers={"x-sie-remote": "allow"})
        assert error(remote) == (400, "INVALID_INPUT", None, "X-SIE-Remote accepts only 'forbid'")
        other = await client.post(ROUTE, json=body, headers={"x-sie-machine-profile": "a100"})
        assert error(other)[:3] == (400, "INVALID_INPUT", None)
        assert error(other)[3].startswith("Request targets machine profile 'a100' but this worker is 'L4-spot'. ")
        assert (other.json()["error"]["requested_profile"], other.json()["error"]["worker_identity"]) == (
            "a100",
            "L4-spot",
        )
        good = {"model": tiny.MODEL_ID, "input": "cell"}
        named = {"x-sie-remote": "forbid", "x-sie-machine-profile": "l4-SPOT"}
        assert (await client.post(ROUTE, json=good, headers=named)).status_code == 200


@pytest.mark.asyncio
async def test_an_item_has_a_limit_here_too(service: Service) -> None:
    limit = 2 * 1024 * 1024
    words = "Field 'input[{}]' must hold at most 2097152 bytes of UTF-8 text"
    async with service.open() as client:
        assert (await embed(client, "a" * limit)).status_code == 200
        assert error(await embed(client, "a" * (limit + 1))) == (400, "invalid_request", "input", words.format(0))
        assert error(await embed(client, ["a", "é" * (limit // 2) + "e"]))[3] == words.format(1)


@pytest.mark.parametrize("dimensions", ["32", 32, 32.0, "32.0", " 32 ", None, "3_2", "+32"])
@pytest.mark.asyncio
async def test_dimensions_however_they_are_written(dimensions: object, service: Service) -> None:
    async with service.open() as client:
        response = await embed(client, "cell", dimensions=dimensions)
    assert response.status_code == 200
    assert len(response.json()["data"][0]["embedding"]) == 32


# Kinds and messages as pydantic 2.14 gives them for an `int | None`.
@pytest.mark.parametrize(
    ("written", "kind", "message"),
    [
        ('"x"', "int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
        ('""', "int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
        ('"32.5"', "int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
        ('"3e1"', "int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
        ('"32."', "int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
        ('"1__0"', "int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
        ("32.5", "int_from_float", "Input should be a valid integer, got a number with a fractional part"),
        ("1e999", "finite_number", "Input should be a finite number"),
        ("NaN", "finite_number", "Input should be a finite number"),
        ("[32]", "int_type", "Input should be a valid integer"),
        ("{}", "int_type", "Input should be a valid integer"),
    ],
)
@pytest.mark.asyncio
async def test_dimensions_that_are_no_number(written: str, kind: str, message: str, service: Service) -> None:
    body = f'{{"model":"{tiny.MODEL_ID}","input":"cell","dimensions":{written}}}'
    async with service.open() as client:
        response = await client.post(ROUTE, content=body, headers={"content-type": "application/json"})
    (mistake,) = response.json()["detail"]
    assert response.status_code == 422
    assert (mistake["type"], mistake["loc"], mistake["msg"]) == (kind, ["body", "dimensions"], message)


@pytest.mark.parametrize("dimensions", [16, "16", 16.0, True, -1, 10**30])
@pytest.mark.asyncio
async def test_other_dimensions_are_refused(dimensions: object, service: Service) -> None:
    async with service.open() as client:
        assert error(await embed(client, "cell", dimensions=dimensions))[:3] == (
            400,
            "unsupported_field",
            "dimensions",
        )


@pytest.mark.asyncio
async def test_a_body_without_a_content_type_is_no_json(service: Service) -> None:
    body = json.dumps({"model": tiny.MODEL_ID, "input": "cell"}).encode()
    async with service.open() as client:
        request = client.build_request("POST", ROUTE, content=body)
        assert "content-type" not in request.headers
        response = await client.send(request)
    (mistake,) = response.json()["detail"]
    assert (response.status_code, mistake["type"], mistake["loc"]) == (422, "model_attributes_type", ["body"])


@pytest.mark.asyncio
async def test_models_are_listed_in_both_shapes(service: Service) -> None:
    async with service.open() as client:
        listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [entry["id"] for entry in listed["data"]] == [model["name"] for model in listed["models"]]
    for entry in listed["data"]:
        assert list(entry) == ["id", "object", "created", "owned_by"]
        assert (entry["object"], entry["owned_by"]) == ("model", "acme")
        assert isinstance(entry["created"], int) and entry["created"] > 1_700_000_000


@pytest.mark.parametrize(
    ("method", "path", "route", "cure"),
    [
        ("POST", "/embeddings", "POST /v1/embeddings", "ends in /v1"),
        ("POST", "/v1/v1/embeddings", "POST /v1/embeddings", "ends in /v1, once"),
        ("POST", "/openai/deployments/x/embeddings/", "POST /v1/embeddings", "ends in /v1"),
        ("GET", "/models", "GET /v1/models", "ends in /v1"),
        ("POST", "/rerank", "POST /v1/rerank", "Cohere take the address alone"),
        ("POST", "/v1/v1/rerank", "POST /v1/rerank", "ends in /v1"),
        ("POST", "/v1/v1/encode/BAAI/bge-m3", "POST /v1/encode/{model}", "the address alone"),
        ("POST", "/embed", "POST /v1/embeddings", "TEI's path"),
        ("POST", "/api/embed", "POST /v1/embeddings", "Ollama's path"),
        ("POST", "/v1/chat/completions", "POST /v1/embeddings", "no model here writes text"),
    ],
)
@pytest.mark.asyncio
async def test_a_path_of_a_wrong_base_url_is_refused_with_the_right_one(
    method: str, path: str, route: str, cure: str, service: Service
) -> None:
    async with service.open() as client:
        response = await client.request(method, path, json={"model": tiny.MODEL_ID, "input": "t"})
    status, code, param, message = error(response)
    assert (status, code, param) == (404, "not_found", None)
    assert f"Near to it is {route}:" in message and cure in message
    assert message in response.json()["detail"]


@pytest.mark.asyncio
async def test_a_path_that_is_near_to_nothing_has_no_such_answer(service: Service) -> None:
    async with service.open() as client:
        for path in ("/nowhere", "/v1/audio/speech", "/embeddings" * 100):
            response = await client.post(path, json={})
            assert (response.status_code, [*response.json()]) == (404, ["detail"])
