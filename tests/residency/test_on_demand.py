"""Models that come when they are asked for, on the real tritonserver."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from frontend.process import FrontendProcess
from sie_sdk import SIEAsyncClient
from sie_sdk.types import Item

from residency.world import GRAPH, NAMES, World, behave, expected, sie_id, write_world
from sie_triton.embedded.server import ServerSpec, TritonServer

pytestmark = pytest.mark.e2e
MB = 1_000_000
ONE = 160 * MB  # room for one model of 100 megabytes, and for one that nobody has seen yet


@pytest.mark.asyncio
async def test_a_model_is_loaded_once_at_its_first_request(world: World) -> None:
    behave(world.repository, "p", load_s=0.5)
    async with world.open() as client:
        assert await client.states() == dict.fromkeys((*NAMES, GRAPH), "available")
        answers = await asyncio.gather(*(client.ask("p") for _ in range(20)))
        assert [answer.json()["detail"]["code"] for answer in answers] == ["MODEL_LOADING"] * 20
        assert (await client.info("p"))["state"] == "loading"
        await client.until_served("p")
        assert (await client.info("p"))["state"] == "loaded"
        assert await client.states() == dict.fromkeys((*NAMES, GRAPH), "available") | {"p": "loaded"}
        text = (await client.http.get("/metrics")).text
        assert 'sie_frontend_model_loads_total{model="acme/p",outcome="loaded"} 1.0' in text
        # The profile is the same Triton model.
        assert (await client.http.get(f"/v1/models/{sie_id('p')}:raw")).json()["loaded"]


@pytest.mark.asyncio
async def test_a_victim_that_is_asked_for_again_and_again_delays_nobody_for_ever(world: World) -> None:
    """Room for one; P computes for two seconds; Q is asked for, and P every 100 ms for five seconds."""
    behave(world.repository, "p", run_s=2.0, megabytes=100)
    behave(world.repository, "q", megabytes=100)
    async with world.open(memory_budget=ONE) as client:
        await client.until_served("p")
        busy = asyncio.create_task(client.ask("p"))
        await asyncio.sleep(0.2)
        begun = time.monotonic()
        waiting = asyncio.create_task(client.until_served("q"))
        hammered = []
        while time.monotonic() - begun < 4:
            hammered.append(asyncio.create_task(client.ask("p")))
            await asyncio.sleep(0.1)
        assert (await busy).status_code == 200
        assert await waiting < 15
        assert {answer.status_code for answer in await asyncio.gather(*hammered)} <= {200, 503}
        await client.until_served("p")


@pytest.mark.asyncio
async def test_nothing_is_evicted_between_ready_and_its_first_request(world: World) -> None:
    """Room for one, loads and stops of a second: P is asked for, and Q while P loads; later Q, and P 50 ms after."""
    for name in "pq":
        behave(world.repository, name, load_s=0.5, finalize_s=0.5, megabytes=100)
    async with world.open(memory_budget=ONE) as client:
        assert (await client.ask("p")).status_code == 503
        await asyncio.sleep(0.1)
        assert (await client.ask("q")).status_code == 503
        await asyncio.sleep(2.0)  # P is there, and Q waits; P's caller comes back late
        assert (await client.ask("p")).status_code == 200
        await client.until_served("q")
        assert (await client.ask("q")).status_code == 200
        await asyncio.sleep(0.05)
        await asyncio.gather(client.until_served("q"), client.until_served("p"))


@pytest.mark.asyncio
async def test_a_model_beyond_the_budget_is_refused_at_once_and_evicts_nothing(world: World) -> None:
    behave(world.repository, "r", megabytes=400)
    async with world.open(memory_budget=300 * MB) as client:
        await client.until_served("r")  # nobody knew, and what is seen is too much
        for _ in range(100):
            if "r" not in world.held():
                break
            await asyncio.sleep(0.1)
        await client.until_served("p")
        await client.until_served("q")
        for _ in range(5):
            begun = time.monotonic()
            answer = await client.ask("r")
            assert (answer.status_code, answer.json()["detail"]["code"]) == (502, "MODEL_LOAD_FAILED")
            assert answer.json()["detail"]["permanent"] and "memory budget is 300 MB" in answer.text
            assert time.monotonic() - begun < 0.5
            assert [(await client.ask(name)).status_code for name in "pq"] == [200, 200]
        assert world.held() == {"p", "q"}
        assert (await client.info("r"))["last_error"]["permanent"]


@pytest.mark.asyncio
async def test_a_broken_model_says_why_and_is_served_after_its_repair_without_a_restart(world: World) -> None:
    file = world.repository / f"acme__{GRAPH}" / "1" / "model.onnx"
    whole = file.read_bytes()
    try:
        file.unlink()
        async with world.open(load_cooldown_s=1.0) as client:
            await client.until_served("q")
            assert (await client.ask(GRAPH)).status_code == 503
            info = await client.until(GRAPH, "failed")
            assert not info["loaded"]
            assert info["last_error"]["attempts"] == 1 and not info["last_error"]["permanent"]
            assert "model.onnx` for model `acme__o`" in info["last_error"]["message"]
            answer = await client.ask(GRAPH)
            assert (answer.status_code, answer.json()["detail"]["code"]) == (502, "MODEL_LOAD_FAILED")
            assert (await client.ask("q")).status_code == 200
            assert (await client.http.get("/readyz")).status_code == 200
            file.write_bytes(whole)
            await asyncio.sleep(1.1)
            await client.until_served(GRAPH)
            assert (await client.info(GRAPH))["last_error"] is None
    finally:
        file.write_bytes(whole)


@pytest.mark.asyncio
async def test_a_load_that_never_ends_is_given_up_and_takes_nobody_along(tmp_path: Path) -> None:
    """tritonserver waits for ever for a model of its Python backend without its file; it is asked about it once."""
    server = TritonServer(ServerSpec(write_world(tmp_path), tmp_path / "triton.log", on_demand=True))
    server.start()
    try:
        server.wait_ready(60)
        world = World(server)
        (world.repository / "acme__p" / "1" / "model.py").unlink()
        async with world.open(load_timeout_s=3.0, load_cooldown_s=0.1) as client:
            assert (await client.ask("p")).status_code == 503
            await client.until_served("q")
            assert (await client.until("p", "failed", 20))["last_error"]["message"].endswith("within 3 s")
            assert (await client.ask("q")).status_code == 200
            await asyncio.sleep(0.2)
            assert (await client.ask("p")).status_code == 503
            assert (await client.ask("q")).status_code == 200
    finally:
        server.stop(0)


@pytest.mark.asyncio
async def test_memory_returns_to_the_start_and_the_next_load_waits_for_its_release(world: World) -> None:
    """Failing loads and good ones, in turn; a model that ends slowly holds its memory until its process is gone."""
    async with world.open(memory_budget=ONE, load_cooldown_s=0.01) as client:
        for _ in range(2):
            behave(world.repository, "p", megabytes=100, fails=True)
            assert (await client.ask("p")).status_code == 503
            assert "the weights are cut short" in (await client.until("p", "failed"))["last_error"]["message"]
            assert await client.metric("memory_used_bytes") == 0
            behave(world.repository, "p", megabytes=100, finalize_s=0.7)
            await asyncio.sleep(0.1)
            await client.until_served("p")
            behave(world.repository, "q", megabytes=100)
            assert (await client.ask("q")).status_code == 503
            while (await client.info("q"))["state"] != "loaded":
                large = [name for name, size in world.server.model_memory().items() if size > 80 * MB]
                assert len(large) <= 1, "both are in memory"
                await asyncio.sleep(0.05)
            assert (await client.ask("q")).status_code == 200
    async with world.open(idle_evict_s=0.2) as client:
        for _ in range(200):
            if not await client.metric("memory_used_bytes") and not world.server.model_memory():
                break
            await asyncio.sleep(0.05)
        assert await client.metric("memory_used_bytes") == 0
        assert world.server.model_memory() == {}


@pytest.mark.asyncio
async def test_a_slow_load_delays_nobody_else(world: World) -> None:
    """Two loads of six seconds; health, states and another model are asked all the time."""
    for name in "pq":
        behave(world.repository, name, load_s=6.0)
    async with world.open() as client:
        await client.until_served("r")

        async def measured(asked: str) -> float:
            begun = time.monotonic()
            if asked == "r":
                assert (await client.ask("r")).status_code == 200
            else:
                assert (await client.http.get(asked)).status_code == 200
            return time.monotonic() - begun

        async def storm(seconds: float) -> dict[str, list[float]]:
            delays: dict[str, list[float]] = {}
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                for asked in ("/readyz", "/livez", "/v1/models", "r"):
                    delays.setdefault(asked, []).append(await measured(asked))
                await asyncio.sleep(0.05)
            return delays

        quiet = await storm(1.0)
        begun = time.monotonic()
        await asyncio.gather(client.ask("p"), client.ask("q"))
        loading = await storm(3.0)
        states = await client.states()
        assert (states["p"], states["q"]) == ("loading", "loading"), (loading, time.monotonic() - begun)
        for asked, delays in loading.items():
            assert sorted(delays)[len(delays) // 2] < sorted(quiet[asked])[len(quiet[asked]) // 2] + 0.1, asked
            assert max(delays) < 4, asked
        # A third one is not held up either.
        assert await client.until_served("s") < 3
        await client.until_served("p")


@pytest.mark.asyncio
async def test_pinned_and_preloaded_ones_are_there_before_it_is_ready_and_idle_ones_go(world: World) -> None:
    async with world.open(pin=sie_id("p"), preload=f"{sie_id('q')}:raw", idle_evict_s=0.5) as client:
        assert (await client.ask("p")).status_code == 200
        await client.until("q", "available")
        assert await client.states() == dict.fromkeys((*NAMES, GRAPH), "available") | {"p": "loaded"}


@pytest.mark.asyncio
async def test_what_triton_lost_or_already_holds_is_noticed(world: World) -> None:
    """Somebody unloads behind our back, and a frontend that starts anew finds what the last one left."""
    async with world.open() as client:
        await client.until_served("p")
        await asyncio.sleep(1.2)
        httpx.post(f"{world.server.url}/v2/repository/models/acme__p/unload", timeout=60)
        await client.until_served("p")
    async with world.open() as client:
        assert (await client.states())["p"] == "loaded"
        assert (await client.ask("p")).status_code == 200


@pytest.mark.asyncio
async def test_every_replica_gets_the_load_and_one_that_lacks_a_model_gets_it_later(
    world: World, tmp_path: Path
) -> None:
    spec = replace(world.server.spec, log_path=tmp_path / "second.log", http_port=0, metrics_port=0)
    second = TritonServer(spec)
    second.start()
    try:
        second.wait_ready(60)
        other = World(second)
        async with world.open(urls=[world.server.url, second.url]) as client:
            await client.until_served("p")
            for one in (world, other):
                await until(lambda one=one: one.held() == {"p"})  # type: ignore[misc]
            await asyncio.sleep(1.2)
            httpx.post(f"{second.url}/v2/repository/models/acme__p/unload", timeout=60)
            assert (await client.ask("p")).status_code == 200
            await until(lambda: other.held() == {"p"})
        async with world.open(urls=[world.server.url, second.url], idle_evict_s=0.1) as client:
            await until(lambda: not world.held() and not other.held())
    finally:
        second.stop(3)


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def test_two_hundred_mixed_requests_over_four_models_with_room_for_two(world: World, tmp_path: Path) -> None:
    """Clients of the SDK see no error and their own model's vectors; never are more than two resident."""
    for name in NAMES:
        behave(world.repository, name, load_s=0.2, megabytes=100)
    budget = ("--memory-budget", "290MB")  # two that nobody has seen yet, and two of those that were seen
    url = world.server.url.removeprefix("http://")
    process = FrontendProcess(tmp_path / "log", "--repository", world.repository, "--triton-url", url, *budget)
    most: list[set[str]] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            most.append(world.held())

    async def everybody() -> list[str]:
        texts = ["the cell", "a power house", "search answers embed text", "mitochondria"]
        async with SIEAsyncClient(process.url) as client:

            async def one(number: int) -> str:
                name, text = NAMES[number * 7 % 4], texts[number % len(texts)]
                await asyncio.sleep(number % 10 * 0.02)
                found = await client.encode(sie_id(name), Item(text=text))
                np.testing.assert_allclose(found["dense"], expected(world.repository, name, text), atol=1e-4)
                return name

            return await asyncio.gather(*(one(number) for number in range(200)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with process:
            process.wait_ready()
            served = asyncio.run(asyncio.wait_for(everybody(), 60))
    finally:
        done.set()
        watcher.join()
    assert sorted(served) == sorted(NAMES * 50)
    assert {len(held) for held in most} <= {0, 1, 2}
    assert set().union(*most) == set(NAMES)
