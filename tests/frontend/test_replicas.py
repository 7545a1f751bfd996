"""Several Tritons behind one frontend: the least busy one computes, and one that is gone is not noticed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from aiohttp import web
from compiler import tiny
from sie_frontend.settings import Settings
from sie_frontend.triton import replicas as replicas_module
from sie_frontend.triton.client import FailureKind, TritonFailure
from sie_frontend.triton.replicas import ReplicaSet
from sie_frontend.watch.metrics import Metrics
from sie_frontend.watch.tracing import NoTracing

from frontend.conftest import Service, until_ready
from frontend.fake_triton import FakeTriton, Run, compute, expected, failure, tensors
from frontend.repository import token_ids
from frontend.test_failures import drop, hang
from frontend.wire import dense, encode, refusal, texts

INPUTS = {"input_ids": np.ones((1, 4), np.int64), "attention_mask": np.ones((1, 4), np.int64)}


@pytest.fixture
def tritons() -> Iterator[list[FakeTriton]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(FakeTriton()) for _ in range(3)]


@contextlib.asynccontextmanager
async def replica_set(
    tritons: list[FakeTriton], metrics: Metrics | None = None, timeout_s: float = 20
) -> AsyncIterator[ReplicaSet]:
    """A set over these Tritons that has asked each of them once."""
    made = ReplicaSet([t.url for t in tritons], metrics or Metrics(), NoTracing(), timeout_s=timeout_s)
    try:
        await made.model_ready(tiny.TRITON_NAME)
        yield made
    finally:
        await made.close()


async def infer(replicas: ReplicaSet) -> None:
    arrays = await replicas.infer(tiny.TRITON_NAME, INPUTS, ("dense",))
    np.testing.assert_array_equal(arrays["dense"][0], expected([1, 1, 1, 1]))


@pytest.mark.asyncio
async def test_idle_replicas_take_turns(tritons: list[FakeTriton]) -> None:
    async with replica_set(tritons) as replicas:
        for _ in range(9):
            await infer(replicas)
    assert [len(triton.runs) for triton in tritons] == [3, 3, 3]


@pytest.mark.asyncio
async def test_the_least_busy_replica_is_asked(tritons: list[FakeTriton]) -> None:
    """One replica never ends its first run: it gets no further one while the others have fewer in flight."""
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def wait(run: Run) -> web.StreamResponse:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(release.wait(), loop))
        return tensors(run)

    tritons[0].answer = wait
    async with replica_set(tritons) as replicas:
        held = asyncio.create_task(infer(replicas))
        while not tritons[0].runs:
            await asyncio.sleep(0.01)
        for _ in range(6):
            await infer(replicas)
        assert [len(triton.runs) for triton in tritons] == [1, 3, 3]
        release.set()
        await held


@pytest.mark.asyncio
async def test_only_replicas_that_serve_the_model_are_asked(tritons: list[FakeTriton]) -> None:
    tritons[1].ready = False
    async with replica_set(tritons) as replicas:
        assert await replicas.model_ready(tiny.TRITON_NAME)
        assert await replicas.server_ready()
        for _ in range(4):
            await infer(replicas)
        assert [len(triton.runs) for triton in tritons] == [2, 0, 2]
        for triton in tritons:
            triton.ready = False
        assert not await replicas.model_ready(tiny.TRITON_NAME)
        assert not await replicas.server_ready()
        # Rows that were admitted a moment ago are tried all the same.
        await infer(replicas)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (drop, FailureKind.UNREACHABLE),
        (failure(400, "Request for unknown model: 'acme__tiny' is not found"), FailureKind.NOT_READY),
        (failure(500, "Stub process 'acme__tiny.encoder_0_0' is not healthy."), FailureKind.BROKEN),
    ],
)
@pytest.mark.asyncio
async def test_a_run_without_an_answer_goes_to_another_replica_once(
    answer: object, kind: FailureKind, tritons: list[FakeTriton]
) -> None:
    metrics = Metrics()
    tritons[0].answer = answer  # type: ignore[assignment]
    async with replica_set(tritons, metrics) as replicas:
        await infer(replicas)
        assert [bool(triton.runs) for triton in tritons] == [True, True, False]
        # It is left alone until it says again that it serves the model.
        asked = len(tritons[0].runs)
        for _ in range(4):
            await infer(replicas)
        assert len(tritons[0].runs) == asked
        labels = {"replica": tritons[0].url, "kind": kind.value}
        assert metrics.registry.get_sample_value("sie_frontend_run_retries_total", labels) == 1
        ready = metrics.registry.get_sample_value("sie_frontend_triton_ready", {"replica": tritons[0].url})
        assert ready == 0
        tritons[0].answer = compute
        await replicas.model_ready(tiny.TRITON_NAME)
        await infer(replicas)
        assert len(tritons[0].runs) == asked + 1


@pytest.mark.asyncio
async def test_a_run_is_tried_twice_and_no_more(tritons: list[FakeTriton]) -> None:
    for triton in tritons:
        triton.answer = drop
    async with replica_set(tritons) as replicas:
        with pytest.raises(TritonFailure) as caught:
            await infer(replicas)
    assert caught.value.kind is FailureKind.UNREACHABLE
    assert [bool(triton.runs) for triton in tritons] == [True, True, False]


@pytest.mark.parametrize(
    "answer",
    [failure(400, "unexpected shape"), failure(503, "Exceeds maximum queue size"), failure(500, "out of memory")],
)
@pytest.mark.asyncio
async def test_what_a_replica_answers_is_the_answer(answer: object, tritons: list[FakeTriton]) -> None:
    for triton in tritons:
        triton.answer = answer  # type: ignore[assignment]
    async with replica_set(tritons) as replicas:
        with pytest.raises(TritonFailure):
            await infer(replicas)
    assert sum(len(triton.runs) for triton in tritons) == 1


@pytest.mark.asyncio
async def test_a_run_that_used_its_time_up_is_not_repeated(tritons: list[FakeTriton]) -> None:
    for triton in tritons:
        triton.answer = hang
    async with replica_set(tritons, timeout_s=0.3) as replicas:
        with pytest.raises(TritonFailure):
            await infer(replicas)
    assert sum(len(triton.runs) for triton in tritons) == 1


@pytest.mark.asyncio
async def test_one_replica_is_as_good_as_a_client(triton: FakeTriton) -> None:
    triton.answer = drop
    async with replica_set([triton]) as replicas:
        with pytest.raises(TritonFailure) as caught:
            await infer(replicas)
    assert caught.value.kind is FailureKind.UNREACHABLE


# Names with several addresses


class Names:
    """What the resolver answers; the addresses are loopback's own, where each Triton listens on one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[str] | None = []
        self.asked: list[tuple[str, int]] = []
        monkeypatch.setattr(replicas_module, "_RESOLVE_S", 0.0)
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self._look_up)

    async def _look_up(self, host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        self.asked.append((host, port))
        if self.addresses is None:
            raise socket.gaierror("no address")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]


