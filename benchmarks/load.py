"""The load generator: closed-loop HTTP clients in a process of their own, so light that they are not the bottleneck.

    python -m benchmarks.load < plan.msgpack > result.msgpack

Bodies are prepared by the caller; a client sends one, waits for the answer, and sends the next. The clients are
connections of one event loop, and an answer is only searched for its length, never decoded here.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parent.parent
_REQUEST_SECONDS = 600.0
_HEAD_END = b"\r\n\r\n"


class LoadError(Exception):
    """The server did not answer as it should; the message has its status and the beginning of its answer."""


class Plan(msgspec.Struct, frozen=True):
    """What to send. The clients share one list of bodies and go through it in order, `requests` in all.

    With `seconds` they start over at its end until the time is up instead. Answers of the first `keep` requests are
    returned. `warmup` requests are sent before the clock starts.
    """

    host: str
    port: int
    path: str
    content_type: str
    bodies: list[bytes]
    clients: int
    seconds: float | None = None
    keep: int = 0
    warmup: int = 0


class Result(msgspec.Struct, frozen=True):
    """Seconds of every request in the order of their beginnings, which body each sent, and what was kept."""

    latencies: list[float]
    numbers: list[int]
    wall_s: float
    cpu_s: float
    kept: dict[int, bytes]
    received_bytes: int


class _Connection(asyncio.Protocol):
    """One kept connection with at most one request under way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._wanted = -1
        self._answer: asyncio.Future[bytes] | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._answer and not self._answer.done():
            self._answer.set_exception(LoadError(f"the connection was closed: {exc or 'by the server'}"))

    async def send(self, request: bytes) -> bytes:
        """The body of the answer; raises `LoadError` unless it is a 200."""
        assert self._transport
        self._buffer.clear()
        self._wanted = -1
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._wanted < 0:
            head_end = self._buffer.find(_HEAD_END)
            if head_end < 0:
                return
            self._wanted = head_end + len(_HEAD_END) + _content_length(bytes(self._buffer[:head_end]))
        if len(self._buffer) < self._wanted or not self._answer or self._answer.done():
            return
        head, _, body = bytes(self._buffer).partition(_HEAD_END)
        # Some servers end a connection after a number of requests, and say so before they do.
        self.lost |= b"connection: close" in head.lower()
        if head.split(b" ", 2)[1] == b"200":
            self._answer.set_result(body)
        else:
            self._answer.set_exception(LoadError(f"{head.splitlines()[0].decode()}: {body[:300].decode()}"))

    def close(self) -> None:
        if self._transport:
            self._transport.close()


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise LoadError(f"an answer without content-length: {head[:300].decode()}")


async def generate(plan: Plan) -> Result:
    """Carry out `plan`."""
    loop = asyncio.get_running_loop()
    requests = [_request(plan, body) for body in plan.bodies]
    connections = [(await loop.create_connection(_Connection, plan.host, plan.port))[1] for _ in range(plan.clients)]
    for number in range(plan.warmup):
        await asyncio.wait_for(connections[0].send(requests[number % len(requests)]), _REQUEST_SECONDS)
    latencies: list[float] = []
    numbers: list[int] = []
    kept: dict[int, bytes] = {}
    received = 0
    begun = time.perf_counter()
    end = None if plan.seconds is None else begun + plan.seconds

    async def client(connection: _Connection) -> None:
        nonlocal received
        while True:
            number = len(numbers)
            sent = time.perf_counter()
            if (number >= len(requests)) if end is None else (sent >= end):
                return
            numbers.append(number % len(requests))
            latencies.append(0.0)
            if connection.lost:
                connection.close()
                connection = (await loop.create_connection(_Connection, plan.host, plan.port))[1]
            body = await connection.send(requests[number % len(requests)])
            latencies[number] = time.perf_counter() - sent
            received += len(body)
            if number < plan.keep:
                kept[number] = body

    cpu = time.process_time()
    clients = [asyncio.create_task(client(connection)) for connection in connections]
    try:
        await asyncio.wait_for(asyncio.gather(*clients), _REQUEST_SECONDS)
    finally:
        for connection in connections:
            connection.close()
    wall = time.perf_counter() - begun
    return Result(latencies, numbers, wall, time.process_time() - cpu, kept, received)


def _request(plan: Plan, body: bytes) -> bytes:
    head = (
        f"POST {plan.path} HTTP/1.1\r\nHost: {plan.host}:{plan.port}\r\nContent-Type: {plan.content_type}\r\n"
        f"Accept: {plan.content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def start(plan: Plan) -> subprocess.Popen[bytes]:
    """Begin `plan` in another process; `finish` waits for it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    process.stdin.write(msgspec.msgpack.encode(plan))
    process.stdin.close()
    process.stdin = None
    return process


def finish(process: subprocess.Popen[bytes]) -> Result:
    """The result of a plan that `start` began. Raises `LoadError`."""
    output, _ = process.communicate(timeout=_REQUEST_SECONDS + 60)
    if process.returncode:
        raise LoadError("the load generator failed; its message is above")
    return msgspec.msgpack.decode(output, type=Result)


def run(plan: Plan) -> Result:
    """Carry out `plan` in another process."""
    return finish(start(plan))


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]


def main() -> None:
    try:
        result = asyncio.run(generate(msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Plan)))
    except (LoadError, OSError, asyncio.TimeoutError) as error:
        sys.exit(f"load generator: {error or type(error).__name__}")
    sys.stdout.buffer.write(msgspec.msgpack.encode(result))


if __name__ == "__main__":
    main()
