"""What `/v1/status` tells: of whom, to whom, and that its numbers are those of the requests that were made."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from aiohttp import web
from compiler import tiny
from contract.openapi_judge import answer_mistakes
from frontend.conftest import Service
from frontend.fake_triton import FakeTriton
from frontend.key_help import Clock, behind_keys, key
from frontend.process import FrontendProcess
from frontend.repository import token_ids
from frontend.wire import encode, texts
from sie_frontend.http.status.traffic import READ_EVERY_S, WINDOW_S, TrafficWatch, quantile, read_totals
from sie_frontend.watch.metrics import Metrics, RunRecord

VARIANT = f"{tiny.MODEL_ID}:raw"


async def report(client: Any) -> dict[str, Any]:
    answer = await client.get("/v1/status")
    assert answer.status_code == 200
    content_type = answer.headers["content-type"]
    assert answer_mistakes("/v1/status", "GET", 200, content_type, answer.content) == []
    found: dict[str, Any] = answer.json()
    return found


def model(found: dict[str, Any], model_id: str = tiny.MODEL_ID) -> dict[str, Any]:
    [entry] = [one for one in found["models"] if one["id"] == model_id]
    return dict(entry)


@pytest.mark.asyncio
async def test_requests_are_counted_where_they_were_made(service: Service, repository: Path) -> None:
    said = ["the cell", "a power house", "search"]
    async with service.open() as client:
        for text in said:
            assert (await encode(client, texts(text))).status_code == 200
        assert (await client.post(f"/v1/encode/{tiny.MODEL_ID}", content=b"{")).status_code == 400
        found = await report(client)
    assert (found["ready"], found["phase"], found["device"], found["load"]) == (True, "serving", "cpu", "start")
    numbers = found["numbers"]
    assert 0 < numbers["window_s"] <= found["uptime_s"] + 0.01

    def count(traffic: dict[str, Any], name: str) -> float:
        return float(traffic[name] * numbers["window_s"])

    tokens = sum(len(token_ids(repository, text)) for text in said)
    for traffic in (numbers["traffic"], model(found)["traffic"]):
        assert count(traffic, "requests_per_s") == pytest.approx(4)
        assert count(traffic, "items_per_s") == pytest.approx(3)
        assert count(traffic, "tokens_per_s") == pytest.approx(tokens)
        assert traffic["failures_per_s"] == 0
        assert 0 < traffic["p50_ms"] <= traffic["p95_ms"]
    # An id that shares the Triton model has no tokens of its own, and no memory.
    silent = model(found, VARIANT)
    assert (silent["traffic"]["requests_per_s"], silent["traffic"]["tokens_per_s"]) == (0, None)
    assert silent["traffic"]["p95_ms"] is None
    assert [(one["serves"], one["runs"]) for one in numbers["replicas"]] == [(True, 0)]
    assert (numbers["inflight_requests"], numbers["pending_items"]) == (0, 0)
    [refused] = numbers["errors"]
    assert (refused["kind"], refused["status"], refused["total"], refused["recent"]) == ("invalid_input", 400, 1, 1)


@pytest.mark.asyncio
async def test_a_model_is_told_as_the_list_tells_it(service: Service) -> None:
    async with service.open() as client:
        listed = {one["name"]: one for one in (await client.get("/v1/models")).json()["models"]}
        found = await report(client)
    assert [one["id"] for one in found["models"]] == list(listed)
    for one in found["models"]:
        told = listed[one["id"]]
        for name in ("state", "loaded", "inputs", "outputs", "dims", "max_sequence_length"):
            assert one[name] == told[name], name


@pytest.mark.asyncio
async def test_whoever_operates_is_told_of_the_same_states_and_requests(service: Service) -> None:
    async with service.open() as client:
        for text in ("the cell", "search"):
            assert (await encode(client, texts(text))).status_code == 200
        found, operated = await report(client), (await client.get("/admin/status")).json()
    assert (operated["ready"], list(operated["models"])) == (found["ready"], [one["id"] for one in found["models"]])
    for one in found["models"]:
        told = operated["models"][one["id"]]
        assert (told["state"], told["loaded"]) == (one["state"], one["loaded"])
        requests = one["traffic"]["requests_per_s"] * found["numbers"]["window_s"]
        assert told["requests"] == pytest.approx(requests)
    assert operated["models"][tiny.MODEL_ID]["requests"] == 2


@pytest.mark.asyncio
async def test_a_failure_is_told_and_what_a_client_sent_is_not(service: Service, triton: FakeTriton) -> None:
    hostile = "<img src=x onerror=alert(1)>"

    async def refuse(_: object) -> web.StreamResponse:
        return web.json_response({"error": hostile}, status=400)

    async with service.open() as client:
        triton.answer = refuse
        assert (await encode(client, texts("the cell"))).status_code == 500
        assert (await client.post(f"/v1/encode/{hostile}", json=texts("a"))).status_code == 404
        assert (await client.get(f"/{hostile}")).status_code == 404
        found = await report(client)
    kinds = {one["kind"]: one for one in found["numbers"]["errors"]}
    assert set(kinds) == {"inference_error", "model_not_found", "route_not_found"}
    assert kinds["inference_error"]["message"]
    assert kinds["model_not_found"]["message"] is kinds["route_not_found"]["message"] is None
    assert all(0 <= one["last_s"] < 60 for one in kinds.values())
    assert found["numbers"]["traffic"]["failures_per_s"] > 0
    assert hostile not in str(found["models"])


@pytest.mark.asyncio
async def test_a_triton_that_does_not_answer_is_told_apart(service: Service, triton: FakeTriton) -> None:
    gone = "127.0.0.1:9"
    async with service.having(triton_url=f"{triton.url},{gone}").open() as client:
        found = await report(client)
        assert {one["url"]: one["serves"] for one in found["numbers"]["replicas"]} == {
            triton.url.removeprefix("http://"): True,
            gone: False,
        }


@pytest.mark.asyncio
async def test_who_may_not_read_metrics_gets_no_numbers(service: Service) -> None:
    async with behind_keys(service.settings, key()) as client:
        found = await report(client)
        assert found["numbers"] is None
        assert {one["traffic"] for one in found["models"]} == {one["memory_bytes"] for one in found["models"]} == {None}
        assert found["models"]
    async with behind_keys(service.settings, key(verbs="models,metrics", models=VARIANT)) as client:
        found = await report(client)
        assert [one["id"] for one in found["models"]] == [VARIANT]
        assert found["numbers"]["traffic"] is not None
    async with behind_keys(service.settings, key(verbs="metrics")) as client:
        assert (await client.get("/v1/status")).status_code == 403


def test_numbers_are_where_metrics_are(repository: Path, triton: FakeTriton, tmp_path: Path) -> None:
    arguments = ("--repository", repository, "--triton-url", triton.url, "--admin-port", "0")
    with FrontendProcess(tmp_path / "log", *arguments) as frontend:
        admin = frontend.wait_for(r"health and metrics are on (http://127\.0\.0\.1:\d+)")[1]
        frontend.wait_ready()
        here, there = (httpx.get(f"{url}/v1/status").json() for url in (frontend.url, admin))
        assert (here["api"], here["numbers"]) == (True, None)
        assert there["api"] is False and there["numbers"]["traffic"]["requests_per_s"] == 0
        assert [one["id"] for one in there["models"]] == [one["id"] for one in here["models"]]
        page = httpx.get(f"{admin}/", headers={"accept": "text/html"})
        assert page.content == httpx.get(f"{frontend.url}/", headers={"accept": "text/html"}).content
        assert httpx.get(f"{admin}/").status_code == 404
        assert httpx.get(f"{admin}/page/main.js").status_code == 200


# The window


def test_a_window_forgets_what_is_older_than_a_minute() -> None:
    metrics, clock = Metrics(), Clock()
    watch = TrafficWatch(metrics, clock)
    for second in range(600):
        # Ten requests a second of two seconds in the first five minutes, one of 15 ms afterwards.
        for _ in range(10 if second < 300 else 1):
            metrics.observe_request("encode", "acme/a", 200, 2.0 if second < 300 else 0.015, {})
            metrics.observe_run("acme/a", RunRecord(rows=1, tokens=7, padded_tokens=7, seconds=0.01))
        metrics.observe_request("unknown", "", 404, 9.0, {})
        clock.now += 1
        if second % READ_EVERY_S == 0:
            watch.take(read_totals(metrics, clock.now))
        if second == 299:
            window = watch.window(read_totals(metrics, clock.now))
            assert WINDOW_S - READ_EVERY_S <= window.seconds <= WINDOW_S
            assert window.of(None).requests_per_s == pytest.approx(10)
            assert 1000 <= (window.of(None).p50_ms or 0) <= 2000
    window = watch.window(read_totals(metrics, clock.now))
    assert WINDOW_S - READ_EVERY_S <= window.seconds <= WINDOW_S
    for traffic in (window.of(None), window.of("acme/a")):
        assert traffic.requests_per_s == pytest.approx(1)
        assert traffic.tokens_per_s == pytest.approx(7)
        assert 10 <= (traffic.p95_ms or 0) <= 20
    nobody = window.of("acme/nobody")
    assert (nobody.requests_per_s, nobody.p50_ms, nobody.p95_ms) == (0, None, None)


def test_a_first_look_is_of_the_whole_time() -> None:
    metrics, clock = Metrics(), Clock()
    watch = TrafficWatch(metrics, clock)
    window = watch.window(read_totals(metrics, clock.now))
    assert (window.seconds, window.of(None).requests_per_s) == (0, 0)
    metrics.observe_request("encode", "acme/a", 503, 0.5, {})
    clock.now += 4
    traffic = watch.window(read_totals(metrics, clock.now)).of(None)
    assert (traffic.requests_per_s, traffic.failures_per_s) == (0.25, 0.25)


def histograms() -> Iterator[tuple[list[float], np.ndarray[Any, np.dtype[np.float64]]]]:
    random = np.random.default_rng(16)
    bounds = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]
    for size in (1, 2, 3, 20, 1000):
        yield bounds, random.lognormal(-3, 1.5, size)
        yield bounds, random.uniform(0, 0.001, size)
    yield bounds, np.array([0.01] * 50 + [29.0])


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95, 1.0])
def test_a_percentile_is_where_a_line_through_the_sums_has_it(share: float) -> None:
    """Beside numpy's interpolation of the cumulative counts, and in the bucket of the observation itself."""
    for bounds, seconds in histograms():
        counts = [int((seconds <= bound).sum()) for bound in bounds]
        found = quantile({**dict(zip(bounds, map(float, counts), strict=True)), math.inf: float(len(seconds))}, share)
        assert found is not None
        rank = share * len(seconds)
        sums, firsts = np.unique([0, *counts], return_index=True)
        lasts = [*[first - 1 for first in firsts[1:]], len(counts)]
        at = int(np.searchsorted(sums, rank))  # between the end of one plateau and the start of the next
        edges = [0.0, *bounds]
        low, high = edges[lasts[at - 1]], edges[firsts[at]]
        assert found == pytest.approx(np.interp(rank, [sums[at - 1], sums[at]], [low, high]))
        real = np.sort(seconds)[math.ceil(rank) - 1]
        assert low <= real <= high and low <= found <= high


def test_a_percentile_beyond_all_bounds_is_the_last_one() -> None:
    assert quantile({1.0: 0.0, 2.0: 0.0, math.inf: 3.0}, 0.5) == 2.0
    assert quantile({}, 0.5) is None
    assert quantile({1.0: 0.0, math.inf: 0.0}, 0.5) is None


@pytest.mark.asyncio
async def test_looking_takes_no_time_from_requests(service: Service) -> None:
    """The watch ends with the application: nothing is left behind that reads for ever."""
    async with service.open():
        assert [task for task in asyncio.all_tasks() if task.get_name() == "watch-traffic"]
    await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "watch-traffic"]