@pytest.mark.asyncio
async def test_replicas_follow_the_addresses_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch)
    metrics = Metrics()

    def known() -> set[str]:
        [family] = [f for f in metrics.registry.collect() if f.name == "sie_frontend_triton_ready"]
        return {sample.labels["replica"] for sample in family.samples}

    with FakeTriton(host="127.0.0.2") as first, FakeTriton(host="127.0.0.3", port=first.port) as second:
        replicas = ReplicaSet([f"dns://triton.prod:{first.port}"], metrics, NoTracing())
        assert not await replicas.model_ready(tiny.TRITON_NAME)
        with pytest.raises(TritonFailure, match="has no address"):
            await infer(replicas)
        names.addresses = ["127.0.0.2"]
        assert await replicas.model_ready(tiny.TRITON_NAME)
        assert names.asked[-1] == ("triton.prod", first.port)
        await infer(replicas)
        assert replicas.serving(tiny.TRITON_NAME) == 1
        names.addresses = ["127.0.0.3", "127.0.0.2"]
        assert await replicas.model_ready(tiny.TRITON_NAME)
        assert (replicas.serving(tiny.TRITON_NAME), replicas.serving(tiny.TRITON_NAME, 1)) == (2, 1)
        for _ in range(4):
            await infer(replicas)
        assert (len(first.runs), len(second.runs)) == (3, 2)
        # A resolver that fails takes nothing away.
        names.addresses = None
        assert await replicas.model_ready(tiny.TRITON_NAME)
        assert replicas.serving(tiny.TRITON_NAME) == 2
        # One that goes finishes its runs, and its series end.
        release = threading.Event()

        async def wait(run: Run) -> web.StreamResponse:
            while not release.is_set():
                await asyncio.sleep(0.01)
            return tensors(run)

        first.answer = wait
        held = asyncio.create_task(infer(replicas))
        other = asyncio.create_task(infer(replicas))
        while len(first.runs) < 4:
            await asyncio.sleep(0.01)
        names.addresses = ["127.0.0.3"]
        assert await replicas.model_ready(tiny.TRITON_NAME)
        assert first.url in known()
        for _ in range(2):
            await infer(replicas)
        assert len(first.runs) == 4
        release.set()
        await asyncio.gather(held, other)
        while known() != {second.url}:
            await asyncio.sleep(0.02)
        await replicas.close()


