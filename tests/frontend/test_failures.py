"""What the frontend answers when Triton refuses, stalls, breaks or talks nonsense, and that it recovers."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from compiler import tiny
from sie_frontend.main import make_server
from sie_frontend.settings import SettingsError

from frontend.conftest import Service, until_ready
from frontend.fake_triton import HEADER_LENGTH, Answer, FakeTriton, Run, compute, expected, failure, tensors
from frontend.repository import token_ids
from frontend.wire import ENCODE, dense, encode, refusal, texts

LOADING = (503, "MODEL_LOADING", f"Model '{tiny.MODEL_ID}' is loading, please retry")
QUEUE_FULL = (503, "QUEUE_FULL", f"The queue of model '{tiny.MODEL_ID}' is full, please retry")
NOT_FINITE = (
    500,
    "INFERENCE_ERROR",
    "internal error during encoding: `items[0]` gave numbers that are not finite; "
    "leave that text out, or build the model in float32",
)
BROKEN = (500, "INFERENCE_ERROR", "internal error during encoding")


async def hang(run: Run) -> web.StreamResponse:
    await asyncio.sleep(60)
    return tensors(run)


class DroppedConnection(web.Response):
    """Closes the connection where an answer should be."""

    async def prepare(self, request: web.BaseRequest) -> None:
        assert request.transport is not None
        request.transport.close()


async def drop(run: Run) -> web.StreamResponse:
    return DroppedConnection()


def raw(body: bytes, header_length: str | None = None) -> Answer:
    async def answer(run: Run) -> web.StreamResponse:
        headers = {} if header_length is None else {HEADER_LENGTH: header_length}
        return web.Response(body=body, headers=headers)

    return answer


async def one_row_too_many(run: Run) -> web.StreamResponse:
    rows = np.stack([expected(row) for row in (*run.rows, run.rows[0])])
    return tensors(run, dict.fromkeys(run.outputs, rows))


async def not_numbers(run: Run) -> web.StreamResponse:
    rows = np.stack([expected(row) for row in run.rows])
    rows[-1, -1] = np.nan
    return tensors(run, dict.fromkeys(run.outputs, rows))


async def other_tensor(run: Run) -> web.StreamResponse:
    return tensors(run, {"something_else": np.zeros((len(run.rows), 32), np.float32)})


async def cut_short(run: Run) -> web.StreamResponse:
    whole = tensors(run)
    assert isinstance(whole.body, bytes)
    return web.Response(body=whole.body[:-7], headers={HEADER_LENGTH: whole.headers[HEADER_LENGTH]})


REFUSALS = [
    (failure(503, "Exceeds maximum queue size"), QUEUE_FULL, "1"),
    (failure(400, "[request id: <id_unknown>] Exceeds maximum queue size"), QUEUE_FULL, "1"),
    (failure(503, "Request timeout expired"), QUEUE_FULL, "1"),
    (failure(503, "Server exiting"), QUEUE_FULL, "1"),
    (failure(500, "onnx runtime error 6: Failed to allocate memory for requested buffer of size 1"), None, "5"),
    (failure(500, "CUDA error: out of memory"), None, "5"),
    (failure(400, "unexpected shape for input 'input_ids' for model 'acme__tiny'"), BROKEN, None),
    (failure(500, "onnx runtime error 1: something"), BROKEN, None),
    (raw(b"{}"), BROKEN, None),
    (raw(b"not json at all", "15"), BROKEN, None),
    (raw(b"\xff" * 64, "999999"), BROKEN, None),
    (raw(b"", "0"), BROKEN, None),
    (raw(b"x", "many"), BROKEN, None),
    (one_row_too_many, BROKEN, None),
    (other_tensor, BROKEN, None),
    (not_numbers, NOT_FINITE, None),
    (cut_short, BROKEN, None),
]


@pytest.mark.parametrize("case", range(len(REFUSALS)))
@pytest.mark.asyncio
async def test_a_refusal_becomes_the_contracts(case: int, service: Service, triton: FakeTriton) -> None:
    answer, expected_refusal, retry_after = REFUSALS[case]
    async with service.open() as client:
        triton.answer = answer
        response = await encode(client, texts("the cell"))
        if expected_refusal:
            assert refusal(response) == expected_refusal
        else:
            status, code, message = refusal(response)
            assert (status, code) == (503, "RESOURCE_EXHAUSTED")
            assert tiny.MODEL_ID in message
        assert response.headers.get("retry-after") == retry_after
        # Triton's own words are for the log: they may hold anything.
        assert "onnx" not in response.text
        # None of these says that the model is gone.
        assert (await client.get("/readyz")).status_code == 200
        triton.answer = compute
        assert dense(await encode(client, texts("the cell")))
        assert "sie_frontend_pending_items 0.0" in (await client.get("/metrics")).text


@pytest.mark.parametrize(
    "answer",
    [
        failure(400, "Request for unknown model: 'acme__tiny' is not found"),
        failure(400, "Request for unknown model: 'acme__tiny' has no available versions"),
        failure(400, "in ensemble 'acme__tiny', model 'acme__tiny.dense' is not ready"),
        failure(500, "in ensemble 'acme__tiny', Stub process 'acme__tiny.encoder_0_0' is not healthy."),
        drop,
    ],
)
@pytest.mark.asyncio
async def test_a_model_that_is_gone_is_loading_until_it_is_seen_again(
    answer: Answer, service: Service, triton: FakeTriton
) -> None:
    async with service.open() as client:
        triton.answer, triton.ready = answer, False
        response = await encode(client, texts("the cell"))
        assert refusal(response) == LOADING
        assert response.headers["retry-after"] == "5"
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).text == "not ready"
        assert (await client.get("/livez")).status_code == 200
        asked = len(triton.runs)
        assert refusal(await encode(client, texts("the cell"))) == LOADING
        assert len(triton.runs) == asked  # not even tried
        assert (await client.get(f"/v1/models/{tiny.MODEL_ID}")).json()["state"] == "loading"
        triton.answer, triton.ready = compute, True
        await until_ready(client)
        assert dense(await encode(client, texts("the cell")))


NOT_HEALTHY = failure(500, "in ensemble 'acme__tiny', Stub process 'acme__tiny.encoder_0_0' is not healthy.")


@pytest.mark.asyncio
async def test_a_model_that_is_broken_is_not_ready_before_it_computes(service: Service, triton: FakeTriton) -> None:
    """Triton calls it ready all the time: its word is not enough any more."""

    async def one_instance_is_dead(run: Run) -> web.StreamResponse:
        return await (NOT_HEALTHY if run.input_ids.shape[1] % 2 else compute)(run)

    async with service.open() as client:
        for still_broken in (NOT_HEALTHY, one_instance_is_dead, failure(503, "Server is stopping")):
            triton.answer = NOT_HEALTHY
            assert refusal(await encode(client, texts("the cell"))) == LOADING
            triton.answer = still_broken
            asked = len(triton.runs)
            while len(triton.runs) < asked + 6:  # three looks, with one run for each of two instances
                assert (await client.get("/readyz")).status_code == 503
                await asyncio.sleep(0.01)
            triton.answer = compute
            await until_ready(client)
            assert dense(await encode(client, texts("the cell")))


@pytest.mark.asyncio
async def test_a_broken_model_that_was_loaded_anew_is_ready(service: Service, triton: FakeTriton) -> None:
    async with service.open() as client:
        triton.answer = NOT_HEALTHY
        assert refusal(await encode(client, texts("the cell"))) == LOADING
        triton.ready = False
        await asyncio.sleep(0.5)
        triton.ready = True
        await until_ready(client)


@pytest.mark.asyncio
async def test_a_triton_that_hangs_is_given_up(service: Service, triton: FakeTriton) -> None:
    async with service.having(triton_timeout_s=0.3).open() as client:
        triton.answer = hang
        assert refusal(await asyncio.wait_for(encode(client, texts("the cell")), 60)) == LOADING
        triton.answer = compute
        await until_ready(client)
        assert dense(await encode(client, texts("the cell")))


@pytest.mark.asyncio
async def test_nobody_listening_is_loading(service: Service) -> None:
    async with service.having(triton_url="127.0.0.1:9").open(wait=False) as client:
        assert (await client.get("/readyz")).status_code == 503
        assert refusal(await encode(client, texts("the cell"))) == LOADING


@pytest.mark.asyncio
async def test_a_failed_run_fails_only_the_requests_in_it(
    service: Service, triton: FakeTriton, repository: Path
) -> None:
    async def fail_long_ones(run: Run) -> web.StreamResponse:
        if run.input_ids.shape[1] > 16:
            return web.json_response({"error": "too long for me"}, status=400)
        return tensors(run)

    async with service.open() as client:
        triton.answer = fail_long_ones
        bad, good = await asyncio.gather(
            encode(client, texts(*(f"{'cell ' * 40}{n}" for n in range(50)))),
            encode(client, texts("the cell")),
        )
        status, code, message = refusal(bad)
        assert (status, code) == BROKEN[:2]
        assert re.fullmatch(r"internal error during encoding \(items\[\d+\]\)", message)
        np.testing.assert_array_equal(dense(good)[0], expected(token_ids(repository, "the cell")))


def test_an_address_that_is_none_is_refused_at_the_start(service: Service) -> None:
    with pytest.raises(SettingsError, match=r"must be `host:port`.*not 'https://triton:8000'"):
        make_server(service.having(triton_url="https://triton:8000").settings)


# Admission


@pytest.mark.asyncio
async def test_a_full_queue_refuses_and_empties_again(service: Service, triton: FakeTriton) -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def wait_for_release(run: Run) -> web.StreamResponse:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(release.wait(), loop))
        return tensors(run)

    async with service.having(pending_items=3).open() as client:
        triton.answer = wait_for_release
        held = asyncio.create_task(encode(client, texts("one", "two")))
        while not triton.runs:
            await asyncio.sleep(0.01)
        response = await encode(client, texts("three", "four"))
        assert refusal(response) == QUEUE_FULL
        assert response.headers["retry-after"] == "1"
        fits = asyncio.create_task(encode(client, texts("five")))
        await asyncio.sleep(0.05)
        release.set()
        assert len(dense(await held)) == 2
        assert len(dense(await fits)) == 1
        # More items than the queue holds are taken when nothing else waits: else they could never be.
        assert len(dense(await encode(client, texts(*"abcdef")))) == 6


# The end


@pytest.mark.asyncio
async def test_shutdown_answers_what_is_under_way(service: Service, triton: FakeTriton, repository: Path) -> None:
    async def slowly(run: Run) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        return tensors(run)

    words = [f"the cell {n}" for n in range(200)]
    async with service.open() as client:
        triton.answer = slowly
        pending = asyncio.create_task(encode(client, texts(*words)))
        while not triton.runs:
            await asyncio.sleep(0.01)
    # The lifespan is over; the request was not.
    vectors = dense(await pending)
    for text, vector in zip(words, vectors, strict=True):
        np.testing.assert_array_equal(vector, expected(token_ids(repository, text)))


@pytest.mark.asyncio
async def test_a_client_that_leaves_withdraws_its_rows(service: Service, triton: FakeTriton) -> None:
    async def slowly(run: Run) -> web.StreamResponse:
        await asyncio.sleep(0.05)
        return tensors(run)

    async with service.open() as client:
        triton.answer = slowly
        left = asyncio.create_task(encode(client, texts(*(f"the cell {n}" for n in range(500)))))
        while not triton.runs:
            await asyncio.sleep(0.01)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        triton.answer = compute
        assert dense(await encode(client, texts("the cell")))
        assert sum(len(run.rows) for run in triton.runs) < 300
        assert "sie_frontend_pending_items 0.0" in (await client.get("/metrics")).text


@pytest.mark.asyncio
async def test_one_mistake_among_good_requests_harms_nobody(service: Service, repository: Path) -> None:
    async with service.open() as client:
        responses = await asyncio.gather(
            *(encode(client, texts(f"cell {n}") if n % 2 else {"items": "no"}) for n in range(100))
        )
        for number, response in enumerate(responses):
            if number % 2:
                np.testing.assert_array_equal(dense(response)[0], expected(token_ids(repository, f"cell {number}")))
            else:
                assert refusal(response)[:2] == (400, "INVALID_INPUT")
        assert (await client.post(ENCODE)).status_code == 400
