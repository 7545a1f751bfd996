"""`SIEClient`'s requests by urllib3."""

from __future__ import annotations

import codecs
import functools
import http.client
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from urllib3 import HTTPConnectionPool, PoolManager, ProxyManager, Timeout
from urllib3.connection import HTTPConnection
from urllib3.exceptions import (
    ClosedPoolError,
    HTTPError,
    LocationValueError,
    ProtocolError,
    ProxyError,
    ReadTimeoutError,
)
from urllib3.util import parse_url

from sie_sdk._protocol import Outcome, Send
from sie_sdk._reply import Reply
from sie_sdk._retry import Failure, TransportFault
from sie_sdk._settings import ClientSettings
from sie_sdk.transport.common import (
    CLOSED,
    KEPT_S,
    MOST_CONNECTIONS,
    Opened,
    basic,
    certificates,
    checked,
    headers_of,
    is_transient,
    seconds,
    whole,
)

if TYPE_CHECKING:
    _Connection = HTTPConnection
else:
    _Connection = object

_TOGETHER_BYTES: Final = 64 << 10
# Each within the limit: `sendall` counts it for all that it is given.
_PIECE_BYTES: Final = 256 << 10


class _Exchange(threading.local):
    """The exchange of this thread: the seconds that a write may take, and whether its connection stood."""

    write_s: float | None = None
    connected = False


_exchange = _Exchange()


