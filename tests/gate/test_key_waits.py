"""Who waits as long as `Retry-After` says is let in, whatever was asked before, and whatever one asks for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from compiler import tiny
from contract.test_openapi_over_http import SCORER
from frontend.conftest import Service
from frontend.fake_triton import FakeTriton
from frontend.key_help import SECRET, Clock, behind_keys, key
from frontend.repository import write_repository
from hypothesis import given, settings
from hypothesis import strategies as st
from sie_frontend.access.keyring import Denial, KeyRing
from sie_frontend.settings import Settings

LIMIT = 1000


def asked(ring: KeyRing, tokens: int) -> int | None:
    """Ask once: the seconds to wait, None where it is answered."""
    try:
        with ring.grant(f"Bearer {SECRET}", "encode") as grant:
            grant.spend(tokens)
    except Denial as denial:
        assert denial.status == 429
        return int(denial.headers()["retry-after"])
    return None


# Seconds between requests, and the tokens of each.
history = st.lists(st.tuples(st.floats(0, 90), st.integers(1, LIMIT)), max_size=30)


@settings(max_examples=150)
@given(history, st.integers(1, LIMIT))
def test_a_client_that_waits_exactly_so_long_is_let_in(before: list[tuple[float, int]], tokens: int) -> None:
    clock = Clock()
    ring = KeyRing([key(tokens_per_minute=str(LIMIT))], clock)
    for pause, amount in before:
        clock.now += pause
        asked(ring, amount)
    wait = asked(ring, tokens)
    if wait is not None:
        assert 1 <= wait <= 60
        clock.now += wait
        assert asked(ring, tokens) is None


@settings(max_examples=60)
@given(st.lists(st.floats(0, 20), max_size=40))
def test_the_same_for_requests(pauses: list[float]) -> None:
    clock = Clock()
    ring = KeyRing([key(requests_per_minute="7")], clock)
    let_in: list[float] = []
    for pause in pauses:
        clock.now += pause
        wait = asked(ring, 1)
        if wait is not None:
            assert len([moment for moment in let_in if moment + 60 > clock.now]) == 7
            clock.now += wait
            assert asked(ring, 1) is None
        let_in.append(clock.now)


def test_a_steady_client_below_both_limits_is_never_refused_and_one_beyond_recovers_within_a_minute() -> None:
    """100 requests and 1,000 tokens a minute: 900 tokens a minute for ten minutes, then 1,100."""
    clock = Clock()
    ring = KeyRing([key(requests_per_minute="100", tokens_per_minute="1000")], clock)
    for _ in range(10 * 90):
        assert asked(ring, 10) is None
        clock.now += 60 / 90
    refusals = []
    for _ in range(5 * 110):
        wait = asked(ring, 10)
        if wait is not None:
            refusals.append(wait)
            clock.now += wait
            assert asked(ring, 10) is None
        clock.now += 60 / 110
    assert refusals and max(refusals) <= 60


@pytest.fixture
def triton() -> Iterator[FakeTriton]:
    with FakeTriton() as server:
        yield server


async def usage(client: httpx.AsyncClient, path: str, body: object) -> int:
    found = (await client.post(path, json=body)).json()["usage"]
    return int(found.get("prompt_tokens", found.get("input_tokens")))


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/rerank"])
@pytest.mark.asyncio
async def test_a_request_in_parts_is_counted_as_a_whole_before_it_begins(
    tmp_path: Path, triton: FakeTriton, path: str
) -> None:
    texts = [f"the cell {'is a power house ' * (number % 3)}" for number in range(50)]
    if path == "/v1/embeddings":
        repository = write_repository(tmp_path / "repository")
        body: dict[str, object] = {"model": tiny.MODEL_ID, "input": texts}
        small: dict[str, object] = {**body, "input": texts[:1]}
    else:
        repository = write_repository(tmp_path / "repository", SCORER, num_labels=1)
        body = {"model": tiny.MODEL_ID, "query": "cell", "documents": texts}
        small = {**body, "documents": texts[:1]}
    service = Service(Settings(repository, triton_url=triton.url, max_items=20))
    async with behind_keys(service.settings, key()) as client:
        whole, one = await usage(client, path, body), await usage(client, path, small)
    clock = Clock()
    limit = whole + one - 1
    async with behind_keys(service.settings, key(tokens_per_minute=str(limit)), clock=clock) as client:
        assert await usage(client, path, small) == one
        clock.now += 20
        runs = len(triton.runs)
        refused = await client.post(path, json=body)
        assert refused.status_code == 429
        assert len(triton.runs) == runs, "nothing of it is computed"
        wait = int(refused.headers["retry-after"])
        assert wait == math.ceil(60 - 20)
        clock.now += wait
        # What was refused has spent nothing, and who waited is let in.
        assert await usage(client, path, body) == whole
    async with behind_keys(service.settings, key(tokens_per_minute=str(whole - 1))) as client:
        too_many = await client.post(path, json=body)
        assert too_many.status_code == 400
        assert f"{whole} tokens" in too_many.json()["error"]["message"]
