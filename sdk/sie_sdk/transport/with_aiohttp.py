"""`SIEAsyncClient`'s requests by aiohttp. asyncio is imported here: `SIEClient` needs none of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, Final

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError
from yarl import URL

from sie_sdk._protocol import Outcome, Send
from sie_sdk._reply import Reply
from sie_sdk._retry import Failure, TransportFault
from sie_sdk._settings import MSGPACK, ClientSettings
from sie_sdk.transport.common import MOST_CONNECTIONS, Opened, absolute, certificates, headers_of, is_transient

# No more than the system takes at once, whether somebody reads it or not.
_PIECE_BYTES: Final = 64 << 10


class _LargeBody(aiohttp.Payload):
    """A body that is written piece by piece, each within some seconds: aiohttp itself waits for that without end."""

    def __init__(self, body: bytes, write_s: float | None) -> None:
        super().__init__(body, content_type=MSGPACK)
        self._size = len(body)
        self._write_s = write_s
        self.late = False

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The body as text, for aiohttp's own messages."""
        return str(self._value, encoding, errors)

    async def write(self, writer: aiohttp.abc.AbstractStreamWriter) -> None:
        """Write it all. Raises `asyncio.TimeoutError`."""
        for start in range(0, len(self._value), _PIECE_BYTES):
            try:
                await asyncio.wait_for(writer.write(self._value[start : start + _PIECE_BYTES]), self._write_s)
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
            "ssl": certificates(),
            "socket_factory": make_socket,
        }
        self._proxy = settings.proxy
        if settings.proxy is not None and settings.proxy.startswith("socks"):
            # Both of its schemes let the proxy look the name up, as `socks5h` asks for.
            url = settings.proxy.replace("socks5h", "socks5", 1)
            connector = _socks_connector().from_url(url, rdns=settings.proxy.startswith("socks5h"), **limits)
            self._proxy = None
        else:
            connector = aiohttp.TCPConnector(**limits)
        self._session = aiohttp.ClientSession(
            connector=connector, headers=headers_of(settings), cookie_jar=aiohttp.DummyCookieJar()
        )

    async def exchange(self, send: Send) -> Outcome:
        """Send one request and read the whole answer. Raises `ValueError` if the model id makes no valid URL."""
        timeout = aiohttp.ClientTimeout(
            total=None,
            connect=_seconds(max(send.connect_timeout_s, send.read_timeout_s)),  # with the wait for a free connection
            sock_connect=_seconds(send.connect_timeout_s),
            sock_read=_seconds(send.read_timeout_s),
        )
        body: bytes | _LargeBody | None = send.body
        if send.body is not None and len(send.body) > _PIECE_BYTES:
            body = _LargeBody(send.body, _seconds(send.read_timeout_s))
        try:
            async with self._session.request(
                send.method,
                self._url(send.url),
                data=body,
                headers=send.headers,
                allow_redirects=False,
                proxy=self._proxy,
                timeout=timeout,
            ) as response:
                return Reply(response.status, response.headers, await response.read())
        except aiohttp.InvalidURL as error:
            raise ValueError(f"the model id makes no valid URL: {error}") from error
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            late = isinstance(body, _LargeBody) and body.late
            return Failure(TransportFault.WRITE_TIMEOUT, error) if late else failure(error)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    def abandon(self) -> None:
        """The event loop has ended: mark the session closed, which else reports itself as forgotten."""
        closing = self._session.close()
        with contextlib.suppress(StopIteration, RuntimeError):
            closing.send(None)  # of a loop that has ended it waits for nothing
        closing.close()

    def _url(self, url: str) -> URL:
        try:
            return URL(absolute(self._settings, url)).with_fragment(None)
        except (ValueError, UnicodeError) as error:
            raise ValueError(f"the model id makes no valid URL: {error}") from error


def _socks_connector() -> Any:
    try:
        from aiohttp_socks import ProxyConnector
    except ImportError as error:
        raise ValueError(
            "a SOCKS proxy needs the package aiohttp-socks: pip install 'sie-triton-sdk[socks]', or unset the proxy"
        ) from error
    return ProxyConnector


def prepare(proxy: str | None) -> None:
    """Import now what would be imported when it first connects. Raises `ValueError` for SOCKS without its package."""
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


def _seconds(limit: float) -> float | None:
    return None if limit == float("inf") else limit