class _FinalResponse(http.client.HTTPResponse):
    """The answer behind interim ones (102, 103): the library reads over 100 alone, and takes others for the answer."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc] # typeshed does not know it
            if found[1] < 102 or found[1] > 199:
                return found
            http.client.parse_headers(self.fp)


class _AtOnce(_Connection):
    """A connection that tells of its socket, and that sends a head and a small body together.

    `http.client` sends them apart: twice the system's work on both sides, and a server that wakes twice.
    """

    response_class = _FinalResponse

    def __init__(self, *args: Any, opened: Opened, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._opened = opened
        self._parts: list[bytes] | None = None
        self._used = time.monotonic()

    @property
    def is_connected(self) -> bool:
        """Whether the pool may use it again."""
        return super().is_connected and time.monotonic() - self._used < KEPT_S

    def getresponse(self) -> Any:
        """The answer; from now on nobody uses the connection."""
        found = super().getresponse()
        self._used = time.monotonic()
        return found

    def connect(self) -> None:
        """Connect, and tell of it."""
        super().connect()
        self._opened(self.sock)

    def request(self, *args: Any, **keywords: Any) -> None:
        """Collect what a request consists of, and send it."""
        parts: list[bytes] = []
        self._parts = parts
        try:
            super().request(*args, **keywords)
        finally:
            self._parts = None
        if self.sock is None:
            self.connect()
        _exchange.connected = True
        self.sock.settimeout(_exchange.write_s)
        for part in [b"".join(parts)] if sum(len(part) for part in parts) <= _TOGETHER_BYTES else parts:
            for start in range(0, len(part), _PIECE_BYTES):
                super().send(memoryview(part)[start : start + _PIECE_BYTES])

    def send(self, data: Any) -> None:
        """Keep for `request`; at once what a tunnel through a proxy consists of."""
        if self._parts is None:
            super().send(data)
        else:
            self._parts.append(data)


@functools.cache
def _at_once(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    """A kind of pool (plain, TLS, through SOCKS) with connections like that."""
    connection = type(pool.ConnectionCls.__name__, (_AtOnce, pool.ConnectionCls), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})


class Urllib3Http:
    """Connections to one server. Threads may share it."""

    def __init__(self, settings: ClientSettings, max_connections: int | None, opened: Opened) -> None:
        """`max_connections` None is 100."""
        self._settings = settings
        self._headers = headers_of(settings)
        most = max_connections or MOST_CONNECTIONS
        # Not the pool's own limit: whoever waits there when it is closed waits for ever.
        self._turns = threading.BoundedSemaphore(most)
        limits: dict[str, Any] = {"maxsize": most, "ssl_context": certificates()}
        manager = PoolManager(**limits) if settings.proxy is None else _proxied(settings.proxy, limits)
        manager.pool_classes_by_scheme = {
            scheme: _at_once(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
        }
        self._manager = manager
        self._pool = manager.connection_from_url(whole(settings, "/"))
        self._pool.conn_kw["opened"] = opened
        self._target = functools.lru_cache(maxsize=1024)(self._make_target)

    def exchange(self, send: Send) -> Outcome:
        """Send one request and read the whole answer. Raises `ValueError` if the model id makes no valid URL."""
        target, headers = self._target(send.url), {**self._headers, **checked(send.headers)}
        read_s = seconds(send.read_timeout_s)
        if not self._turns.acquire(timeout=read_s):
            return Failure(TransportFault.CONNECT, TimeoutError(f"no connection was free within {read_s:g} s"))
        try:
            return self._exchange(send, target, headers, read_s)
        finally:
            self._turns.release()

    def _exchange(self, send: Send, target: str, headers: dict[str, str], read_s: float | None) -> Outcome:
        _exchange.connected, _exchange.write_s = False, read_s
        # A proxy is told the whole URL, or is asked for a tunnel; the manager knows.
        opener = self._pool if self._settings.proxy is None else self._manager
        try:
            response = opener.urlopen(
                send.method,
                target,
                body=send.body,
                headers=headers,
                timeout=Timeout(connect=seconds(send.connect_timeout_s), read=read_s),
                retries=False,
                redirect=False,
            )
        except ClosedPoolError as error:
            raise RuntimeError(CLOSED) from error
        except HTTPError as error:
            return failure(error, connected=_exchange.connected)
        return Reply(response.status, response.headers, response.data)

    def close(self) -> None:
        """Close the connections that nobody uses now."""
        self._pool.close()

    def _make_target(self, url: str) -> str:
        found = whole(self._settings, url)
        return parse_url(found).request_uri if self._settings.proxy is None else found


def _proxied(proxy: str, limits: dict[str, Any]) -> PoolManager:
    if proxy.startswith("socks"):
        manager: PoolManager = _socks_manager()(proxy, **limits)
        return manager
    parts = parse_url(proxy)
    headers = {"Proxy-Authorization": basic(parts.auth)} if parts.auth else None
    url = parts._replace(auth=None).url
    return ProxyManager(url, proxy_headers=headers, proxy_ssl_context=limits["ssl_context"], **limits)


def _socks_manager() -> Any:
    try:
        from urllib3.contrib.socks import SOCKSProxyManager
    except ImportError as error:
        raise ValueError(
            "a SOCKS proxy needs the package PySocks: pip install 'sie-triton-sdk[socks]', or unset the proxy"
        ) from error
    return SOCKSProxyManager


def prepare(proxy: str | None) -> None:
    """Import and read now what would be when it first connects. Raises `ValueError` for SOCKS without PySocks."""
    certificates()
    codecs.lookup("idna")
    if proxy is not None and proxy.startswith("socks"):
        _socks_manager()


def failure(error: HTTPError, *, connected: bool) -> Failure:
    """What became of an exchange; until it is `connected`, the server has seen nothing of the request."""
    cause = next((one for one in (error.__cause__, *error.args[1:]) if isinstance(one, Exception)), error)
    if isinstance(error, ProxyError) and not isinstance(error.original_error, HTTPError):
        return Failure(TransportFault.OTHER, cause)  # the proxy was reached, and gave no tunnel
    if not connected:
        passing = is_transient(cause) and not isinstance(error, LocationValueError)
        return Failure(TransportFault.CONNECT, cause, transient=passing)
    if isinstance(error, ReadTimeoutError):
        return Failure(TransportFault.READ_TIMEOUT, cause)
    if isinstance(error, ProtocolError):
        return Failure(TransportFault.WRITE_TIMEOUT if isinstance(cause, TimeoutError) else TransportFault.LOST, cause)
    return Failure(TransportFault.OTHER, error)
