"""Connections to Triton: kept, shared and given up; and the addresses that they go to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
import uvloop
from sie_frontend.triton.client import FailureKind, TritonClient, TritonFailure, parse_url
from sie_frontend.triton.connections import ExchangeError, _Connection

from .triton_peer import DATA, HEAD, Answer, Peer, X, call, client_of, regular, reply, serving, settle


@pytest.mark.asyncio
async def test_calls_after_each_other_share_a_connection_and_calls_at_once_do_not() -> None:
    gate = asyncio.Event()

    async def answer(peer: Peer) -> None:
        await gate.wait()
        await regular(peer)

    async with serving(answer) as server, client_of(server, connections=3) as client:
        together = [asyncio.create_task(call(client, X + n)) for n in range(5)]
        await settle(lambda: len(server.targets) == 5)
        gate.set()
        for number, task in enumerate(together):
            np.testing.assert_array_equal(await task, X + number)
        assert server.connections == 5
        await settle(lambda: server.open == 3)  # what is over the number that is kept is closed
        for _ in range(4):
            await call(client)
        assert server.connections == 5
    await settle(lambda: server.open == 0)


@pytest.mark.asyncio
async def test_a_connection_that_the_server_closed_while_idle_is_replaced() -> None:
    async def answer(peer: Peer) -> None:
        await regular(peer)
        peer.writer.close()  # without having said so

    async with serving(answer) as server, client_of(server) as client:
        for number in range(4):
            np.testing.assert_array_equal(await call(client, X + number), X + number)
            await settle(lambda: server.open == 0)
            await asyncio.sleep(0.01)
        assert len(server.targets) == 4


class Second:
    """The first request on a connection is answered, at the second one something else happens."""

    def __init__(self, then: Answer) -> None:
        self.then = then

    async def __call__(self, peer: Peer) -> None:
        await (regular if peer.requests == 1 else self.then)(peer)


async def hang_up(peer: Peer) -> None:
    peer.writer.close()


@pytest.mark.asyncio
async def test_a_request_that_crossed_the_closing_is_sent_again_once() -> None:
    async with serving(Second(hang_up)) as server, client_of(server) as client:
        await call(client)
        np.testing.assert_array_equal(await call(client, X + 1), X + 1)
        assert (len(server.targets), server.connections) == (3, 2)
        server.answer = hang_up
        with pytest.raises(TritonFailure, match="before the answer") as failed:
            await call(client)
        assert failed.value.kind is FailureKind.UNREACHABLE
        assert (len(server.targets), server.connections) == (5, 3)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("told", [True, False])
def test_a_connection_that_ended_before_the_first_request_on_it(
    loop: Callable[[], asyncio.AbstractEventLoop], told: bool
) -> None:
    """A write to it would raise in uvloop, and never be answered in asyncio."""

    async def run() -> None:
        async with serving(regular) as server:
            _, connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", server.port)
            assert connection._transport is not None
            connection._transport.close()
            if told:
                await settle(lambda: connection.lost)
            with pytest.raises(ExchangeError, match="lost before the answer: closed by the server"):
                await asyncio.wait_for(connection.exchange(b"GET / HTTP/1.1\r\n\r\n"), 30)

    running = loop()
    try:
        running.run_until_complete(run())
    finally:
        running.close()


@pytest.mark.asyncio
async def test_an_answer_that_had_begun_is_not_asked_for_again() -> None:
    async def begin(peer: Peer) -> None:
        await peer.send(b"H")
        peer.writer.close()

    async with serving(Second(begin)) as server, client_of(server) as client:
        await call(client)
        with pytest.raises(TritonFailure, match="in the middle"):
            await call(client)
        assert len(server.targets) == 2


@pytest.mark.asyncio
async def test_a_connection_that_is_said_to_close_is_not_used_again() -> None:
    async def answer(peer: Peer) -> None:
        await peer.send(reply(*peer.echo(), more="Connection: close\r\n"))

    async with serving(answer) as server, client_of(server) as client:
        for _ in range(3):
            await call(client)
        assert server.connections == 3


@pytest.mark.asyncio
async def test_more_than_was_asked_for_spoils_the_connection() -> None:
    async def answer(peer: Peer) -> None:
        await peer.send(reply(*peer.echo()))
        await peer.send(reply(HEAD, DATA))  # would be taken for the answer to the next call

    async with serving(answer) as server, client_of(server) as client:
        for number in range(3):
            np.testing.assert_array_equal(await call(client, X + number), X + number)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("more", [len(reply(HEAD, DATA)), 200, 30, 1])
@pytest.mark.asyncio
async def test_more_than_was_asked_for_in_one_piece(more: int) -> None:
    async def answer(peer: Peer) -> None:
        await peer.send(reply(*peer.echo()) + reply(HEAD, DATA)[:more])

    async with serving(answer) as server, client_of(server) as client:
        for number in range(3):
            np.testing.assert_array_equal(await call(client, X + number), X + number)


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\n", reply(HEAD, DATA)[:-1]])
@pytest.mark.asyncio
async def test_a_slow_answer_is_given_up_with_its_connection(beginning: bytes) -> None:
    async def stall(peer: Peer) -> None:
        await peer.send(beginning)
        await peer.reader.read()  # until the client hangs up
        await peer.send(reply(HEAD, DATA))

    async with serving(stall) as server, client_of(server, timeout_s=0.1) as client:
        with pytest.raises(TritonFailure, match="no answer in time") as failed:
            await call(client)
        assert failed.value.kind is FailureKind.UNREACHABLE
        await settle(lambda: server.open == 0)
        assert len(server.targets) == 1
        server.answer = regular
        np.testing.assert_array_equal(await call(client, X + 1), X + 1)


@pytest.mark.asyncio
async def test_a_cancelled_call_leaves_no_answer_for_the_next_one() -> None:
    gate = asyncio.Event()

    async def later(peer: Peer) -> None:
        await gate.wait()
        await regular(peer)

    async with serving() as server, client_of(server) as client:
        await call(client)
        server.answer = later
        left = asyncio.create_task(call(client, X + 1))
        await settle(lambda: len(server.targets) == 2)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        gate.set()
        for number in range(2, 5):
            np.testing.assert_array_equal(await call(client, X + number), X + number)
        assert server.connections == 2


@pytest.mark.asyncio
async def test_calls_of_many_tasks_never_get_each_others_answers() -> None:
    async def answer(peer: Peer) -> None:
        await asyncio.sleep(peer.body[-1] % 5 / 1000)
        if len(server.targets) % 7 == 0:
            peer.writer.close()
        else:
            await regular(peer)

    async with serving(answer) as server, client_of(server, connections=4) as client:
        answered = 0

        async def ask(task: int) -> None:
            nonlocal answered
            for number in range(20):
                array = np.full((2, 3), task * 100 + number, np.int64)
                try:
                    np.testing.assert_array_equal(await asyncio.wait_for(call(client, array), 60), array)
                    answered += 1
                except TritonFailure as failure:
                    assert failure.kind is FailureKind.UNREACHABLE

        await asyncio.gather(*(ask(task) for task in range(12)))
        assert answered > 120


# Where it connects to


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000, "")),
        ("http://triton:8000/", ("triton", 8000, "")),
        ("triton.models.svc.cluster.local:80", ("triton.models.svc.cluster.local", 80, "")),
        ("triton", ("triton", 80, "")),
        ("[::1]:8000", ("::1", 8000, "")),
        ("http://[fe80::1]:8000", ("fe80::1", 8000, "")),
        ("http://gateway:80/triton/a b/", ("gateway", 80, "/triton/a%20b")),
    ],
)
def test_addresses(url: str, expected: tuple[str, int, str]) -> None:
    assert parse_url(url) == expected


@pytest.mark.parametrize(
    "url", ["", ":8000", "https://triton:8000", "grpc://triton:8001", "triton:port", "triton:99999", "a:1?b", "me@a:1"]
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be `host:port`"):
        parse_url(url)


@pytest.mark.parametrize(("listen", "host"), [("127.0.0.1", "localhost"), ("::1", "[::1]")])
@pytest.mark.asyncio
async def test_names_and_addresses_of_the_sixth_version(listen: str, host: str) -> None:
    try:
        async with serving(host=listen) as server:
            client = TritonClient(f"http://{host}:{server.port}")
            np.testing.assert_array_equal(await call(client), X)
            await client.close()
    except OSError as error:
        pytest.skip(f"this machine has no {listen}: {error}")


@pytest.mark.asyncio
async def test_nobody_there() -> None:
    for url in ("127.0.0.1:9", "no-such-host.invalid:8000"):
        client = TritonClient(url, timeout_s=5)
        with pytest.raises(TritonFailure, match="no connection to") as failed:
            await call(client)
        assert failed.value.kind is FailureKind.UNREACHABLE
        assert not await client.server_ready()


@pytest.mark.parametrize(("status", "ready"), [("200 OK", True), ("400 Bad Request", False), ("503 Oh", False)])
@pytest.mark.asyncio
async def test_probes(status: str, ready: bool) -> None:
    async def answer(peer: Peer) -> None:
        await peer.send(reply(b"", status=status))

    async with serving(answer) as server, client_of(server) as client:
        assert await client.server_ready() is ready
        assert await client.model_ready("a b") is ready
        assert server.targets == ["/v2/health/ready", "/v2/models/a%20b/ready"]
