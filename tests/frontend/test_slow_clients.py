"""Clients that are slow, or never end: heads and bodies have a size and a time."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from compiler import tiny
from sie_frontend.http import heads
from sie_frontend.http.heads import MAX_HEAD_BYTES
from sie_frontend.main import make_server
from sie_frontend.settings import Settings

from frontend.conftest import Service

HEAD = b"GET /livez HTTP/1.1\r\nhost: x\r\n"


@contextlib.asynccontextmanager
async def listening(settings: Settings) -> AsyncIterator[int]:
    """The port of a server in this event loop."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = make_server(settings)
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        await server.startup(sockets=[taken])
        try:
            yield taken.getsockname()[1]
        finally:
            await server.shutdown(sockets=[taken])
            await server.lifespan.shutdown()


async def answered(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """What comes back until the connection is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
    try:
        return await asyncio.wait_for(reader.read(), 60)
    except ConnectionError:
        return b"reset"
    finally:
        writer.close()


@pytest.mark.asyncio
async def test_a_head_has_an_end(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(service.settings) as port:
        last = b"connection: close\r\n\r\n"
        assert (await answered(port, HEAD, last)).endswith(b"ok")
        # Many small headers, one that is large, and a path: none is collected for long.
        large = b"x" * 4096
        for beginning, part in (
            (HEAD, b"a: " + large + b"\r\n"),
            (HEAD + b"a: ", large),
            (b"GET /", large),
        ):
            sent = [beginning, *[part] * 2000]
            found = await answered(port, *sent)
            assert found == b"reset" or found.startswith(b"HTTP/1.1 431 "), found
        fits = b"a: " + b"x" * (MAX_HEAD_BYTES // 2) + b"\r\n"
        assert (await answered(port, HEAD, fits, last, pause=0.01)).endswith(b"ok")
        monkeypatch.setattr(heads, "HEAD_S", 0.2)
        for parts in ((), (b"G",), (HEAD,), (HEAD, b"a: b\r\n")):
            assert await asyncio.wait_for(answered(port, *parts), 60) == b""
        # A request that is answered, or none, and a byte now and then: uvicorn waits without an end.
        refused = b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
        for parts in ((b"\r\n",), (refused, b"x")):
            await asyncio.wait_for(answered(port, *parts, pause=0.1), 60)
        # Behind a body in chunks headers may follow, which nobody reads.
        chunked = HEAD.replace(b"GET", b"POST") + b"transfer-encoding: chunked\r\n\r\n0\r\n"
        endless = [chunked, *[b"a: " + large + b"\r\n"] * 200]
        assert not (await asyncio.wait_for(answered(port, *endless), 60)).endswith(b"ok" * 2)
        # It is no limit on what comes after a head.
        slowly = [HEAD + b"\r\n", HEAD + last]
        assert (await answered(port, *slowly, pause=0.4)).count(b"HTTP/1.1 200") == 2


@pytest.mark.asyncio
async def test_a_body_that_does_not_arrive_is_408(service: Service) -> None:
    async with listening(service.having(body_timeout_s=0.2).settings) as port:
        for path, code in (
            (f"/v1/encode/{tiny.MODEL_ID}", b'"code":"REQUEST_TIMEOUT"'),
            ("/v1/embeddings", b'"code":"request_timeout"'),
        ):
            head = f"POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 100\r\n\r\n".encode()
            for body in (b"", b"{", b"{" * 99):
                found = await answered(port, head, body)
                assert found.startswith(b"HTTP/1.1 408 "), found
                assert code in found
