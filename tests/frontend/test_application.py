from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgpack
import numpy as np
import pytest
from compiler import tiny
from contract.recorded import exchanges

from frontend.conftest import Service, until_ready
from frontend.fake_triton import FakeTriton, expected
from frontend.repository import token_ids
from frontend.wire import ENCODE, JSON, MSGPACK, answer, dense, encode, refusal, texts

TEXTS = ("the cell", "", "mitochondria is a power house of the cell", "search", "x" * 400, "the cell")


@pytest.mark.asyncio
async def test_vectors_are_those_of_the_items_in_their_order(service: Service, repository: Path) -> None:
    async with service.open() as client:
        response = await encode(client, {"items": [{"id": f"i{n}", "text": t} for n, t in enumerate(TEXTS)]})
    body = answer(response)
    assert list(body) == ["model", "items", "timing", "usage"]
    assert body["model"] == tiny.MODEL_ID
    assert [item["id"] for item in body["items"]] == [f"i{n}" for n in range(len(TEXTS))]
    for text, vector, item in zip(TEXTS, dense(response), body["items"], strict=True):
        assert (item["dense"]["dims"], item["dense"]["dtype"], vector.dtype.str) == (32, "float32", "<f4")
        np.testing.assert_array_equal(vector, expected(token_ids(repository, text)))
    assert body["usage"] == {"input_tokens": sum(len(token_ids(repository, text)) for text in TEXTS)}
    assert body["timing"]["total_ms"] >= body["timing"]["inference_ms"] >= 0


@pytest.mark.asyncio
async def test_equal_texts_are_computed_once(service: Service, triton: FakeTriton) -> None:
    async with service.open() as client:
        vectors = dense(await encode(client, texts(*["the cell"] * 100)))
    assert sum(len(run.rows) for run in triton.runs) == 1
    assert len(vectors) == 100
    assert all(np.array_equal(vector, vectors[0]) for vector in vectors)


@pytest.mark.asyncio
async def test_runs_keep_to_the_budget_and_the_streams(service: Service, triton: FakeTriton) -> None:
    words = [" ".join(["cell"] * (n % 60)) + f" {n}" for n in range(300)]
    async with service.open() as client:
        vectors = dense(await encode(client, texts(*words)))
    assert len(vectors) == 300
    for run in triton.runs:
        assert run.input_ids.shape[0] == 1 or run.input_ids.size <= 512
        # A CPU pads to the longest row of a run, never beyond.
        assert run.input_ids.shape[1] == int(run.attention_mask.sum(1).max())
    assert triton.most_running <= 3


@pytest.mark.asyncio
async def test_concurrent_requests_keep_their_rows_apart(service: Service, repository: Path) -> None:
    async def ask(client: httpx.AsyncClient, number: int) -> None:
        wanted = [f"the cell {number} {k}" for k in range(number % 7 + 1)]
        for text, vector in zip(wanted, dense(await encode(client, texts(*wanted))), strict=True):
            np.testing.assert_array_equal(vector, expected(token_ids(repository, text)))

    async with service.open() as client:
        await asyncio.gather(*(ask(client, number) for number in range(60)))


@pytest.mark.asyncio
async def test_options_choose_the_tensor(service: Service, repository: Path) -> None:
    ids = token_ids(repository, "the cell")
    cases: list[tuple[str, dict[str, Any], str]] = [
        (ENCODE, {}, "dense"),
        (ENCODE, {"normalize": False}, "dense_unnormalized"),
        (ENCODE, {"pooling": "cls"}, "dense_cls"),
        (ENCODE, {"pooling": "cls", "normalize": False}, "dense_cls_unnormalized"),
        (ENCODE, {"pooling": "anything else"}, "dense"),
        (ENCODE, {"profile": "raw"}, "dense_cls_unnormalized"),
        (ENCODE, {"profile": "raw", "normalize": True}, "dense_cls"),
        (f"{ENCODE}:raw", {}, "dense_cls_unnormalized"),
        (f"{ENCODE}:raw", {"pooling": "mean"}, "dense_unnormalized"),
    ]
    async with service.open() as client:
        for path, options, tensor in cases:
            body = {**texts("the cell"), "params": {"options": options}}
            (vector,) = dense(await encode(client, body, path))
            np.testing.assert_array_equal(vector, expected(ids, tensor), err_msg=f"{path} {options}")


