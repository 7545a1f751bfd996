"""`/metrics` tells every token that is not computed yet, and where it is: what autoscalers go by."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from compiler import tiny

from frontend.conftest import Service
from frontend.fake_triton import FakeTriton, Run, tensors
from frontend.repository import token_ids
from frontend.wire import dense, encode, texts


async def queued(client: httpx.AsyncClient) -> dict[str, float]:
    """The tokens of the tiny model by place."""
    exposition = (await client.get("/metrics")).text
    found = re.findall(
        rf'^sie_frontend_queued_tokens{{model="{tiny.MODEL_ID}",place="(\w+)"}} (\S+)$', exposition, re.M
    )
    return {place: float(value) for place, value in found}


@pytest.mark.asyncio
async def test_tokens_are_told_until_they_are_computed(service: Service, triton: FakeTriton, repository: Path) -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def wait_for_release(run: Run) -> web.StreamResponse:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(release.wait(), loop))
        return tensors(run)

    words = [f"the cell makes energy {number}" for number in range(300)]
    tokens = sum(len(token_ids(repository, text)) for text in words)
    async with service.open() as client:
        assert await queued(client) == {"frontend": 0.0, "triton": 0.0}
        triton.answer = wait_for_release
        held = asyncio.create_task(encode(client, texts(*words)))
        while not triton.runs:
            await asyncio.sleep(0.01)
        waiting = await queued(client)
        assert waiting["frontend"] + waiting["triton"] == tokens
        # Triton has been sent what it can compute, and the rest waits here.
        assert 0 < waiting["triton"] < waiting["frontend"]
        release.set()
        assert len(dense(await held)) == len(words)
        assert await queued(client) == {"frontend": 0.0, "triton": 0.0}


@pytest.mark.asyncio
async def test_tokens_of_a_caller_who_leaves_are_gone(service: Service, triton: FakeTriton) -> None:
    async def slowly(run: Run) -> web.StreamResponse:
        await asyncio.sleep(0.2)
        return tensors(run)

    async with service.open() as client:
        triton.answer = slowly
        left = asyncio.create_task(encode(client, texts(*(f"the cell {number}" for number in range(500)))))
        while not triton.runs:
            await asyncio.sleep(0.01)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        while (await queued(client))["triton"]:
            await asyncio.sleep(0.05)
        assert await queued(client) == {"frontend": 0.0, "triton": 0.0}
