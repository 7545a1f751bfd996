"""Kept HTTP/1.1 connections to one server: as much of a client as Triton's API needs, and no more.

A request is bytes that are written at once; its answer is collected by httptools. There is no pipelining: a connection
has at most one request under way, and one that ended in any other way than with a whole answer is never used again.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

from httptools import HttpParserError, HttpResponseParser


class ExchangeError(Exception):
    """There was no whole answer: no connection, one that was lost, too little time, or something that is not HTTP."""


class _StaleError(ExchangeError):
    """A kept connection ended before the first byte of the answer: the server had closed it while it was idle."""


@dataclass(slots=True)
class Answer:
    """What came back. `headers` has names in lower case; of a repeated header the last counts."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(self.chunks)

    def split(self, at: int) -> tuple[bytes, bytes]:
        """The first `at` bytes of the body and the others, each at the beginning of its own memory."""
        if self.chunks and len(self.chunks[0]) >= at:
            first = self.chunks[0]
            return first[:at], b"".join((memoryview(first)[at:], *self.chunks[1:]))
        body = self.body
        return body[:at], body[at:]


def _because(why: Exception | None) -> str:
    return str(why or "closed by the server")


class _Connection(asyncio.Protocol):
    """One connection. `httptools` calls the `on_…` methods."""

    def __init__(self) -> None:
        self._parser = HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._answer = Answer()
        self._begun = False
        self._ends_with_connection = False
        self.kept = False
        self.reusable = False
        self.lost = False

    def exchange(self, request: bytes) -> asyncio.Future[Answer]:
        """Write a request; the future gets its answer."""
        assert self._transport is not None
        self._waiter = asyncio.get_running_loop().create_future()
        self._begun = self.reusable = False
        if self._transport.is_closing():
            # The server's end was read and `connection_lost` is still to come, or has come. uvloop raises at a write.
            self._fail(self._ended_before_answer(None))
        else:
            self._transport.write(request)
        return self._waiter

    def discard(self) -> None:
        """Close at once, whatever is under way."""
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def expire(self) -> None:
        """The time for this exchange is over."""
        self._fail(ExchangeError("no answer in time"))

    @property
    def _over(self) -> bool:
        """Whether nobody waits for anything from this connection."""
        return self._waiter is None or self._waiter.done()

    def _fail(self, error: ExchangeError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)
        self.discard()

    def _ended_before_answer(self, why: Exception | None) -> ExchangeError:
        if self.kept:
            return _StaleError("a kept connection was closed")
        return ExchangeError(f"the connection was lost before the answer: {_because(why)}")

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        if self._over:
            self.discard()  # nobody has asked: whatever follows cannot be told from the next answer
            return
        self._begun = True
        try:
            self._parser.feed_data(data)
        except HttpParserError as error:
            self._fail(ExchangeError(f"the answer is not HTTP: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._ends_with_connection and exc is None:
            self._complete()
        elif self._begun:
            self._fail(ExchangeError(f"the connection was lost in the middle of the answer: {_because(exc)}"))
        else:
            self._fail(self._ended_before_answer(exc))

    # What httptools calls

    def on_message_begin(self) -> None:
        if self._over:
            self.discard()  # one answer more than there were requests
        self._answer = Answer()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()
        headers = self._answer.headers
        self._ends_with_connection = (
            self._answer.status >= 200
            and self._answer.status not in (204, 304)
            and b"content-length" not in headers
            and b"transfer-encoding" not in headers
        )

    def on_body(self, body: bytes) -> None:
        self._answer.chunks.append(body)

    def on_message_complete(self) -> None:
        if self._over or self._answer.status < 200:
            return  # "100 Continue" and its like come before the answer
        self.reusable = self._parser.should_keep_alive()
        self._complete()

    def _complete(self) -> None:
        self._ends_with_connection = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._answer)


class ConnectionPool:
    """As many connections as there are requests under way; afterwards up to `kept` of them wait for the next ones.

    The one that was used last is used first, so that connections that are not needed grow old and are closed.
    """

    def __init__(self, host: str, port: int, *, kept: int) -> None:
        self._host = host
        self._port = port
        self._kept = kept
        self._idle: list[_Connection] = []

    def close(self) -> None:
        """Close the connections that wait."""
        while self._idle:
            self._idle.pop().discard()

    async def exchange(self, request: bytes, timeout_s: float) -> Answer:
        """Send a whole HTTP request and return its answer. Raises `ExchangeError` after `timeout_s` at the latest.

        A request may reach the server twice, if it is written to a kept connection that the server is about to close.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self._idle:
            connection = self._idle.pop()
            if not connection.lost:
                try:
                    return await self._exchange(connection, request, deadline)
                except _StaleError:
                    break
        return await self._exchange(await self._connect(deadline), request, deadline)

    async def exchange_apart(self, request: bytes, timeout_s: float) -> Answer:
        """As `exchange`, on a connection of its own that nobody uses afterwards."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        connection = await self._connect(deadline)
        try:
            return await self._exchange(connection, request, deadline)
        finally:
            connection.discard()

    async def exchange_proven(self, probe: bytes, probe_s: float, request: bytes, timeout_s: float) -> Answer:
        """As `exchange_apart`, on the first connection that answers `probe` within `probe_s` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            connection = await self._connect(deadline)
            try:
                try:
                    await self._ask(connection, probe, min(deadline, loop.time() + probe_s))
                except ExchangeError:
                    if loop.time() >= deadline:
                        raise
                    await asyncio.sleep(0.02)
                    continue
                return await self._ask(connection, request, deadline)
            finally:
                connection.discard()

    async def sift(self, request: bytes, timeout_s: float) -> None:
        """Keep only those connections that wait now and answer a request in time."""
        waiting, self._idle = self._idle, []
        deadline = asyncio.get_running_loop().time() + timeout_s
        probes = (self._exchange(one, request, deadline) for one in waiting if not one.lost)
        await asyncio.gather(*probes, return_exceptions=True)

    async def _exchange(self, connection: _Connection, request: bytes, deadline: float) -> Answer:
        """Ask, and keep the connection for others if it can be."""
        answer = await self._ask(connection, request, deadline)
        if connection.reusable and not connection.lost and len(self._idle) < self._kept:
            connection.kept = True
            self._idle.append(connection)
        else:
            connection.discard()
        return answer

    async def _ask(self, connection: _Connection, request: bytes, deadline: float) -> Answer:
        timer = asyncio.get_running_loop().call_at(deadline, connection.expire)
        try:
            answer = await connection.exchange(request)
        except BaseException:  # cancellation too: the answer may still come
            connection.discard()
            raise
        finally:
            timer.cancel()
        return answer

    async def _connect(self, deadline: float) -> _Connection:
        loop = asyncio.get_running_loop()
        connecting = loop.create_connection(_Connection, self._host, self._port)
        try:
            _, connection = await asyncio.wait_for(connecting, max(0.0, deadline - loop.time()))
        except asyncio.TimeoutError:
            raise ExchangeError(f"no connection to {self._host}:{self._port} in time") from None
        except OSError as error:
            raise ExchangeError(f"no connection to {self._host}:{self._port}: {error}") from None
        return connection