@pytest.mark.asyncio
async def test_templates_reach_the_model(service: Service, repository: Path) -> None:
    options = {"query_template": "search {instruction} {text}", "is_query": True}
    async with service.open() as client:
        body = {**texts("the cell"), "params": {"options": options, "instruction": "power"}}
        (vector,) = dense(await encode(client, body))
        np.testing.assert_array_equal(vector, expected(token_ids(repository, "search power the cell")))
        body = {**texts("the cell"), "params": {"options": {"doc_template": "{text.upper}"}}}
        status, code, message = refusal(await encode(client, body))
        assert (status, code) == (400, "INVALID_INPUT")
        assert "{text.upper}" in message


@pytest.mark.asyncio
async def test_json_in_and_out(service: Service, repository: Path) -> None:
    async with service.open() as client:
        response = await client.post(ENCODE, content=json.dumps(texts("the cell")), headers=JSON)
        assert response.headers["content-type"] == "application/json"
        (item,) = response.json()["items"]
        np.testing.assert_array_equal(
            np.asarray(item["dense"]["values"], np.float32), expected(token_ids(repository, "the cell"))
        )
        # The request's own format has no say in the answer's.
        assert dense(await client.post(ENCODE, content=json.dumps(texts("the cell"))))


# Order of the checks


@pytest.mark.asyncio
async def test_the_first_thing_that_is_wrong_is_the_one_that_is_told(service: Service, triton: FakeTriton) -> None:
    """Each line mends the mistake of the line before; not being ready comes after all that a request can get wrong."""
    triton.ready = False
    elsewhere = "/v1/encode/acme/elsewhere"
    good = texts("the cell")

    def with_params(**params: object) -> dict[str, Any]:
        return {**good, "params": params}

    steps: list[tuple[str, Any, dict[str, str], tuple[int, str, str]]] = [
        (
            elsewhere,
            b"\xc1",
            {"x-sie-machine-profile": "h100", "x-sie-remote": "no"},
            (400, "INVALID_INPUT", "Request targets machine profile 'h100' but this worker has none"),
        ),
        (elsewhere, b"\xc1", {"x-sie-remote": "no"}, (400, "INVALID_INPUT", "X-SIE-Remote accepts only")),
        (elsewhere, b"\xc1", {}, (400, "INVALID_INPUT", "MessagePack data is malformed")),
        (elsewhere, with_params(output_types=["x"]), {}, (404, "MODEL_NOT_FOUND", "Model 'acme/elsewhere' not found")),
        (
            ENCODE,
            with_params(options={"profile": "no"}, output_types=["x"]),
            {},
            (400, "INVALID_INPUT", "Profile 'no'"),
        ),
        (ENCODE, with_params(output_types=["x"], output_dtype="no"), {}, (400, "INVALID_INPUT", "'output_types' entr")),
        (ENCODE, with_params(output_types=["sparse"]), {}, (400, "INVALID_INPUT", f"Model '{tiny.MODEL_ID}' does not")),
        (ENCODE, with_params(output_dtype="no"), {}, (400, "INVALID_INPUT", "Unsupported output_dtype: no")),
        (ENCODE, {"items": [{}]}, {}, (503, "MODEL_LOADING", f"Model '{tiny.MODEL_ID}' is loading")),
        (ENCODE, texts(*"x" * 513), {}, (503, "MODEL_LOADING", f"Model '{tiny.MODEL_ID}' is loading")),
    ]
    async with service.open(wait=False) as client:
        for path, body, headers, (status, code, message) in steps:
            content = body if isinstance(body, bytes) else msgpack.packb(body)
            response = await client.post(path, content=content, headers={**MSGPACK, **headers})
            assert refusal(response)[:2] == (status, code), response.text
            assert refusal(response)[2].startswith(message)
        assert response.headers["retry-after"] == "5"
        triton.ready = True
        await until_ready(client)
        assert refusal(await encode(client, texts(*"x" * 513)))[2] == (
            "Request has 513 items but the queue accepts at most 512 items per request for model 'acme/tiny'; "
            "split the request into batches of 512 or fewer"
        )
        assert refusal(await encode(client, {"items": [{"text": "a"}, {}]})) == (
            400,
            "INVALID_INPUT",
            "BertFlashAdapter requires text input",
        )
    assert triton.runs == []


