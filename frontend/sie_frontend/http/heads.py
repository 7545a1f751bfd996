"""The head of a request, which comes before anybody knows whose it is: its bytes and its time are limited."""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 64 << 10
"""Of the request line and all headers; a whole head that comes at once may have one read of the socket more."""

HEAD_S: Final = 30.0
"""Seconds from a connection, or from a request's first byte, to the end of its head."""

TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class HeadsProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which by itself collects headers without end and waits for them without end."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection that says nothing is closed."""
        super().connection_made(transport)
        self._in_head = False
        self._head_bytes = 0
        self._trailer_bytes = 0
        self._head_ends: asyncio.TimerHandle | None = self.loop.call_later(HEAD_S, self.leave)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is closed already."""
        self._unset_head_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head = True
        self._trailer_bytes = 0

    def on_headers_complete(self) -> None:
        """A head ends."""
        self._in_head = False
        super().on_headers_complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; behind a body in chunks too, where uvicorn collects them for nobody."""
        if not self._in_head:
            self._trailer_bytes += len(name) + len(value)
            if self._trailer_bytes > MAX_HEAD_BYTES:
                self.leave()
            return
        super().on_header(name, value)

    def data_received(self, data: bytes) -> None:
        """Take bytes; mostly a head is whole at once, and then nothing is counted."""
        super().data_received(data)
        if not self._in_head:
            # Bytes of a request that is answered, or of none, unset uvicorn's timer: somebody must wait with an end.
            if self.cycle is None or self.cycle.response_complete:
                if self._head_ends is None:
                    self._head_ends = self.loop.call_later(HEAD_S, self.leave)
            elif self._head_ends is not None:
                self._unset_head_timer()
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.refuse(TOO_LARGE)
        elif self._head_ends is None:
            self._head_ends = self.loop.call_later(HEAD_S, self.leave)

    def refuse(self, answer: bytes) -> None:
        """Answer the request that is coming in, and end."""
        self.transport.write(answer)
        self.leave()

    def leave(self) -> None:
        """End the connection when what is written was taken."""
        self.transport.close()

    def _unset_head_timer(self) -> None:
        self._head_bytes = 0
        if self._head_ends is not None:
            self._head_ends.cancel()
            self._head_ends = None
