"""A Triton that answers as a test wants it, byte by byte, and a client of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any

import h11
import numpy as np
from numpy.typing import NDArray
from sie_frontend.triton.client import Late, TritonClient

DATATYPES = {
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign.upper()}INT{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
}
X = np.asarray([[1.5, -2.0]], np.float32)
HEAD = b'{"outputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}]}'
DATA = X.tobytes()

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
        self._writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self._writers.add(writer)
        peer = Peer(reader, writer)
        try:
            while not writer.is_closing() and await peer.read_request():
                self.targets.append(peer.target)
                await self.answer(peer)
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.close()

    def abort(self) -> None:
        """End what still waits for an answer."""
        for writer in self._writers:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def serving(answer: Answer = regular, host: str = "127.0.0.1") -> AsyncIterator[Server]:
    server = Server(answer)
    listener = await asyncio.start_server(server.serve, host, 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        server.abort()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def client_of(
    server: Server, timeout_s: float = 20.0, connections: int = 64, late: Late | None = None
) -> AsyncIterator[TritonClient]:
    client = TritonClient(f"127.0.0.1:{server.port}", timeout_s=timeout_s, connections=connections, late=late)
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

    await asyncio.wait_for(poll(), 60)


def cut(data: bytes, places: Sequence[float]) -> list[bytes]:
    """`data` in pieces, none of them empty."""
    ends = sorted({round(place * len(data)) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(ends)]


# Every array, every framing
