"""What a key may use: windows of their own for requests and tokens, a true Retry-After, and exact counts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from compiler import tiny
from contract.test_openapi_over_http import SCORER
from hypothesis import given, settings
from hypothesis import strategies as st
from sie_frontend.access.keyring import Denial, Grant, KeyRing
from sie_frontend.access.windows import Window
from sie_frontend.settings import Settings

from frontend.conftest import Service
from frontend.fake_triton import FakeTriton
from frontend.key_help import SECRET, Clock, behind_keys, key
from frontend.repository import token_ids, write_repository
from frontend.test_drain import Held
from frontend.wire import JSON, answer, encode, refusal, texts


def let_in(ring: KeyRing) -> Grant:
    return ring.grant(f"Bearer {SECRET}", "encode")


def refused(ring: KeyRing, tokens: int) -> Denial | None:
    """Ask once: None where it is answered."""
    try:
        with let_in(ring) as grant:
            grant.spend(tokens)
    except Denial as denial:
        return denial
    return None


def retry_after(denial: Denial) -> int:
    assert denial.status == 429
    return int(denial.headers()["retry-after"])


# Windows


@pytest.mark.parametrize("part", [900, 300, 100, 9])
def test_nine_tenths_of_a_limit_are_never_refused(part: int) -> None:
    clock = Clock()
    ring = KeyRing([key(requests_per_minute="101", tokens_per_minute="1000")], clock)
    for _ in range(10 * 900 // part):
        assert refused(ring, part) is None
        clock.now += 60 * part / 900


@pytest.mark.parametrize("part", [100, 50, 11])
def test_more_than_the_limit_is_refused_and_has_room_within_one_window(part: int) -> None:
    clock = Clock()
    ring = KeyRing([key(tokens_per_minute="1000")], clock)
    for _ in range(1000 // part):
        assert refused(ring, part) is None
        clock.now += 0.25
    denial = refused(ring, part)
    assert denial is not None
    wait = retry_after(denial)
    assert 0 < wait <= 60
    # True: two seconds earlier there is no room yet, and then there is.
    clock.now += wait - 2
    assert refused(ring, part) is not None
    clock.now += 2
    assert refused(ring, part) is None


def test_requests_and_tokens_do_not_use_each_other_up() -> None:
    clock = Clock()
    ring = KeyRing([key(requests_per_minute="10", tokens_per_minute="1000")], clock)
    for _ in range(10):
        assert refused(ring, 1) is None
        clock.now += 1
    denial = refused(ring, 1)
    assert denial is not None
    assert (denial.why.value, retry_after(denial)) == ("requests per minute", 50)
    clock.now += 50
    assert refused(ring, 990) is None  # the tokens of the others are still counted, and no more than those
    ring = KeyRing([key(requests_per_minute="10", tokens_per_minute="1000")], clock)
    assert refused(ring, 1000) is None
    for _ in range(9):
        denial = refused(ring, 1)
        assert denial is not None
        assert (denial.why.value, retry_after(denial)) == ("tokens per minute", 60)


def test_what_is_refused_is_not_counted() -> None:
    clock = Clock()
    ring = KeyRing([key(requests_per_minute="2")], clock)
    assert refused(ring, 1) is None
    assert refused(ring, 1) is None
    for _ in range(59):  # a client that does not wait
        clock.now += 1
        assert refused(ring, 1) is not None
    clock.now += 1
    assert refused(ring, 1) is None


def test_what_never_fits_is_told_so_and_not_to_wait() -> None:
    ring = KeyRing([key(tokens_per_minute="1000")], Clock())
    denial = refused(ring, 1100)
    assert denial is not None
    assert (denial.status, denial.code) == (400, "INVALID_INPUT")
    assert "1100 tokens" in denial.message and "1000 a minute" in denial.message
    assert "retry-after" not in denial.headers()
    assert refused(ring, 1000) is None


def test_a_failure_of_ours_costs_nothing_and_a_mistake_does() -> None:
    ring = KeyRing([key(tokens_per_minute="1000")], Clock())
    for failure in (RuntimeError, MemoryError):
        with pytest.raises(failure), let_in(ring) as grant:
            grant.spend(1000)
            raise failure
    with pytest.raises(asyncio.CancelledError), let_in(ring) as grant:
        grant.spend(1000)
        raise asyncio.CancelledError
    assert refused(ring, 1) is not None


def test_requests_at_once() -> None:
    ring = KeyRing([key(at_once="2")], Clock())
    with let_in(ring), let_in(ring):
        denial = refused(ring, 1)
        assert denial is not None
        assert (denial.why.value, retry_after(denial)) == ("requests at once", 1)
    for _ in range(10):
        assert refused(ring, 1) is None


def test_keys_do_not_use_each_others_limits_up() -> None:
    ring = KeyRing([key(tokens_per_minute="10"), key("other", "other", tokens_per_minute="10")], Clock())
    assert refused(ring, 10) is None
    assert refused(ring, 1) is not None
    with ring.grant("Bearer other", "encode") as grant:
        grant.spend(10)


def test_a_new_line_changes_the_limit_of_a_name_at_once() -> None:
    ring = KeyRing([key(tokens_per_minute="10")], Clock())
    assert refused(ring, 10) is None
    ring.replace([key(tokens_per_minute="20")])
    assert refused(ring, 10) is None
    assert refused(ring, 1) is not None
    ring.replace([key()])
    assert refused(ring, 10**9) is None


steps = st.lists(st.tuples(st.floats(0, 30), st.integers(1, 12)), max_size=60)


@settings(max_examples=60)
@given(steps)
def test_a_window_says_what_counting_says(asked: list[tuple[float, int]]) -> None:
    """Against the definition: what was let in within the last minute, added up."""
    limit, now = 20, 0.0
    window, let = Window(limit), list[tuple[float, int]]()

    def used(moment: float, age: float) -> int:
        return sum(amount for when, amount in let if when + age > moment)

    for pause, amount in asked:
        now += pause
        wait = window.wait_s(amount, now)
        if wait == 0:
            # Entries of a tenth of a second are one: they are forgotten together, when the first of them is.
            assert used(now, 59.9) + amount <= limit
            window.spend(amount, now)
            let.append((now, amount))
        else:
            assert used(now, 60) + amount > limit
            assert used(now + wait, 59.9) + amount <= limit
            assert 0 < wait <= 60


def test_a_window_holds_few_entries_however_much_is_asked() -> None:
    window, now = Window(10**9), 0.0
    for _ in range(100_000):
        window.wait_s(1, now)
        window.spend(1, now)
        now += 0.001
    assert len(window._entries) <= 601
    assert window.wait_s(10**9 - 60_000, now) == pytest.approx(0.1, abs=0.11)


# Over HTTP


@pytest.mark.asyncio
async def test_tokens_are_those_that_usage_tells(service: Service, repository: Path, triton: FakeTriton) -> None:
    text = "the cell is a power house"
    tokens = len(token_ids(repository, text))
    clock = Clock()
    async with behind_keys(service.settings, key(tokens_per_minute=str(10 * tokens)), clock=clock) as client:
        # Equal texts are computed once, and `usage` counts each.
        assert answer(await encode(client, texts(*[text] * 10)))["usage"] == {"input_tokens": 10 * tokens}
        runs = len(triton.runs)
        response = await encode(client, texts(text))
        assert refusal(response)[:2] == (429, "RATE_LIMIT")
        assert response.headers["retry-after"] == "60"
        assert len(triton.runs) == runs, "it is refused before it is computed"
        clock.now += 60
        assert answer(await encode(client, texts(*[text] * 9)))["usage"] == {"input_tokens": 9 * tokens}
        body = {"model": tiny.MODEL_ID, "input": [text]}
        assert (await client.post("/v1/embeddings", json=body)).json()["usage"]["total_tokens"] == tokens
        openai = await client.post("/v1/embeddings", json=body)
        assert (openai.status_code, openai.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert openai.headers["retry-after"] == "60"
        status, code, message = refusal(await encode(client, texts(*[text] * 11)))
        assert (status, code) == (400, "INVALID_INPUT")
        assert f"{11 * tokens} tokens" in message


@pytest.mark.asyncio
async def test_numbers_are_the_same_with_limits(service: Service) -> None:
    wanted = texts("the cell", "", "mitochondria " * 100, "search")
    async with service.open() as client:
        without = answer(await encode(client, wanted))
    async with behind_keys(
        service.settings, key(tokens_per_minute="10000", requests_per_minute="9", at_once="1")
    ) as kept:
        within = answer(await encode(kept, wanted))
    assert within["usage"] == without["usage"]
    for one, other in zip(within["items"], without["items"], strict=True):
        np.testing.assert_array_equal(one["dense"]["values"][b"data"], other["dense"]["values"][b"data"])


@pytest.mark.asyncio
async def test_at_once_counts_what_is_not_answered(service: Service, triton: FakeTriton) -> None:
    held = Held()
    async with behind_keys(service.settings, key(at_once="1")) as client:
        triton.answer = held
        first = asyncio.create_task(encode(client, texts("the cell")))
        while not triton.runs:
            await asyncio.sleep(0.01)
        second = await encode(client, texts("the cell"))
        assert refusal(second)[:2] == (429, "RATE_LIMIT")
        assert second.headers["retry-after"] == "1"
        held.release()
        assert answer(await first)
        assert answer(await encode(client, texts("the cell")))


@pytest.mark.asyncio
async def test_every_route_counts(service: Service) -> None:
    async def models(client: httpx.AsyncClient) -> Any:
        return await client.get("/v1/models")

    async with behind_keys(service.settings, key(requests_per_minute="2")) as client:
        assert (await models(client)).status_code == 200
        assert (await encode(client, texts("the cell"))).status_code == 200
        for response in (await models(client), await encode(client, texts("the cell"))):
            assert refusal(response)[:2] == (429, "RATE_LIMIT")
        assert (await client.get("/readyz")).status_code == 200


@pytest.mark.asyncio
async def test_what_is_scored_is_counted_as_usage_tells_it(tmp_path: Path, triton: FakeTriton) -> None:
    repository = write_repository(tmp_path / "repository", SCORER, num_labels=1)
    settings = Settings(repository=repository, triton_url=triton.url)
    body = {"query": {"text": "cell"}, "items": [{"text": "the cell"}, {"text": "search"}]}
    rerank = {"model": tiny.MODEL_ID, "query": "cell", "documents": ["the cell", "search"]}
    path = f"/v1/score/{tiny.MODEL_ID}"
    async with behind_keys(settings, key()) as client:
        scored = (await client.post(path, json=body, headers=JSON)).json()
        tokens = scored["usage"]["input_tokens"]
        assert (await client.post("/v1/rerank", json=rerank)).json()["usage"]["input_tokens"] == tokens
    async with behind_keys(settings, key(tokens_per_minute=str(2 * tokens + 1))) as client:
        again = (await client.post(path, json=body, headers=JSON)).json()
        assert again["scores"] == scored["scores"]
        assert (await client.post("/v1/rerank", json=rerank)).status_code == 200
        assert (await client.post(path, json=body, headers=JSON)).status_code == 429
        assert (await client.post("/v1/rerank", json=rerank)).json()["error"]["code"] == "rate_limit_exceeded"


def test_what_is_given_back_is_ones_own() -> None:
    window = Window(10)
    window.spend(8, 0.0)  # of one request, which fails after two minutes
    window.spend(7, 100.0)  # of another
    window.give_back(8, 110.0)
    assert window.wait_s(4, 120.0) == 40.0
    window.give_back(7, 100.0)
    assert window.wait_s(10, 120.0) == 0.0
