"""What we answer over HTTP is what the OpenAPI document says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from compiler import tiny
from frontend.conftest import Service
from frontend.fake_triton import FakeTriton
from frontend.repository import write_repository
from sie_frontend.http.api_reference.document import document
from sie_frontend.http.api_reference.page import page
from sie_frontend.http.app import create_app
from sie_frontend.settings import Settings
from starlette.routing import Route

from contract.openapi_judge import DOCUMENT, answer_mistakes, operation_of

SCORER = f"""\
sie_id: {tiny.MODEL_ID}
hf_id: {tiny.MODEL_ID}
tasks:
  score: {{}}
max_sequence_length: 48
profiles:
  default:
    max_batch_tokens: 1024
    adapter_path: sie_server.adapters.bert_flash_cross_encoder:BertFlashCrossEncoderAdapter
"""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with FakeTriton() as triton:
        yield Service(Settings(repository=write_repository(tmp_path / "repository"), triton_url=triton.url))


@pytest.fixture
def scorer(tmp_path: Path) -> Iterator[Service]:
    with FakeTriton() as triton:
        repository = write_repository(tmp_path / "repository", SCORER, num_labels=1)
        yield Service(Settings(repository=repository, triton_url=triton.url))


def test_every_route_is_in_the_document_and_no_other(service: Service) -> None:
    served = {
        (route.path_format, method.lower())
        for route in create_app(service.settings).routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert served == {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods}


def check(response: httpx.Response) -> None:
    content_type = response.headers["content-type"]
    request = response.request
    found = answer_mistakes(request.url.path, request.method, response.status_code, content_type, response.content)
    assert found == [], response.content
    operation = operation_of(request.url.path)
    assert operation is not None
    told = DOCUMENT["paths"][operation][request.method.lower()]["responses"][str(response.status_code)]
    assert response.headers.keys() - {"content-type", "content-length", "x-sie-runtime-instance"} <= told.get(
        "headers", {}
    ).keys() | {"x-sie-request-id"}


@pytest.mark.asyncio
async def test_encode_answers_as_the_document_says(service: Service) -> None:
    path = f"/v1/encode/{tiny.MODEL_ID}"
    body = {"items": [{"id": "a", "text": "the cell"}, {"text": ""}]}
    async with service.open() as client:
        for accept in ("application/json", "application/msgpack"):
            for dtype in ("float32", "float16", "int8", "uint8", "binary"):
                asked = {**body, "params": {"output_dtype": dtype}}
                response = await client.post(path, json=asked, headers={"accept": accept, "x-request-id": "r"})
                assert response.status_code == 200
                check(response)
        refused: tuple[dict[str, Any], ...] = ({}, {"items": [{"images": []}]}, {"items": [{"text": "x"}] * 513})
        for wrong in refused:
            response = await client.post(path, json=wrong)
            assert response.status_code == 400
            check(response)
        for wrong_path in ("/v1/encode/no/model", "/v1/extract/no/model", f"/v1/generate/{tiny.MODEL_ID}"):
            response = await client.post(wrong_path, json=body)
            assert response.status_code in (400, 404)
            check(response)


@pytest.mark.asyncio
async def test_embeddings_answer_as_the_document_says(service: Service) -> None:
    async with service.open() as client:
        for body, status in (
            ({"model": tiny.MODEL_ID, "input": ["the cell", ""]}, 200),
            ({"model": tiny.MODEL_ID, "input": "the cell", "encoding_format": "base64", "user": "me"}, 200),
            ({"model": "no/model", "input": "x"}, 404),
            ({"model": tiny.MODEL_ID, "input": "x", "dimensions": 3}, 400),
            ({"input": "x"}, 422),
        ):
            response = await client.post("/v1/embeddings", json=body)
            assert response.status_code == status
            check(response)


@pytest.mark.asyncio
async def test_scores_and_ranks_answer_as_the_document_says(scorer: Service) -> None:
    ranked = {"model": tiny.MODEL_ID, "query": "the cell", "documents": ["a", {"text": "is"}], "return_documents": True}
    async with scorer.open() as client:
        for accept in ("application/json", "application/msgpack"):
            body = {"query": {"id": "q", "text": "the cell"}, "items": [{"text": "a"}, {"id": "b", "text": "is"}]}
            response = await client.post(f"/v1/score/{tiny.MODEL_ID}", json=body, headers={"accept": accept})
            assert response.status_code == 200
            check(response)
        for path in ("/v1/rerank", "/v2/rerank"):
            for asked, status in (
                (ranked, 200),
                ({**ranked, "query": ""}, 400),
                ({**ranked, "model": "no/model"}, 404),
            ):
                response = await client.post(path, json=asked)
                assert response.status_code == status
                check(response)


@pytest.mark.asyncio
async def test_models_answer_as_the_document_says(service: Service) -> None:
    async with service.open() as client:
        for path, status in (("/v1/models", 200), (f"/v1/models/{tiny.MODEL_ID}:raw", 200), ("/v1/models/no", 404)):
            response = await client.get(path)
            assert response.status_code == status
            check(response)


@pytest.mark.asyncio
async def test_the_process_answers_as_the_document_says(service: Service) -> None:
    async with service.open() as client:
        for path in ("/livez", "/readyz", "/healthz", "/metrics", "/openapi.json", "/docs"):
            response = await client.get(path)
            assert response.status_code == 200
            content = DOCUMENT["paths"][path]["get"]["responses"]["200"]["content"]
            assert list(content) == [response.headers["content-type"]]
        assert (await client.get("/openapi.json")).json() == document(service.settings) == DOCUMENT
        assert (await client.get("/docs")).text == page(DOCUMENT)
