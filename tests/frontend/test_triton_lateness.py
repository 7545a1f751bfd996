"""A run without an answer is sent again only where a load holds it up, and never because it merely takes long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from sie_frontend.setting_values import is_loopback
from sie_frontend.settings import Settings
from sie_frontend.triton import model_control, patience
from sie_frontend.triton.client import TRIES, FailureKind, TritonFailure
from sie_frontend.triton.patience import RunPatience

from .triton_peer import Peer, Server, X, call, client_of, regular, reply, serving, settle

pytestmark = pytest.mark.asyncio
INFER = "/v2/models/echo/infer"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "LEAST_S", 0.05)
    monkeypatch.setattr(patience, "UNKNOWN_S", 0.1)


class Loading:
    """A Triton of whose threads some are busy with a load: connections that it accepted then get no answer."""

    def __init__(self, run: Callable[[Peer], Awaitable[None]] = regular, state: str = "LOADING") -> None:
        self.run = run
        self.state = state
        self.stuck: set[int] = set()
        self.seen: list[Peer] = []
        self.runs = 0

    async def __call__(self, peer: Peer) -> None:
        if peer not in self.seen:
            self.seen.append(peer)
        if self.seen.index(peer) in self.stuck:
            await asyncio.sleep(3600)
        if peer.target.endswith("/index"):
            await peer.send(reply(f'[{{"name":"other","state":"{self.state}"}}]'.encode()))
        elif peer.target == INFER:
            self.runs += 1
            await self.run(peer)
        else:
            await peer.send(reply(b""))


def runs_sent(server: Server) -> int:
    return server.targets.count(INFER)


async def test_a_run_that_somebody_elses_load_holds_up_is_sent_again_on_a_connection_that_answers() -> None:
    """The first connection is held up, and so is the first that would take its place."""
    triton = Loading()
    triton.stuck = {0, 2}  # the second one asks whether anything is loaded
    async with serving(triton) as server, client_of(server) as client:
        np.testing.assert_array_equal(await call(client), X)
        assert triton.runs == 1 and runs_sent(server) == 2
        assert server.targets.count("/v2/health/live") == 2


async def test_a_run_that_takes_long_is_sent_once_where_nothing_is_loaded() -> None:
    async def slow(peer: Peer) -> None:
        await asyncio.sleep(0.6)
        await regular(peer)

    triton = Loading(slow, "READY")
    async with serving(triton) as server, client_of(server) as client:
        np.testing.assert_array_equal(await call(client), X)
        assert runs_sent(server) == 1


async def test_whoever_supervises_hears_of_a_late_run_but_not_while_something_is_loaded() -> None:
    late, over = list[tuple[str, float]](), asyncio.Event()

    async def slow(peer: Peer) -> None:
        await over.wait()
        await regular(peer)

    triton = Loading(slow)
    async with serving(triton) as server, client_of(server, late=lambda *told: late.append(told)) as client:
        asked = asyncio.ensure_future(call(client))
        await settle(lambda: runs_sent(server) == 2)
        assert not late  # the load may hold it up
        triton.state = "READY"
        await settle(lambda: len(late) == 2)
        over.set()
        np.testing.assert_array_equal(await asked, X)
        told = len(late)
        await call(client)
        assert [model for model, _ in late] == ["echo"] * told
        assert 0.1 <= late[0][1] < late[1][1] < 60


async def test_a_run_that_takes_as_long_as_others_of_its_model_is_sent_once_whatever_is_loaded() -> None:
    async def slow(peer: Peer) -> None:
        await asyncio.sleep(0.3)
        await regular(peer)

    triton = Loading(slow, "READY")
    async with serving(triton) as server, client_of(server) as client:
        await call(client)
        triton.state = "LOADING"
        for _ in range(3):
            await call(client)
        assert runs_sent(server) == 4


async def test_a_run_is_sent_three_times_at_most() -> None:
    async def never(peer: Peer) -> None:
        await asyncio.sleep(3600)

    triton = Loading(never)
    async with serving(triton) as server, client_of(server, timeout_s=1.5) as client:
        with pytest.raises(Exception, match="no answer in time"):
            await call(client)
        assert runs_sent(server) == TRIES


@pytest.mark.parametrize(("counted", "lost"), [(1, True), (3, False), (9, False)])
async def test_a_run_of_a_model_that_was_loaded_anew_is_not_waited_for(counted: int, lost: bool) -> None:
    """Three runs were answered. `counted` is what Triton says of the model since it loaded it."""
    over = asyncio.Event()

    async def run(peer: Peer) -> None:
        if triton.runs > 3:
            await over.wait()
        await regular(peer)

    async def answer(peer: Peer) -> None:
        if not peer.target.endswith("/stats"):
            await triton(peer)
            return
        seen.append(peer.target)
        stats = (
            f'{{"inference_stats": {{"success": {{"count": {counted}, "ns": 5}}, "fail": {{"count": 0, "ns": 0}}}}}}'
        )
        await peer.send(reply(f'{{"model_stats": [{stats}]}}'.encode()))
        if not lost:
            over.set()

    triton, seen = Loading(run, "READY"), list[str]()
    async with serving(answer) as server, client_of(server) as client:
        for _ in range(3):
            await call(client)
        if lost:
            with pytest.raises(TritonFailure, match="was loaded anew") as failed:
                await call(client)
            assert failed.value.kind is FailureKind.BROKEN
            over.set()
        np.testing.assert_array_equal(await call(client), X)
        assert seen and set(seen) == {"/v2/models/echo/stats"}


@pytest.mark.parametrize(
    ("host", "one"),
    [
        ("127.0.0.1", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("127.0.0.1.example", False),
        ("10.0.0.7", False),
        ("triton", False),
    ],
)
async def test_counts_are_compared_where_one_triton_has_made_them(host: str, one: bool) -> None:
    """A Service of Kubernetes leads each connection to another Triton, which has counted less than all of them gave."""
    assert is_loopback(host) is one
    assert Settings(host=host).beyond_loopback is not one


async def test_a_late_run_behind_a_balancer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another Triton has counted says nothing of the run that is under way."""

    async def answer(peer: Peer) -> None:
        if peer.target.endswith("/stats"):
            await peer.send(reply(b'{"model_stats": [{"inference_stats": {"success": {"count": 0}}}]}'))
        else:
            await triton(peer)

    async def run(peer: Peer) -> None:
        await asyncio.sleep(0.5 if triton.runs > 3 else 0)
        await regular(peer)

    triton = Loading(run, "READY")
    monkeypatch.setattr("sie_frontend.triton.client.is_loopback", lambda host: False)
    async with serving(answer) as server, client_of(server) as client:
        for _ in range(4):
            np.testing.assert_array_equal(await call(client), X)


