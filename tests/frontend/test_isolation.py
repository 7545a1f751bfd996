"""Requests that share a run with one that cannot be computed: they get their results, and it gets its error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
import pytest_asyncio
from aiohttp import web
from compiler import tiny
from sie_frontend.manifest import dump_manifest, read_manifest
from sie_frontend.settings import Settings

from frontend.conftest import Service
from frontend.fake_triton import Answer, FakeTriton, Run, expected, tensors
from frontend.repository import retokenized, token_ids, write_repository
from frontend.wire import dense, encode, refusal, texts

POISON = "mitochondria"
GOOD = [f"the cell is a power house {n}" for n in range(36)]


def not_a_number(poison: int) -> Answer:
    async def answer(run: Run) -> web.StreamResponse:
        rows = np.stack([expected(row) for row in run.rows])
        rows[[poison in row for row in run.rows], 3] = np.nan
        return tensors(run, dict.fromkeys(run.outputs, rows))

    return answer


def infinite_everywhere(poison: int) -> Answer:
    """One row spoils its whole run, as it would where rows meet in the graph."""

    async def answer(run: Run) -> web.StreamResponse:
        rows = np.stack([expected(row) for row in run.rows])
        if any(poison in row for row in run.rows):
            rows[:] = np.inf
        return tensors(run, dict.fromkeys(run.outputs, rows))

    return answer


def fails_with(message: str) -> Callable[[int], Answer]:
    """A run with the poison fails as a whole."""

    def of(poison: int) -> Answer:
        async def answer(run: Run) -> web.StreamResponse:
            if any(poison in row for row in run.rows):
                return web.json_response({"error": message}, status=500)
            return tensors(run)

        return answer

    return of


index_error = fails_with("onnx runtime error 2: indices element out of data bounds, idx=343 must be within [-343,342]")
out_of_memory = fails_with("CUDA error: out of memory")


@pytest_asyncio.fixture
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    async with service.open() as client:
        yield client


async def storm(client: httpx.AsyncClient) -> tuple[list[httpx.Response], list[httpx.Response]]:
    """320 requests of 32 clients at once, every tenth with the poison: the good answers and the bad ones."""
    good: list[httpx.Response] = []
    bad: list[httpx.Response] = []

    async def one(number: int) -> None:
        for turn in range(10):
            if turn == number % 10:
                bad.append(await encode(client, texts("the cell", f"{POISON} of the cell")))
            else:
                good.append(await encode(client, texts(GOOD[(number + turn) % len(GOOD)])))

    await asyncio.gather(*map(one, range(32)))
    return good, bad


@pytest.mark.parametrize(
    ("answer", "status", "code", "message"),
    [
        (not_a_number, 500, "INFERENCE_ERROR", "internal error during encoding: `items[1]` gave numbers that are not"),
        (infinite_everywhere, 500, "INFERENCE_ERROR", "internal error during encoding: `items[1]` gave numbers that"),
        (index_error, 500, "INFERENCE_ERROR", "internal error during encoding (items[1])"),
        (out_of_memory, 503, "RESOURCE_EXHAUSTED", f"Triton ran out of memory on '{tiny.MODEL_ID}' (items[1])"),
    ],
)
@pytest.mark.asyncio
async def test_no_good_request_fails_beside_bad_ones(
    client: httpx.AsyncClient,
    triton: FakeTriton,
    repository: Path,
    answer: Callable[[int], Answer],
    status: int,
    code: str,
    message: str,
) -> None:
    triton.answer = answer(token_ids(repository, POISON)[1])
    good, bad = await storm(client)
    assert len(good) == 288
    assert {response.status_code for response in good} == {200}
    wanted = {tuple(expected(token_ids(repository, text)).tolist()) for text in GOOD}
    assert {tuple(dense(response)[0].tolist()) for response in good} <= wanted
    assert any(len(run.rows) > 2 for run in triton.runs), "requests shared runs"
    assert len(bad) == 32
    for response in bad:
        told = refusal(response)
        assert told[:2] == (status, code)
        assert told[2].startswith(message)
    assert "sie_frontend_pending_items 0.0" in (await client.get("/metrics")).text


@pytest.mark.asyncio
async def test_a_token_beyond_the_embedding_is_refused_before_a_run(tmp_path: Path, triton: FakeTriton) -> None:
    folder = write_repository(tmp_path / "repository")
    poison = token_ids(folder, POISON)[1]
    manifest = read_manifest(folder)
    models = {model_id: retokenized(model, vocabulary=poison) for model_id, model in manifest.models.items()}
    (folder / "manifest.json").write_bytes(dump_manifest(msgspec.structs.replace(manifest, models=models)))
    async with Service(Settings(repository=folder, triton_url=triton.url)).open() as client:
        response = await encode(client, texts("the cell", "the cell", f"a {POISON} of a cell", POISON))
        assert refusal(response) == (
            400,
            "INVALID_INPUT",
            f"`items[2]` holds the token '{POISON}', whose id is {poison}; the model knows ids below {poison}: "
            "leave that token out of the text",
        )
        assert triton.runs == []
        assert len(dense(await encode(client, texts("the cell", "is a house")))) == 2


@pytest.mark.asyncio
async def test_a_model_that_can_compute_nothing_is_asked_a_bounded_number_of_times(
    client: httpx.AsyncClient, triton: FakeTriton
) -> None:
    async def refuse(run: Run) -> web.StreamResponse:
        return web.json_response({"error": "unexpected shape"}, status=400)

    triton.answer = refuse
    responses = await asyncio.gather(*(encode(client, texts(*GOOD)) for _ in range(4)))
    assert {response.status_code for response in responses} == {500}
    assert len(triton.runs) <= 2 * 4 * len(GOOD)


@pytest.mark.parametrize("limit", [1, "1", True, 1.5])
@pytest.mark.asyncio
async def test_a_limit_is_coerced_where_the_adapter_does_so_and_ignored_elsewhere(
    client: httpx.AsyncClient, limit: object
) -> None:
    body = {**texts("the cell"), "params": {"options": {"max_seq_length": limit}}}
    assert len(dense(await encode(client, body))) == 1