@pytest.mark.parametrize(
    ("model", "alike"),
    [
        ("acme/tinny", {"'acme/tiny'", "'acme/tiny:raw'"}),
        ("ACME/TINY", {"'acme/tiny'", "'acme/tiny:raw'"}),
        ("acme/tiny:default", {"'acme/tiny'", "'acme/tiny:raw'"}),
        ("TINY", {"'acme/tiny'", "'acme/tiny:raw'"}),
        ("other/Tiny", {"'acme/tiny'", "'acme/tiny:raw'"}),
        ("zzz", set()),
        ("x" * 60_000, set()),
        ("", set()),
    ],
)
@pytest.mark.asyncio
async def test_unknown_models_get_suggestions(model: str, alike: set[str], service: Service) -> None:
    async with service.open() as client:
        told = refusal(await encode(client, texts("t"), f"/v1/encode/{model}"))
        assert refusal(await client.get(f"/v1/models/{model}")) == told
    status, code, message = told
    assert (status, code) == (404, "MODEL_NOT_FOUND")
    plain, _, suggestion = message.partition(" Did you mean ")
    assert plain == f"Model '{model}' not found"
    assert set(suggestion.rstrip("?").split(", ")) - {""} == alike


@pytest.mark.asyncio
async def test_a_percent_encoded_id_is_the_same_id(service: Service) -> None:
    async with service.open() as client:
        assert dense(await encode(client, texts("t"), "/v1/encode/acme%2Ftiny%3Araw"))


@pytest.mark.asyncio
async def test_scoring_is_refused_by_a_model_without_it(service: Service) -> None:
    async with service.open() as client:
        body = {"query": {"text": "q"}, "items": [{"text": "t"}]}
        status, code, message = refusal(await encode(client, body, f"/v1/score/{tiny.MODEL_ID}"))
    assert (status, code) == (400, "INVALID_INPUT")
    assert message.startswith(f"Model '{tiny.MODEL_ID}' does not support scoring.")


# The body limit


@pytest.mark.asyncio
async def test_a_body_over_the_limit_is_refused_by_its_header(service: Service) -> None:
    async with service.having(max_body_bytes=1000).open() as client:
        response = await client.post(ENCODE, content=b"x" * 1001, headers=MSGPACK)
        assert refusal(response) == (413, "INPUT_TOO_LONG", "request body exceeds the limit of 1000 bytes")
        exact = msgpack.packb(texts("y" * (1000 - len(msgpack.packb(texts("y" * 900))) + 900)))
        assert len(exact) == 1000
        assert dense(await client.post(ENCODE, content=exact, headers=MSGPACK))


@pytest.mark.asyncio
async def test_a_body_without_a_length_is_refused_while_it_still_comes(service: Service) -> None:
    sent = 0

    async def far_too_much() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            sent += 100
            yield b"x" * 100

    async with service.having(max_body_bytes=1000).open() as client:
        response = await client.post(ENCODE, content=far_too_much(), headers=MSGPACK)
        assert refusal(response)[:2] == (413, "INPUT_TOO_LONG")
        assert 1000 < sent <= 1200


# What the framework answers, and the rest of the surface


@pytest.mark.asyncio
async def test_other_methods_are_told_which_there_are(service: Service) -> None:
    async with service.open() as client:
        for method, path, allowed in (
            ("GET", ENCODE, "POST"),
            ("DELETE", ENCODE, "POST"),
            ("PUT", "/v1/rerank", "POST"),
            ("GET", "/v1/extract/a", "POST"),
            ("POST", "/readyz", "GET, HEAD"),
            ("POST", "/v1/models", "GET, HEAD"),
        ):
            response = await client.request(method, path)
            assert (response.status_code, response.json()) == (405, {"detail": "Method Not Allowed"}), path
            assert response.headers["content-type"] == "application/json"
            assert response.headers["allow"] == allowed