async def test_a_probe_that_is_held_up_is_asked_on_another_connection() -> None:
    triton = Loading()
    triton.stuck = {0}
    async with serving(triton) as server, client_of(server) as client:
        begun = time.monotonic()
        assert await client.model_ready("echo")
        assert time.monotonic() - begun < 3
        assert await model_control.index(client) == {"other": model_control.ModelState.LOADING}


async def test_a_failure_of_the_first_try_ends_nothing_while_the_second_is_under_way() -> None:
    triton = Loading()
    triton.stuck = {0}
    async with serving(triton) as server, client_of(server) as client:
        task = asyncio.create_task(call(client))
        while runs_sent(server) < 1:
            await asyncio.sleep(0.01)
        triton.run = lambda peer: _after(0.3, peer)
        while runs_sent(server) < 2:
            await asyncio.sleep(0.01)
        triton.seen[0].writer.close()
        np.testing.assert_array_equal(await task, X)


async def _after(seconds: float, peer: Peer) -> None:
    await asyncio.sleep(seconds)
    await regular(peer)


async def test_patience_follows_the_longest_run_and_forgets_it() -> None:
    known = RunPatience()
    assert known.of("p") == patience.UNKNOWN_S
    known.took("p", 3.0)
    assert known.of("p") == 6.0
    for _ in range(60):
        known.took("p", 0.001)
    assert known.of("p") == patience.LEAST_S
    assert known.of("q") == patience.UNKNOWN_S