@pytest.mark.asyncio
async def test_a_name_is_looked_up_for_real(triton: FakeTriton) -> None:
    replicas = ReplicaSet([f"dns://localhost:{triton.port}"], Metrics(), NoTracing())
    assert await replicas.model_ready(tiny.TRITON_NAME)
    await infer(replicas)
    await replicas.close()


# Through the routes


@pytest.mark.asyncio
async def test_callers_do_not_notice_that_a_triton_goes(repository: Path) -> None:
    with FakeTriton() as stays:
        with FakeTriton() as goes:
            service = Service(Settings(repository, triton_url=f"{goes.url},{stays.url}"))
            opened = service.open()
            client = await opened.__aenter__()
            for number in range(8):
                assert dense(await encode(client, texts(f"cell {number}")))
            assert goes.runs
            assert stays.runs
        wanted = expected(token_ids(repository, "the cell"))
        for _ in range(8):
            (vector,) = dense(await encode(client, texts("the cell")))
            np.testing.assert_array_equal(vector, wanted)
        assert (await client.get("/readyz")).status_code == 200
        await opened.__aexit__(None, None, None)


@pytest.mark.parametrize(("keep_busy", "ahead", "most"), [(0, 0, 4), (1, 0, 2), (0, 1, 6), (1, 1, 3)])
@pytest.mark.asyncio
async def test_as_many_runs_as_the_tritons_that_serve_can_take(
    keep_busy: int, ahead: int, most: int, repository: Path, tritons: list[FakeTriton]
) -> None:
    """Two streams for each of two Tritons, or for one, and what is sent ahead to each; the third does not serve."""
    running = peak = 0
    lock = threading.Lock()

    async def slowly(run: Run) -> web.StreamResponse:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        await asyncio.sleep(0.05)
        with lock:
            running -= 1
        return tensors(run)

    tritons[2].ready = False
    for triton in tritons:
        triton.answer = slowly
    urls = ",".join(triton.url for triton in tritons)
    settings = Settings(repository, triton_url=urls, keep_busy=keep_busy, inflight_extra=ahead)
    async with Service(settings).open() as client:
        assert len(dense(await encode(client, texts(*("cell " * 40 + str(n) for n in range(200)))))) == 200
    assert peak == most
    assert not tritons[2].runs


@pytest.mark.asyncio
async def test_without_any_triton_it_is_loading_as_ever(repository: Path, triton: FakeTriton) -> None:
    service = Service(Settings(repository, triton_url=f"{triton.url},127.0.0.1:9"))
    async with service.open() as client:
        triton.ready, triton.answer = False, drop
        await until_ready(client, 503)
        assert refusal(await encode(client, texts("the cell")))[:2] == (503, "MODEL_LOADING")
        triton.ready, triton.answer = True, compute
        await until_ready(client)
        assert dense(await encode(client, texts("the cell")))


async def sample(client: httpx.AsyncClient, name: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return float(next(line for line in lines if line.startswith(name)).rpartition(" ")[2])


@pytest.mark.asyncio
async def test_metrics_tell_the_replicas_apart(repository: Path, triton: FakeTriton) -> None:
    service = Service(Settings(repository, triton_url=f"{triton.url},127.0.0.1:9"))
    async with service.open() as client:
        await encode(client, texts("the cell"))
        assert await sample(client, f'sie_frontend_triton_ready{{replica="{triton.url}"}}') == 1
        assert await sample(client, 'sie_frontend_triton_ready{replica="127.0.0.1:9"}') == 0
        assert await sample(client, f'sie_frontend_triton_inflight_runs{{replica="{triton.url}"}}') == 0
