"""The rerank routes over HTTP: the ranking is the score route's, in the shape that each client reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from frontend.conftest import Service
from frontend.fake_triton import FakeTriton, expected
from frontend.repository import WORDS, write_repository
from prometheus_client.parser import text_string_to_metric_families
from sie_frontend.settings import Settings
from tokenizers import Tokenizer

MODEL = "acme/reranker"
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
QUERY = "search answers"
DOCUMENTS = ["the cell", "mitochondria power", "a house of text", "embed"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("rerank") / "repository", BUNDLE, num_labels=1)


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    with FakeTriton() as server:
        yield server


@pytest.fixture
def service(repository: Path, triton: FakeTriton) -> Service:
    return Service(Settings(repository=repository, triton_url=triton.url))


@pytest.fixture(scope="module")
def tokenizer(repository: Path) -> Tokenizer:
    """The library's own, on the file that is served; it cuts nothing."""
    found: Tokenizer = Tokenizer.from_file(str(repository / "acme__reranker" / "1" / "tokenizer.json"))
    found.no_truncation()
    found.no_padding()
    return found


def truth(tokenizer: Tokenizer, documents: list[str], query: str = QUERY) -> list[float]:
    """What the Triton of these tests gives for each pair."""
    return [float(expected(tokenizer.encode(query, document).ids, "score")[0]) for document in documents]


def best_first(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda index: -scores[index])


def request(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "query": QUERY, "documents": DOCUMENTS, **fields}


def check(results: list[dict[str, Any]], scores: list[float]) -> None:
    assert [result["index"] for result in results] == best_first(scores)
    got = [result["relevance_score"] for result in results]
    np.testing.assert_allclose(got, sorted(scores, reverse=True), rtol=1e-6)


@pytest.mark.asyncio
async def test_documents_come_best_first_with_usage(service: Service, tokenizer: Tokenizer) -> None:
    async with service.open() as client:
        response = await client.post("/v1/rerank", json=request())
    body = response.json()
    assert (response.status_code, list(body)) == (200, ["model", "results", "usage"])
    assert response.headers["content-type"] == "application/json"
    assert body["model"] == MODEL
    check(body["results"], truth(tokenizer, DOCUMENTS))
    assert all(list(result) == ["index", "relevance_score"] for result in body["results"])
    tokens = sum(len(tokenizer.encode(QUERY, document).ids) for document in DOCUMENTS)
    assert body["usage"] == {"input_tokens": tokens}


@pytest.mark.asyncio
async def test_the_second_version_has_its_own_shape(service: Service, tokenizer: Tokenizer) -> None:
    async with service.open() as client:
        body = (await client.post("/v2/rerank", json=request(top_n=None, max_tokens_per_doc=None))).json()
    assert list(body) == ["id", "results", "meta"]
    check(body["results"], truth(tokenizer, DOCUMENTS))
    tokens = sum(len(tokenizer.encode(QUERY, document).ids) for document in DOCUMENTS)
    assert body["meta"]["tokens"] == {"input_tokens": tokens, "output_tokens": 0}


@pytest.mark.parametrize("route", ["/v1/rerank", "/v2/rerank"])
@pytest.mark.asyncio
async def test_the_best_are_returned_with_what_was_sent(route: str, service: Service, tokenizer: Tokenizer) -> None:
    documents: list[Any] = [DOCUMENTS[0], {"text": DOCUMENTS[1], "id": 7}, *DOCUMENTS[2:]]
    async with service.open() as client:
        wanted = request(documents=documents, top_n=3, return_documents=True)
        results = (await client.post(route, json=wanted)).json()["results"]
    order = best_first(truth(tokenizer, DOCUMENTS))[:3]
    assert [result["index"] for result in results] == order
    sent = [document if isinstance(document, dict) else {"text": document} for document in documents]
    assert [result["document"] for result in results] == [sent[index] for index in order]


