"""`SIEClient`'s requests by urllib3."""

from __future__ import annotations

import codecs
import functools
import threading
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from urllib3 import HTTPConnectionPool, PoolManager, ProxyManager, Timeout
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, LocationParseError, ProtocolError, ProxyError, ReadTimeoutError
from urllib3.util import make_headers, parse_url

from sie_sdk._protocol import Outcome, Send
from sie_sdk._reply import Reply
from sie_sdk._retry import Failure, TransportFault
from sie_sdk._settings import ClientSettings
from sie_sdk.transport.common import MOST_CONNECTIONS, Opened, absolute, certificates, headers_of, is_transient

if TYPE_CHECKING:
    _Connection = HTTPConnection
else:
    _Connection = object

_TOGETHER_BYTES: Final = 64 << 10


class _Exchange(threading.local):
    """The exchange of this thread: the seconds that a write may take, and whether its connection stood."""

    write_s: float | None = None
    connected = False


_exchange = _Exchange()


class _AtOnce(_Connection):
    """A connection that tells of its socket, and that sends a head and a small body together.

    `http.client` sends them apart: twice the system's work on both sides, and a server that wakes twice.
    """

    def __init__(self, *args: Any, opened: Opened, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._opened = opened
        self._parts: list[bytes] | None = None

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
            super().send(part)

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
        limits: dict[str, Any] = {
            "maxsize": max_connections or MOST_CONNECTIONS,
            "block": True,
            "ssl_context": certificates(),
        }
        manager = PoolManager(**limits) if settings.proxy is None else _proxied(settings.proxy, limits)
        manager.pool_classes_by_scheme = {
            scheme: _at_once(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
        }
        self._manager = manager
        self._pool = manager.connection_from_url(absolute(settings, "/"))
        self._pool.conn_kw["opened"] = opened
        self._target = functools.lru_cache(maxsize=1024)(self._make_target)

    def exchange(self, send: Send) -> Outcome:
        """Send one request and read the whole answer. Raises `ValueError` if the model id makes no valid URL."""
        target = self._target(send.url)
        _exchange.connected, _exchange.write_s = False, _seconds(send.read_timeout_s)
        # A proxy is told the whole URL, or is asked for a tunnel; the manager knows.
        opener = self._pool if self._settings.proxy is None else self._manager
        try:
            response = opener.urlopen(
                send.method,
                target,
                body=send.body,
                headers={**self._headers, **send.headers},
                timeout=Timeout(connect=_seconds(send.connect_timeout_s), read=_seconds(send.read_timeout_s)),
                pool_timeout=_seconds(send.read_timeout_s),  # type: ignore[arg-type] # any number of seconds
                retries=False,
                redirect=False,
            )
        except HTTPError as error:
            return failure(error, connected=_exchange.connected)
        return Reply(response.status, response.headers, response.data)

    def close(self) -> None:
        """Close the connections that nobody uses now."""
        self._pool.close()

    def _make_target(self, url: str) -> str:
        try:
            found = parse_url(absolute(self._settings, url))
        except (LocationParseError, UnicodeError) as error:
            raise ValueError(f"the model id makes no valid URL: {error}") from error
        return found.request_uri if self._settings.proxy is None else found._replace(fragment=None).url


def _proxied(proxy: str, limits: dict[str, Any]) -> PoolManager:
    if proxy.startswith("socks"):
        manager: PoolManager = _socks_manager()(proxy, **limits)
        return manager
    parts = parse_url(proxy)
    headers = make_headers(proxy_basic_auth=unquote(parts.auth)) if parts.auth else None
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
    """Import now what would be imported when it first connects. Raises `ValueError` for SOCKS without PySocks."""
    codecs.lookup("idna")
    if proxy is not None and proxy.startswith("socks"):
        _socks_manager()


def failure(error: HTTPError, *, connected: bool) -> Failure:
    """What became of an exchange; until it is `connected`, the server has seen nothing of the request."""
    cause = next((one for one in (error.__cause__, *error.args[1:]) if isinstance(one, Exception)), error)
    if isinstance(error, ProxyError) and not isinstance(error.original_error, HTTPError):
        return Failure(TransportFault.OTHER, cause)  # the proxy was reached, and gave no tunnel
    if not connected:
        return Failure(TransportFault.CONNECT, cause, transient=is_transient(cause))
    if isinstance(error, ReadTimeoutError):
        return Failure(TransportFault.READ_TIMEOUT, cause)
    if isinstance(error, ProtocolError):
        return Failure(TransportFault.WRITE_TIMEOUT if isinstance(cause, TimeoutError) else TransportFault.LOST, cause)
    return Failure(TransportFault.OTHER, error)


def _seconds(limit: float) -> float | None:
    return None if limit == float("inf") else limit
