"""A request has an end: what is late is told so, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from compiler import tiny
from frontend.conftest import Service
from frontend.fake_triton import FakeTriton, compute
from frontend.key_help import behind_keys, key
from frontend.repository import write_repository
from frontend.test_drain import Held
from frontend.wire import answer, encode, refusal, texts
from sie_frontend.settings import Settings


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    with FakeTriton() as server:
        yield server


@pytest.fixture
def service(tmp_path: Path, triton: FakeTriton) -> Service:
    return Service(Settings(write_repository(tmp_path / "repository"), triton_url=triton.url, request_timeout_s=0.3))


async def metric(client: httpx.AsyncClient, name: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"sie_frontend_{name}"))


@pytest.mark.asyncio
async def test_what_is_late_is_408_and_holds_no_place(service: Service, triton: FakeTriton) -> None:
    """Of the queue, of its key's requests at once, or of those in flight."""
    one = key(at_once="1", verbs="encode,embeddings,metrics")
    async with behind_keys(service.settings, one) as client:
        triton.answer = held = Held()
        for _ in range(3):
            status, code, message = refusal(await encode(client, texts("the cell")))
            assert (status, code) == (408, "REQUEST_TIMEOUT")
            assert "0.3 s" in message
        openai = await client.post("/v1/embeddings", json={"model": tiny.MODEL_ID, "input": "the cell"})
        assert (openai.status_code, openai.json()["error"]["code"]) == (408, "request_timeout")
        assert await metric(client, "inflight_requests") == 0
        triton.answer = compute
        held.release()
        assert answer(await encode(client, texts("the cell")))
        assert await metric(client, 'errors_total{kind="request_too_slow"}') == 4


@pytest.mark.asyncio
async def test_clients_that_leave_hold_no_place(service: Service, triton: FakeTriton) -> None:
    async with behind_keys(service.having(request_timeout_s=0.0).settings, key(at_once="2")) as client:
        triton.answer = held = Held()
        for _ in range(20):
            asked = [asyncio.create_task(encode(client, texts("the cell", str(number)))) for number in range(2)]
            await asyncio.sleep(0.005)
            for task in asked:
                task.cancel()
            assert all(
                isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(*asked, return_exceptions=True)
            )
        triton.answer = compute
        held.release()
        done = await asyncio.gather(*[encode(client, texts("the cell")) for _ in range(2)])
        assert [response.status_code for response in done] == [200, 200]
