"""The HTTP library: its clients by process and event loop, its requests, and the mapping of its failures.

A connection belongs to the process and the event loop that opened it. After `fork()` two processes hold the same
sockets, and the one that reads first gets the other's answer. So a child opens its own connections and releases its
copies of the parent's descriptors. It never closes the connections themselves, which still belong to the parent: it
sends no shutdown and no TLS close, and takes no lock of the parent's pool.
"""

from __future__ import annotations

import codecs
import errno
import functools
import importlib
import os
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakSet

import httpx

from sie_sdk._protocol import Send
from sie_sdk._retry import Failure, TransportFault
from sie_sdk._settings import ClientSettings
from sie_sdk.errors import SIEConnectionError

HttpClient = TypeVar("HttpClient")
_Adopted = TypeVar("_Adopted", httpx.Client, httpx.AsyncClient)

_Process = tuple[int, int]
_Inode = tuple[int, int]


@dataclass(slots=True)
class _Held(Generic[HttpClient]):
    """The HTTP clients of one process by event loop (None without one), and its sockets' inodes by descriptor."""

    clients: dict[Any, HttpClient] = field(default_factory=dict)
    sockets: dict[int, _Inode] = field(default_factory=dict)


class Connections(Generic[HttpClient]):
    """The HTTP clients behind one SIE client, created when they are first needed.

    Thread-safe, deliberately without a lock: a lock that another thread holds during `fork()` stays locked in the
    child forever. Single operations on dictionaries are atomic, and loops go over copies.
    """

    def __init__(
        self,
        make: Callable[[], HttpClient],
        *,
        given: HttpClient | None = None,
        running_loop: Callable[[], Any] = lambda: None,
    ) -> None:
        """`make` creates an HTTP client, `given` is the caller's own instead; `running_loop` returns the event loop."""
        self._make = make
        self._given = given
        self._running_loop = running_loop
        self._closed = False
        self._born = _process()
        self._held: dict[_Process, _Held[HttpClient]] = {_process(): _Held()}
        _everywhere.add(self)

    def client(self) -> HttpClient:
        """The HTTP client of this process and event loop.

        Raises `RuntimeError` once closed, and `SIEConnectionError` if the caller's own HTTP client belongs to another
        process.
        """
        if self._closed:
            raise RuntimeError("Cannot send a request, as the client has been closed.")
        held = self._held.get(_process())
        if held is None:
            # Reached before `_after_fork` only where the fork bypassed Python.
            self.leave_to_parent()
            held = self._held.setdefault(_process(), _Held())
        if self._given is not None:
            self._refuse_foreign_process()
            return self._given
        loop = self._running_loop()
        client = held.clients.get(loop)
        if client is None:
            for other in [known for known in list(held.clients) if known is not None and known.is_closed()]:
                held.clients.pop(other, None)
            # Two threads may get here at once; the one that loses has opened nothing yet.
            client = held.clients.setdefault(loop, self._make())
        return client

    def saw(self, response: httpx.Response) -> None:
        """Remember the socket of a response, so that a forked child can release its copy."""
        stream = response.extensions.get("network_stream")
        connection = None if stream is None else stream.get_extra_info("socket")
        descriptor = -1 if connection is None else connection.fileno()
        held = self._held.get(_process())
        inode = _inode(descriptor)
        if held is not None and inode is not None:
            held.sockets[descriptor] = inode

    def shut(self) -> HttpClient | None:
        """Refuse further calls; return the HTTP client of this process and event loop for the caller to close."""
        self._closed = True
        held = self._held.get(_process())
        if held is None:
            return None
        return self._given if self._given is not None else held.clients.get(self._running_loop())

    def leave_to_parent(self) -> None:
        """Drop the HTTP clients of other processes without touching their connections."""
        for owner in [process for process in list(self._held) if process != _process()]:
            held = self._held.pop(owner, None)
            if held is not None:
                _inherited.extend(held.clients.values())
                _let_go(held.sockets)

    def _refuse_foreign_process(self) -> None:
        if _process() != self._born:
            raise SIEConnectionError(
                "this client sends through an `http_client` that was made in another process, before a fork, and its "
                "connections are that process's; make the client and its `http_client` in the process that uses them"
            )


_everywhere: WeakSet[Connections[Any]] = WeakSet()
_inherited: list[object] = []
"""The parent's HTTP clients. Kept, because their finalizers would close connections that belong to the parent."""


class _Lineage:
    """Number of forks since the first process: a process id alone may be reused by a later descendant."""

    forks = 0


def _process() -> _Process:
    return os.getpid(), _Lineage.forks