@pytest.mark.asyncio
async def test_unknown_routes_are_counted_and_told_what_is_served(service: Service) -> None:
    unknown = [("GET", "/nowhere"), ("GET", "/health"), ("POST", "/v1/chat/completions"), ("POST", f"/v9/{'x' * 5000}")]
    async with service.open() as client:
        for method, path in unknown:
            response = await client.request(method, path, headers={"x-request-id": "mine"})
            assert (response.status_code, response.headers["content-type"]) == (404, "application/json")
            assert response.headers["x-sie-request-id"] == "mine"
            assert len(response.content) < 1000
            told = response.json()["detail"]
            assert told.startswith(f"Not Found: {method} {path[:200]}")
            served = re.findall(r"(GET|POST) (/\S*?)(?=,| and |\.$)", told.partition("This server serves")[2])
            assert ("POST", "/v1/encode/{model}") in served and ("POST", "/v2/rerank") in served
            for verb, route in served:  # no promise is empty
                answered = await client.request(verb, route.replace("{model}", tiny.MODEL_ID))
                assert answered.status_code in (200, 307, 400, 422), route
        await client.delete(ENCODE)
        exposition = (await client.get("/metrics")).text
    lines = dict(line.rsplit(" ", 1) for line in exposition.splitlines() if not line.startswith("#"))
    assert float(lines['sie_frontend_requests_total{model="",route="unknown",status="404"}']) == len(unknown)
    assert float(lines['sie_frontend_requests_total{model="",route="unknown",status="405"}']) == 1
    assert float(lines['sie_frontend_errors_total{kind="route_not_found"}']) == len(unknown)
    assert float(lines['sie_frontend_errors_total{kind="method_not_allowed"}']) == 1
    assert "nowhere" not in exposition


@pytest.mark.parametrize(("route", "task"), [("extract", "extraction"), ("generate", "generation")])
@pytest.mark.asyncio
async def test_tasks_that_nothing_here_does_are_answered_with_a_sentence(
    route: str, task: str, service: Service
) -> None:
    async with service.open() as client:
        for model, expected, code in ((tiny.MODEL_ID, 400, "INVALID_INPUT"), ("a/gliner", 404, "MODEL_NOT_FOUND")):
            told = refusal(await encode(client, {"items": [{"text": "t"}]}, f"/v1/{route}/{model}"))
            assert told[:2] == (expected, code)
            assert told[2].startswith(f"Model '{model}' ") and task in told[2]
            assert "This server serves POST /v1/encode/{model}, " in told[2]
        exposition = (await client.get("/metrics")).text
    assert f'sie_frontend_requests_total{{model="{tiny.MODEL_ID}",route="{route}",status="400"}} 1.0' in exposition


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("get_livez", "/livez"),
        ("get_readyz", "/readyz"),
        ("get_readyz", "/healthz"),
        ("models_list_slash", "/v1/models/"),
    ],
)
@pytest.mark.asyncio
async def test_recorded_answers(name: str, path: str, service: Service) -> None:
    recorded = exchanges()[name]
    async with service.open() as client:
        response = await client.get(path)
    assert (response.status_code, response.content) == (recorded.status, recorded.response_body)
    assert {name: response.headers[name] for name in recorded.response_headers} == recorded.response_headers


@pytest.mark.asyncio
async def test_a_path_that_the_reference_lacks_is_not_found_as_recorded_but_with_more_words(
    service: Service,
) -> None:
    recorded = exchanges()["get_health"]
    said = json.loads(recorded.response_body)
    async with service.open() as client:
        response = await client.get("/health")
    assert response.status_code == recorded.status
    assert response.headers["content-type"] == recorded.response_headers["content-type"]
    assert list(response.json()) == list(said) == ["detail"]
    assert response.json()["detail"].startswith(said["detail"])


@pytest.mark.asyncio
async def test_the_root_redirects_as_recorded(service: Service) -> None:
    recorded = exchanges()["get_"]
    async with service.open() as client:
        response = await client.get("/")
        page = await client.get(response.headers["location"])
    assert (response.status_code, response.content) == (recorded.status, recorded.response_body)
    assert response.headers["location"] == recorded.response_headers["location"]
    assert page.status_code == 200


def shape(value: Any) -> Any:
    """Keys in their order, and the types of scalars; lists by their entries' types."""
    if isinstance(value, dict):
        return [(key, shape(entry)) for key, entry in value.items()]
    if isinstance(value, list):
        return [type(entry).__name__ for entry in value]
    return type(value).__name__


