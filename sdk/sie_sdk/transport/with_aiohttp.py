"""`SIEAsyncClient`'s requests by aiohttp. asyncio is imported here: `SIEClient` needs none of it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from typing import Any, Final

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError
from yarl import URL

from sie_sdk._protocol import Outcome, Send
from sie_sdk._reply import Reply
from sie_sdk._retry import Failure, TransportFault
from sie_sdk._settings import MSGPACK, ClientSettings
from sie_sdk.transport.common import (
    CLOSED,
    KEPT_S,
    MOST_CONNECTIONS,
    Opened,
    certificates,
    checked,
    headers_of,
    is_transient,
    seconds,
    whole,
)

# No more than the system takes at once, whether somebody reads it or not.
_PIECE_BYTES: Final = 64 << 10
_HEADER_BYTES: Final = 64 << 10
# A loop that stood still has not heard yet of connections that were closed meanwhile, and hears in so many turns.
_STILL_S: Final = 0.05
_TURNS: Final = 3


class _LargeBody(aiohttp.Payload):
    """A body that is written piece by piece, each within some seconds: aiohttp itself waits for that without end."""

    def __init__(self, body: bytes, write_s: float | None) -> None:
        super().__init__(body, content_type=MSGPACK)
        self._size = len(body)
        self._body = body
        self._write_s = write_s
        self.late = False

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The body as text, for aiohttp's own messages."""
        return str(self._body, encoding, errors)

    async def write(self, writer: aiohttp.abc.AbstractStreamWriter) -> None:
        """Write it all. Raises `asyncio.TimeoutError`."""
        for start in range(0, len(self._body), _PIECE_BYTES):
            piece = self._body[start : start + _PIECE_BYTES]
            try:
                await asyncio.wait_for(writer.write(piece), self._write_s)
            except asyncio.TimeoutError:
                self.late = True
                # Closed in the usual way, it would wait for ever to hand over what it holds.
                transport: asyncio.WriteTransport | None = getattr(writer, "transport", None)
                if transport is not None:
                    transport.abort()
                raise


class AiohttpHttp:
    """Connections to one server, of the event loop in which it is made."""

    def __init__(self, settings: ClientSettings, max_connections: int | None, opened: Opened) -> None:
        """`max_connections` None is 100."""
        self._settings = settings

        def make_socket(address: Any) -> socket.socket:
            made = socket.socket(*address[:3])
            opened(made)
            return made

        limits: dict[str, Any] = {
            "limit": max_connections or MOST_CONNECTIONS,
            "keepalive_timeout": KEPT_S,
            "ssl": certificates(),
            "socket_factory": make_socket,
        }
        self._proxy = settings.proxy
        if settings.proxy is not None and settings.proxy.startswith("socks"):
            # `socks5h` is not known there: that the proxy looks the name up is an argument.
            url = settings.proxy.replace("socks5h", "socks5", 1)
            connector = _socks_connector().from_url(url, rdns=settings.proxy.startswith("socks5h"), **limits)
            self._proxy = None
        else:
            connector = aiohttp.TCPConnector(**limits)
        # Not the session's: it gives those to proxies too, and `Authorization` under another name.
        self._headers = headers_of(settings)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
        )
        self._url = functools.lru_cache(maxsize=1024)(self._make_url)
        self._answered_at = 0.0

    async def exchange(self, send: Send) -> Outcome:
        """Send one request and read the whole answer. Raises `ValueError` if the model id makes no valid URL."""
        timeout = aiohttp.ClientTimeout(
            total=None,
            connect=seconds(max(send.connect_timeout_s, send.read_timeout_s)),  # with the wait for a free connection
            sock_connect=seconds(send.connect_timeout_s),
            sock_read=seconds(send.read_timeout_s),
        )
        url, headers = self._url(send.url), {**self._headers, **checked(send.headers)}
        body: bytes | _LargeBody | None = send.body
        if send.body is not None and len(send.body) > _PIECE_BYTES:
            body = _LargeBody(send.body, seconds(send.read_timeout_s))
        if asyncio.get_running_loop().time() - self._answered_at > _STILL_S:
            for _ in range(_TURNS):
                await asyncio.sleep(0)
        try:
            async with self._session.request(
                send.method,
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                proxy=self._proxy,
                timeout=timeout,
            ) as response:
                return Reply(response.status, response.headers, await response.read())
        except UnicodeError as error:  # of a host's name
            return Failure(TransportFault.CONNECT, error, transient=False)
        except asyncio.CancelledError:
            if self._session.closed and not _is_cancelled():
                raise RuntimeError(CLOSED) from None
            raise
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            late = isinstance(body, _LargeBody) and body.late
            return Failure(TransportFault.WRITE_TIMEOUT, error) if late else failure(error)
        finally:
            self._answered_at = asyncio.get_running_loop().time()

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    def abandon(self) -> None:
        """The event loop has ended: mark the session closed, which else reports itself as forgotten."""
        closing = self._session.close()
        with contextlib.suppress(StopIteration, RuntimeError):
            closing.send(None)  # of a loop that has ended it waits for nothing
        closing.close()

    def _make_url(self, url: str) -> URL:
        return URL(whole(self._settings, url), encoded=True)


def _is_cancelled() -> bool:
    """Whether somebody wants this task to end; where Python (3.10) does not say, yes."""
    asked = getattr(asyncio.current_task(), "cancelling", None)
    return asked is None or bool(asked())


def _socks_connector() -> Any:
    try:
        from aiohttp_socks import ProxyConnector
    except ImportError as error:
        raise ValueError(
            "a SOCKS proxy needs the package aiohttp-socks: pip install 'sie-triton-sdk[socks]', or unset the proxy"
        ) from error
    return ProxyConnector


def prepare(proxy: str | None) -> None:
    """Import and read now what would be when it first connects. Raises `ValueError` for SOCKS without its package."""
    certificates()
    if proxy is not None and proxy.startswith("socks"):
        _socks_connector()


_CONNECT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientSSLError)


def failure(error: aiohttp.ClientError | asyncio.TimeoutError) -> Failure:
    """What became of an exchange."""
    if isinstance(error, _CONNECT):
        cause = getattr(error, "certificate_error", error)
        return Failure(TransportFault.CONNECT, error, transient=is_transient(cause))
    if isinstance(error, asyncio.TimeoutError):
        return Failure(TransportFault.READ_TIMEOUT, error)
    if isinstance(error, aiohttp.ClientPayloadError) and _is_undecodable(error):
        return Failure(TransportFault.OTHER, error)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return Failure(TransportFault.OTHER, error)
    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | aiohttp.ClientResponseError):
        return Failure(TransportFault.LOST, error)
    return Failure(TransportFault.OTHER, error)


def _is_undecodable(error: aiohttp.ClientPayloadError) -> bool:
    """Whether the answer was whole and its compression broken."""
    return isinstance(error.__cause__, ContentEncodingError)