def _after_fork() -> None:
    _Lineage.forks += 1
    for connections in list(_everywhere):
        connections.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _let_go(sockets: Mapping[int, _Inode]) -> None:
    """Close this process's copies of the parent's sockets, but no file that has reused their numbers since.

    The numbers are redirected to the null device: the objects that hold them will close them again some day, and an
    event loop that removes them must not find them in the `epoll` set that it shares with the parent.
    """
    mine = [descriptor for descriptor, inode in list(sockets.items()) if _inode(descriptor) == inode]
    if not mine:
        return
    null = os.open(os.devnull, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    for descriptor in mine:
        os.dup2(null, descriptor, inheritable=False)
    os.close(null)


def _inode(descriptor: int) -> _Inode | None:
    if descriptor < 0:
        return None
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def sync_maker(settings: ClientSettings, max_connections: int | None) -> Callable[[], httpx.Client]:
    """A factory of synchronous HTTP clients with these settings; `max_connections` None sets no limit."""
    arguments = _arguments(settings, max_connections)
    return lambda: httpx.Client(**arguments)


def async_maker(settings: ClientSettings, max_connections: int | None) -> Callable[[], httpx.AsyncClient]:
    """A factory of asyncio HTTP clients with these settings; `max_connections` None sets no limit."""
    arguments = _arguments(settings, max_connections)
    return lambda: httpx.AsyncClient(**arguments)


def _import_all() -> None:
    """Import now what the HTTP library would import when it first connects.

    A child that is forked while a thread of the parent is importing waits for that import forever.
    """
    importlib.import_module("httpcore")
    codecs.lookup("idna")


def _arguments(settings: ClientSettings, max_connections: int | None) -> dict[str, Any]:
    _import_all()
    if max_connections is None:
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=20)
    else:
        limits = httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)
    # The proxy is chosen by our settings, which know that loopback needs none.
    return {
        "base_url": settings.base_url,
        "headers": dict(settings.headers),
        "limits": limits,
        "proxy": settings.proxy,
        "trust_env": False,
        "verify": certificates(),
    }


def certificates() -> ssl.SSLContext:
    """What every connection of this process trusts."""
    return _certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.cache
def _certificates(file: str | None, folder: str | None) -> ssl.SSLContext:
    # Reading them is most of what making a client costs (20 ms), and they are the same for all, as long as the
    # variables that httpx reads say the same. A forked child uses
    # the parent's: OpenSSL locks while it reads them, and a lock that a thread held during the fork stays locked.
    return httpx.create_ssl_context()


def adopt(http_client: _Adopted, settings: ClientSettings, max_connections: int | None) -> _Adopted:
    """The caller's HTTP client with our headers added.

    Raises `ValueError` if it has another base URL, is closed, follows redirects, or cannot take `max_connections`.
    """
    if str(http_client.base_url).rstrip("/") != str(httpx.URL(settings.base_url)).rstrip("/"):
        raise ValueError("http_client base URL must match base_url")
    if http_client.is_closed or http_client.follow_redirects:
        raise ValueError("http_client must be open with redirects disabled")
    if max_connections is not None:
        raise ValueError("configure connection limits on http_client instead of passing max_connections")
    http_client.headers.update(settings.headers)
    return http_client


def request(http: httpx.Client | httpx.AsyncClient, send: Send) -> httpx.Request:
    """Build the request that a flow yields. Raises `ValueError` if the model id makes no valid URL."""
    timeout = httpx.Timeout(send.read_timeout_s, connect=send.connect_timeout_s)
    try:
        return http.build_request(send.method, send.url, content=send.body, headers=dict(send.headers), timeout=timeout)
    except httpx.InvalidURL as error:
        raise ValueError(f"the model id makes no valid URL: {error}") from error


EXCHANGE_ERRORS = httpx.RequestError
"""Exceptions of the HTTP library for an exchange that ended without a reply."""

KINDS: Mapping[type[httpx.RequestError], TransportFault] = {
    httpx.ConnectError: TransportFault.CONNECT,
    httpx.ConnectTimeout: TransportFault.CONNECT,
    httpx.PoolTimeout: TransportFault.CONNECT,
    httpx.WriteTimeout: TransportFault.WRITE_TIMEOUT,
    httpx.ReadTimeout: TransportFault.READ_TIMEOUT,
    httpx.RemoteProtocolError: TransportFault.LOST,
    httpx.ReadError: TransportFault.LOST,
    httpx.WriteError: TransportFault.LOST,
}
"""The kind of each exception; any other is `OTHER`."""


def failure(error: httpx.RequestError) -> Failure:
    """The `Failure` for an exception of the HTTP library."""
    kind = KINDS.get(type(error), TransportFault.OTHER)
    return Failure(kind, error, transient=kind is not TransportFault.CONNECT or _is_transient(error))


_TRANSIENT_ERRNOS = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EHOSTDOWN,
        socket.EAI_AGAIN,
    }
)


def _is_transient(error: BaseException) -> bool:
    """Whether connecting may work later. A bad certificate or an unknown host will not fix itself."""
    if isinstance(error, ssl.SSLError):
        return False
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _TRANSIENT_ERRNOS
    # asyncio tries several addresses at once and reports them as a group.
    group: Sequence[BaseException] = getattr(error, "exceptions", ())
    if group:
        return any(_is_transient(member) for member in group)
    cause = error.__cause__ or error.__context__
    return cause is None or _is_transient(cause)