@pytest.mark.parametrize(("name", "model"), [("models_get", tiny.MODEL_ID), ("models_get_variant", "acme/tiny:raw")])
@pytest.mark.asyncio
async def test_a_model_is_described_as_recorded(name: str, model: str, service: Service) -> None:
    recorded = json.loads(exchanges()[name].response_body)
    async with service.open() as client:
        response = await client.get(f"/v1/models/{model}", headers={"content-type": "application/msgpack"})
    ours = response.json()
    # Their model has other outputs and profiles: what is inside those is compared by one profile.
    for described in (recorded, ours):
        described["profiles"] = described["profiles"]["default"]
        described["dims"] = {"dense": described["dims"]["dense"]}
        described["outputs"] = described["outputs"][:1]
    certificate = ours.pop("certificate")
    assert shape(ours) == shape(recorded)
    # Beside SIE's own keys: what the vectors were compared with when they were built. This repository has no graphs.
    assert certificate is None
    same = ("inputs", "outputs", "loaded", "state", "last_error", "revision", "capabilities", "routing")
    assert [ours[key] for key in same] == [recorded[key] for key in same]
    assert (ours["name"], ours["dims"], ours["max_sequence_length"]) == (model, {"dense": 32}, 48)


@pytest.mark.asyncio
async def test_every_id_is_listed(service: Service, triton: FakeTriton) -> None:
    async with service.open() as client:
        listed = (await client.get("/v1/models")).json()
        one = (await client.get(f"/v1/models/{tiny.MODEL_ID}")).json()
        assert [model["name"] for model in listed["models"]] == [tiny.MODEL_ID, f"{tiny.MODEL_ID}:raw"]
        assert listed["models"][0] == {key: value for key, value in one.items() if key != "certificate"}
        assert list(one["profiles"]) == ["default", "raw"]
        assert list(listed["models"][1]["profiles"]) == ["default"]
        assert triton.runs == []


@pytest.mark.asyncio
async def test_success_headers(service: Service) -> None:
    async with service.open() as client:
        first, second = [await encode(client, texts("the cell")) for _ in range(2)]
    for response in (first, second):
        assert re.fullmatch(r"0\.10\.\d+", response.headers["x-sie-server-version"])
        assert response.headers["x-sie-served-by"] == "local"
        for stage in ("queue", "tokenization", "inference", "total"):
            assert re.fullmatch(r"\d+\.\d\d", response.headers[f"x-{stage}-time"])
    instance = first.headers["x-sie-runtime-instance"]
    assert re.fullmatch(r"[0-9a-f]{64}", instance)
    assert second.headers["x-sie-runtime-instance"] == instance


# Metrics


@pytest.mark.asyncio
async def test_metrics_count_what_happened_and_unknown_ids_never_become_labels(service: Service) -> None:
    async with service.open() as client:
        await encode(client, texts("the cell", "search"))
        for number in range(20):
            await encode(client, texts("t"), f"/v1/encode/nobody/knows-{number}")
        await encode(client, {"items": []})
        response = await client.get("/metrics")
    exposition = response.text
    assert response.headers["content-type"].startswith("text/plain")
    assert "nobody" not in exposition
    lines = dict(line.rsplit(" ", 1) for line in exposition.splitlines() if not line.startswith("#"))
    requests = 'sie_frontend_requests_total{model="%s",route="encode",status="%s"}'
    assert float(lines[requests % (tiny.MODEL_ID, 200)]) == 1
    assert float(lines[requests % ("", 404)]) == 20
    assert float(lines[requests % (tiny.MODEL_ID, 400)]) == 1
    assert float(lines[f'sie_frontend_items_total{{model="{tiny.MODEL_ID}"}}']) == 2
    assert float(lines['sie_frontend_errors_total{kind="model_not_found"}']) == 20
    assert float(lines[f'sie_frontend_tokens_total{{model="{tiny.MODEL_ID}"}}']) == 7
    assert float(lines[f'sie_frontend_padded_tokens_total{{model="{tiny.MODEL_ID}"}}']) == 8
    assert float(lines["sie_frontend_ready"]) == 1
    assert float(lines["sie_frontend_pending_items"]) == 0
