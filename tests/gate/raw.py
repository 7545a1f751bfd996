"""HTTP as bytes: what a socket says, split into answers by an independent parser (h11)."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass

import h11


@dataclass(frozen=True)
class Answer:
    """One answer of a connection."""

    status: int
    headers: dict[str, str]
    body: bytes


class Raw:
    """One connection to a port of this machine."""

    def __init__(self, port: int, timeout: float = 10.0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes, pause: float = 0.0) -> bool:
        """Whether all of it could be sent before the connection ended."""
        try:
            for part in parts:
                self.socket.sendall(part)
                if pause:
                    time.sleep(pause)
        except OSError:
            return False
        return True

    def rest(self) -> bytes:
        """All that comes until the connection is closed or reset. Raises `TimeoutError` if it stays open."""
        received = bytearray()
        with contextlib.suppress(ConnectionError):
            while chunk := self.socket.recv(1 << 16):
                received += chunk
        return bytes(received)

    def answers(self, methods: Iterable[str] = ("GET",) * 99) -> list[Answer]:
        """The answers until the end of the connection, to requests of these methods."""
        return answers_of(self.rest(), methods)


def answers_of(received: bytes, methods: Iterable[str]) -> list[Answer]:
    """What a client that knows HTTP reads out of these bytes; raises what h11 raises if they are no HTTP."""
    found: list[Answer] = []
    for method in methods:
        if not received:
            break
        parser = h11.Connection(h11.CLIENT)
        parser.send(h11.Request(method=method, target="/", headers=[("host", "x"), ("content-length", "0")]))
        parser.send(h11.EndOfMessage())
        parser.receive_data(received)
        body, head = b"", None
        while True:
            event = parser.next_event()
            if isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            elif not isinstance(event, h11.InformationalResponse):
                raise AssertionError(f"an answer is cut short: {received!r}")
        assert head is not None
        headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
        found.append(Answer(head.status_code, headers, body))
        received = parser.trailing_data[0]
    assert not received, f"more came than was asked for: {received!r}"
    return found
