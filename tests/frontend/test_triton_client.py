"""The client of Triton against servers that are right in every way HTTP allows, and wrong in every way we thought of.

The servers read requests with h11, another implementation of HTTP than the client's. `conftest` runs every test on the
event loop of the standard library and on the one that serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any

import h11
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from sie_frontend.triton.client import FailureKind, TritonClient, TritonFailure, parse_url

DATATYPES = {
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
}
X = np.asarray([[1.5, -2.0]], np.float32)

Answer = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The server's end of one connection, with the request that it has just read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.target = ""
        self.headers: dict[str, str] = {}
        self.body = b""
        self.requests = 0

    async def read_request(self) -> bool:
        """Whether there was one more request."""
        connection = h11.Connection(h11.SERVER)
        chunks = []
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await self.reader.read(65536))
            elif isinstance(event, h11.Request):
                self.target = event.target.decode()
                self.headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                chunks.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self.body = b"".join(chunks)
                self.requests += 1
                return True
            else:
                return False

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            await asyncio.sleep(0)

    def echo(self) -> tuple[bytes, bytes]:
        """JSON and tensors of an answer whose outputs are the inputs."""
        length = int(self.headers["inference-header-content-length"])
        head = json.loads(self.body[:length])
        asked = [output["name"] for output in head["outputs"]]
        assert all(output["parameters"] == {"binary_data": True} for output in head["outputs"])
        outputs, data, offset = [], b"", length
        for tensor in head["inputs"]:
            end = offset + tensor["parameters"]["binary_data_size"]
            if tensor["name"] in asked:
                outputs.append(tensor)
                data += self.body[offset:end]
            offset = end
        assert offset == len(self.body)
        return json.dumps({"model_name": "echo", "outputs": outputs}).encode(), data


def reply(head: bytes, data: bytes = b"", status: str = "200 OK", more: str = "") -> bytes:
    """An answer framed by its length."""
    size = f"Inference-Header-Content-Length: {len(head)}\r\n" if data else ""
    return f"HTTP/1.1 {status}\r\n{size}{more}Content-Length: {len(head) + len(data)}\r\n\r\n".encode() + head + data


async def regular(peer: Peer) -> None:
    await peer.send(reply(*peer.echo()))


class Server:
    """Answers each request by `answer`, and counts connections and requests."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.connections = 0
        self.open = 0
        self.targets: list[str] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        peer = Peer(reader, writer)
        try:
            while not writer.is_closing() and await peer.read_request():
                self.targets.append(peer.target)
                await self.answer(peer)
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()


@contextlib.asynccontextmanager
async def serving(answer: Answer = regular, host: str = "127.0.0.1") -> AsyncIterator[Server]:
    server = Server(answer)
    listener = await asyncio.start_server(server.serve, host, 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


@contextlib.asynccontextmanager
async def client_of(server: Server, timeout_s: float = 20.0, connections: int = 64) -> AsyncIterator[TritonClient]:
    client = TritonClient(f"127.0.0.1:{server.port}", timeout_s=timeout_s, connections=connections)
    try:
        yield client
    finally:
        await client.close()


async def call(client: TritonClient, array: NDArray[Any] = X) -> NDArray[Any]:
    return (await client.infer("echo", {"x": array}, ["x"]))["x"]


async def settle(condition: Callable[[], bool]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), 10)