@pytest.mark.asyncio
async def test_documents_are_cut_at_the_tokens_that_were_asked_for(service: Service, tokenizer: Tokenizer) -> None:
    documents = [" ".join(WORDS[start:] + WORDS[:start]) for start in range(4)]
    for tokens in (1, 3, 12, 13, 40):
        async with service.open() as client:
            wanted = request(documents=documents, max_tokens_per_doc=tokens)
            results = (await client.post("/v2/rerank", json=wanted)).json()["results"]
        check(results, truth(tokenizer, [" ".join(document.split()[:tokens]) for document in documents]))


@pytest.mark.asyncio
async def test_more_documents_than_the_queue_takes_at_once(
    service: Service, tokenizer: Tokenizer, triton: FakeTriton
) -> None:
    documents = [" ".join(WORDS[number % 13 :][: 1 + number // 13]) + " " + WORDS[number % 7] for number in range(100)]
    async with service.having(max_items=30).open() as client:
        results = (await client.post("/v1/rerank", json=request(documents=documents))).json()["results"]
    scores = truth(tokenizer, documents)
    got = {result["index"]: result["relevance_score"] for result in results}
    np.testing.assert_allclose([got[index] for index in range(100)], scores, rtol=1e-6)
    assert list(got.values()) == sorted(got.values(), reverse=True)


@pytest.mark.asyncio
async def test_equal_scores_keep_their_order(service: Service) -> None:
    async with service.having(max_items=2).open() as client:
        results = (await client.post("/v1/rerank", json=request(documents=["cell"] * 5))).json()["results"]
    assert [result["index"] for result in results] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("route", ["/v1/rerank", "/v2/rerank"])
@pytest.mark.asyncio
async def test_refusals_have_openais_envelope(route: str, service: Service) -> None:
    async with service.open() as client:

        async def refused(headers: dict[str, str] | None = None, **fields: Any) -> tuple[int, Any, Any, str]:
            response = await client.post(route, json=request(**fields), headers=headers)
            error = response.json()["error"]
            assert error["type"] == "invalid_request_error"
            return response.status_code, error["code"], error["param"], error["message"]

        unknown = await refused(model="Acme/Rerankr")
        assert unknown == (404, "model_not_found", None, f"Model 'Acme/Rerankr' not found Did you mean '{MODEL}'?")
        assert await refused(surprise=1) == (400, "INVALID_INPUT", "surprise", "field 'surprise' is not supported")
        assert (await refused({"x-sie-remote": "allow"}))[:2] == (400, "INVALID_INPUT")
        profile = await refused({"x-sie-machine-profile": "l4"})
        assert profile[0] == 400 and "'l4'" in profile[3] and "None" not in profile[3]
        assert (await refused(options={"profile": "x"}))[3].startswith("Profile 'x' not found")


@pytest.mark.asyncio
async def test_requests_and_cut_documents_are_counted(service: Service) -> None:
    long = " ".join(["cell"] * 60)
    async with service.open() as client:
        await client.post("/v1/rerank", json=request(documents=["cell", long, long + " cell"]))
        await client.post("/v2/rerank", json=request())
        exposition = (await client.get("/metrics")).text
    samples = [s for family in text_string_to_metric_families(exposition) for s in family.samples]
    by_name = {sample.name: sample for sample in samples}
    assert by_name["sie_frontend_truncated_items_total"].value == 2
    assert by_name["sie_frontend_items_total"].value == 7
    counted = [s for s in samples if s.name == "sie_frontend_requests_total"]
    assert [(s.labels, s.value) for s in counted] == [({"route": "rerank", "model": MODEL, "status": "200"}, 2)]


@pytest.mark.asyncio
async def test_a_model_without_scores_says_so(tmp_path: Path, triton: FakeTriton) -> None:
    encoder = write_repository(tmp_path / "repository")
    async with Service(Settings(repository=encoder, triton_url=triton.url)).open() as client:
        response: httpx.Response = await client.post("/v1/rerank", json=request(model="acme/tiny"))
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith(
        "Model 'acme/tiny' does not support reranking (no score task)"
    )
