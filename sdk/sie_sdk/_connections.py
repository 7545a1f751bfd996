"""The HTTP clients behind one SIE client, by process and event loop.

A connection belongs to the process and the event loop that opened it. After `fork()` two processes hold the same
sockets, and the one that reads first gets the other's answer. So a child opens its own connections and releases its
copies of the parent's descriptors. It never closes the connections themselves, which still belong to the parent: it
sends no shutdown and no TLS close, and takes no lock of the parent's pool.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar
from weakref import WeakSet

from sie_sdk.errors import SIEConnectionError
from sie_sdk.transport.common import CLOSED

HttpClient = TypeVar("HttpClient")
Make: TypeAlias = Callable[[Callable[[socket.socket], None]], HttpClient]
"""Makes an HTTP client, which tells of each socket that it opens."""

_Process = tuple[int, int]
_Inode = tuple[int, int]


@dataclass(slots=True)
class _Held(Generic[HttpClient]):
    """The HTTP clients of one process by event loop (None without one), and its sockets' inodes by descriptor."""

    clients: dict[Any, HttpClient] = field(default_factory=dict)
    sockets: dict[int, _Inode] = field(default_factory=dict)

    def opened(self, connection: socket.socket) -> None:
        """Remember a socket, so that a forked child can release its copy."""
        descriptor = connection.fileno()
        inode = _inode(descriptor)
        if inode is not None:
            self.sockets[descriptor] = inode


class Connections(Generic[HttpClient]):
    """The HTTP clients behind one SIE client, created when they are first needed.

    Thread-safe, deliberately without a lock: a lock that another thread holds during `fork()` stays locked in the
    child forever. Single operations on dictionaries are atomic, and loops go over copies.
    """

    def __init__(
        self,
        make: Make[HttpClient],
        *,
        given: bool = False,
        running_loop: Callable[[], Any] = lambda: None,
        abandon: Callable[[HttpClient], None] = lambda _: None,
    ) -> None:
        """`make` creates an HTTP client, or wraps the caller's own if that is `given`.

        `running_loop` returns the event loop, and `abandon` is called with the HTTP client of one that has ended.
        """
        self._make = make
        self._abandon = abandon
        self._running_loop = running_loop
        self._closed = False
        self._born = _process()
        held: _Held[HttpClient] = _Held()
        self._held = {_process(): held}
        self._given = make(held.opened) if given else None
        _everywhere.add(self)

    def client(self) -> HttpClient:
        """The HTTP client of this process and event loop.

        Raises `RuntimeError` once closed, and `SIEConnectionError` if the caller's own HTTP client belongs to another
        process.
        """
        if self._closed:
            raise RuntimeError(CLOSED)
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
                if (ended := held.clients.pop(other, None)) is not None:
                    self._abandon(ended)
            # Two threads may get here at once; the one that loses has opened nothing yet.
            client = held.clients.setdefault(loop, self._make(held.opened))
        return client

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

    def __del__(self) -> None:
        """Event loops that have ended without `close` are no reason to warn."""
        held = self._held.get(_process()) if hasattr(self, "_held") else None
        for loop, client in [] if held is None else list(held.clients.items()):
            if loop is not None and loop.is_closed():
                self._abandon(client)

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