def cut(data: bytes, places: Sequence[float]) -> list[bytes]:
    """`data` in pieces, none of them empty."""
    ends = sorted({round(place * len(data)) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


# Every array, every framing


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    inputs=st.lists(
        st.sampled_from(sorted(DATATYPES)).flatmap(
            lambda name: arrays(np.dtype(name), array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
        ),
        min_size=1,
        max_size=4,
    ),
    chunked=st.booleans(),
    places=st.lists(st.floats(0, 1), max_size=5),
    segments=st.lists(st.floats(0, 1), max_size=8),
    transposed=st.booleans(),
)
def test_arrays_come_back_as_they_went(
    inputs: list[NDArray[Any]], chunked: bool, places: list[float], segments: list[float], transposed: bool
) -> None:
    """Whatever their types and shapes, however the answer is framed, and wherever the network cuts it."""

    async def answer(peer: Peer) -> None:
        head, data = peer.echo()
        for tensor in json.loads(head)["outputs"]:
            array = sent[tensor["name"]]
            assert (tensor["datatype"], tensor["shape"]) == (DATATYPES[array.dtype.name], list(array.shape))
        whole = reply(head, data)
        if chunked:
            chunks = [f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in cut(head + data, places)]
            lines = (
                f"HTTP/1.1 200 OK\r\ninference-header-content-length: {len(head)}\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            whole = lines.encode() + b"".join(chunks) + b"0\r\n\r\n"
        await peer.send(*cut(whole, segments))

    sent = {f"tensor {n}": array.T if transposed else array for n, array in enumerate(inputs)}

    async def main() -> None:
        async with serving(answer) as server, client_of(server) as client:
            for names in (list(sent), list(sent)[:1]):
                got = await client.infer("echo", sent, names)
                assert list(got) == names
                for name, array in got.items():
                    assert array.dtype == sent[name].dtype
                    np.testing.assert_array_equal(array, sent[name])
            assert server.connections == 1

    asyncio.run(main())


@pytest.mark.asyncio
async def test_many_megabytes_both_ways() -> None:
    array = np.arange(3_000_000, dtype=np.float32).reshape(3, 1000, 1000)
    async with serving() as server, client_of(server) as client:
        got = await call(client, array)
        np.testing.assert_array_equal(got, array)
        assert got.flags.aligned


@pytest.mark.asyncio
async def test_a_name_is_quoted_and_the_host_is_named() -> None:
    async def answer(peer: Peer) -> None:
        assert peer.headers["host"] == f"127.0.0.1:{server.port}"
        await regular(peer)

    async with serving(answer) as server, client_of(server) as client:
        await client.infer("a model/of ours", {"x": X}, ["x"])
    assert server.targets == ["/v2/models/a%20model/of%20ours/infer"]


@pytest.mark.asyncio
async def test_a_preliminary_answer_is_not_the_answer() -> None:
    async def answer(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n", reply(*peer.echo()))

    async with serving(answer) as server, client_of(server) as client:
        for _ in range(2):
            np.testing.assert_array_equal(await call(client), X)
        assert server.connections == 1


@pytest.mark.asyncio
async def test_an_answer_may_end_with_its_connection() -> None:
    async def answer(peer: Peer) -> None:
        head, data = peer.echo()
        await peer.send(f"HTTP/1.0 200 OK\r\nInference-Header-Content-Length: {len(head)}\r\n\r\n".encode(), head, data)
        peer.writer.close()

    async with serving(answer) as server, client_of(server) as client:
        for _ in range(2):
            np.testing.assert_array_equal(await call(client), X)
        assert server.connections == 2


# Hostile answers

HEAD = b'{"outputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}]}'
DATA = X.tobytes()


def head_with(**changes: Any) -> bytes:
    output = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    return json.dumps({"outputs": [output | changes]}).encode()


HOSTILE: list[tuple[bytes, FailureKind, str]] = [
    (reply(HEAD, DATA)[:-3], FailureKind.UNREACHABLE, "in the middle of the answer"),
    (reply(HEAD, DATA)[:20], FailureKind.UNREACHABLE, "in the middle of the answer"),
    (b"", FailureKind.UNREACHABLE, "before the answer"),
    (b"\x00\xff\x13 garbage\r\n\r\n" * 9, FailureKind.UNREACHABLE, "not HTTP"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", FailureKind.UNREACHABLE, "not HTTP"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", FailureKind.UNREACHABLE, "not HTTP"),
    (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", FailureKind.UNREACHABLE, "not HTTP|lost"),
    (reply(HEAD, DATA[:-1]), FailureKind.REJECTED, "ends in the middle of `x`"),
    (reply(HEAD, DATA + b"!"), FailureKind.REJECTED, "1 bytes are left over"),
    (reply(head_with(shape=[1, 3]), DATA), FailureKind.REJECTED, r"`x` is FP32 \[1, 3\] in 8 bytes"),
    (reply(head_with(shape=[-1, -2]), DATA), FailureKind.REJECTED, "in 8 bytes"),
    (reply(head_with(shape="wide"), DATA), FailureKind.REJECTED, "cannot be read"),
    (reply(head_with(datatype="BYTES"), DATA), FailureKind.REJECTED, "not a binary tensor of numbers"),
    (reply(head_with(parameters={}, data=[1, 2]), DATA), FailureKind.REJECTED, "not a binary tensor"),
    (reply(head_with(parameters={"binary_data_size": -8}), DATA), FailureKind.REJECTED, "in -8 bytes"),
    (reply(head_with(name="y"), DATA), FailureKind.REJECTED, "no tensor `x`"),
    (reply(b'{"outputs":', DATA), FailureKind.REJECTED, "cannot be read"),
    (reply(b"[]", DATA), FailureKind.REJECTED, "cannot be read"),
    (reply(b"\xff\xfe", DATA), FailureKind.REJECTED, "cannot be read"),
    (reply(HEAD), FailureKind.REJECTED, "ends in the middle"),
    (reply(HEAD, more="Inference-Header-Content-Length: -1\r\n"), FailureKind.REJECTED, "said to have b'-1' bytes"),
    (reply(HEAD, more="Inference-Header-Content-Length: 999\r\n"), FailureKind.REJECTED, "ends in the middle"),
    (reply(b'{"error":"the cell is full"}', status="400 Bad"), FailureKind.REJECTED, "^the cell is full$"),
    (reply(b"<html>", status="502 Bad Gateway"), FailureKind.REJECTED, "HTTP 502: <html>"),
    (reply(b"[1]", status="500 Oh"), FailureKind.REJECTED, "HTTP 500"),
    (reply(b"\xff", status="503 Oh"), FailureKind.OVERLOADED, "HTTP 503"),
    (reply(b"", status="204 No Content"), FailureKind.REJECTED, "HTTP 204"),
    (reply(b'{"error":"Exceeds maximum queue size"}', status="500 Oh"), FailureKind.OVERLOADED, "queue size"),
    (reply(b'{"error":"model \'x\' is not found"}', status="400 Oh"), FailureKind.NOT_READY, "not found"),
    (reply(b'{"error":"Stub process \'x_0_0\' is not healthy."}', status="500 Oh"), FailureKind.BROKEN, "healthy"),
    (reply(b'{"error":"CUDA error: all gone"}', status="500 Oh"), FailureKind.OUT_OF_MEMORY, "gone"),
]


@pytest.mark.parametrize("case", range(len(HOSTILE)))
@pytest.mark.asyncio
async def test_what_is_no_answer_fails_with_its_cause(case: int) -> None:
    raw, kind, message = HOSTILE[case]

    async def answer(peer: Peer) -> None:
        await peer.send(raw)
        peer.writer.close()

    async with serving(answer) as server, client_of(server) as client:
        with pytest.raises(TritonFailure, match=message) as failed:
            await call(client)
        assert failed.value.kind is kind
        # Whatever it was, the next call is not disturbed by it.
        server.answer = regular
        np.testing.assert_array_equal(await call(client), X)


@settings(max_examples=80, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6))
def test_no_broken_answer_is_more_than_a_failure(flips: list[tuple[int, int]]) -> None:
    raw = bytearray(reply(HEAD, DATA))
    for place, value in flips:
        raw[place % len(raw)] = value

    async def answer(peer: Peer) -> None:
        await peer.send(bytes(raw))
        peer.writer.close()

    async def main() -> None:
        async with serving(answer) as server, client_of(server, timeout_s=5) as client:
            with contextlib.suppress(TritonFailure):
                assert (await call(client)).shape == (1, 2)

    asyncio.run(main())


# Connections


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
                    np.testing.assert_array_equal(await asyncio.wait_for(call(client, array), 0.5), array)
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
