"""A server on 127.0.0.1 that answers from a script and keeps what it received; a clock that only sleeping moves."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from sie_sdk import SIEAsyncClient, SIEClient
from sie_sdk._retry import RetryTiming

# A proxy of the machine must not come between the client and the server of a test.
os.environ["NO_PROXY"] = "127.0.0.1"

Kind = Literal["sync", "async"]
KINDS: tuple[Kind, ...] = ("sync", "async")


@dataclass(frozen=True)
class Canned:
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Received:
    method: str
    path: str
    headers: Mapping[str, str]
    """Lower-case names."""
    body: bytes
    thread: int


Step = Canned | Literal["hang up", "hang up midway", "hang"] | Callable[[Received], Canned]


class StubServer:
    """Answers request n with step n, and every later one with the last step."""

    def __init__(self, *steps: Step, port: int = 0) -> None:
        self.steps = steps
        self.received: list[Received] = []
        self._released = threading.Event()
        self._lock = threading.Lock()
        self._http = _HttpServer(("127.0.0.1", port), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.005}, daemon=True)

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> StubServer:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self._released.set()
        self._http.shutdown()
        self._http.server_close()

    def next_step(self, received: Received) -> Step:
        with self._lock:
            self.received.append(received)
            return self.steps[min(len(self.received), len(self.steps)) - 1]

    def hang(self) -> None:
        self._released.wait()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that gave up waiting is part of the tests."""


def _handler(server: StubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            received = Received(self.command, self.path, headers, body, threading.get_ident())
            step = server.next_step(received)
            if not isinstance(step, (str, Canned)):
                step = step(received)
            if isinstance(step, str):
                self.close_connection = True
                if step == "hang":
                    server.hang()
                if step == "hang up midway":
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                return
            self.send_response_only(step.status)
            for name, value in ({"Content-Length": str(len(step.body))} | dict(step.headers)).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(step.body)

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output clean."""

    return Handler


@dataclass
class FakeTime:
    """Time that passes only in `sleep`. `dice` in 0…1 is where in its range every drawn number falls."""

    now: float = 100.0
    dice: float = 1.0
    sleeps: list[float] = field(default_factory=list)

    @property
    def timing(self) -> RetryTiming:
        return RetryTiming(clock=lambda: self.now, uniform=lambda low, high: low + (high - low) * self.dice)

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.sleeps.append(seconds)
        self.now += seconds

    async def async_sleep(self, seconds: float) -> None:
        self.sleep(seconds)


def call(
    kind: Kind,
    url: str,
    method: str,
    *args: Any,
    client: Mapping[str, Any] | None = None,
    time: FakeTime | None = None,
    **keywords: Any,
) -> Any:
    """One call through a client of its own. No test really sleeps: time is fake throughout."""
    time = time or FakeTime()

    def sync() -> Any:
        with SIEClient(url, _timing=time.timing, _sleep=time.sleep, **(client or {})) as opened:
            return getattr(opened, method)(*args, **keywords)

    async def asynchronous() -> Any:
        async with SIEAsyncClient(url, _timing=time.timing, _sleep=time.async_sleep, **(client or {})) as opened:
            return await getattr(opened, method)(*args, **keywords)

    return sync() if kind == "sync" else asyncio.run(asynchronous())
