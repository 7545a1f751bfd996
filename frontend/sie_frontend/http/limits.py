"""What one connection may cost: bytes that lead nowhere, requests that queue on it, answers that nobody takes."""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from sie_frontend.http.heads import MAX_HEAD_BYTES, TOO_LARGE, HeadsProtocol

MAX_PIPELINED: Final = 32
"""Requests of one connection that wait for the answer to an earlier one."""

MAX_UNREAD_BYTES: Final = 4 << 20
"""Of a body that its handler does not read, since it does something else first; reading is paused long before."""


_BODY_HEADERS: Final = frozenset((b"content-length", b"transfer-encoding"))


class _QueueFullError(Exception):
    """More requests than may wait on one connection."""


class _UpgradeError(Exception):
    """A request with a body asks for another protocol: the parser would take the body for that."""


class LimitedProtocol(HeadsProtocol):
    """A connection that ends where the client costs more than it may. What is answered already is still handed over."""

    answer_s: float = 0.0
    """Seconds in which a client must have taken an answer; 0 is no limit."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Nothing is owed yet."""
        super().connection_made(transport)
        self._idle_bytes = 0
        self._ends = False
        self._why = ""
        self._taken_by: asyncio.TimerHandle | None = None
        self._answering: RequestResponseCycle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for it any more: not for the latest request, of which uvicorn knows, nor for those before it."""
        self._unset_answer_timer()
        self.pipeline.clear()
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    # What comes in

    def data_received(self, data: bytes) -> None:
        """Take bytes. What is neither the end of a head nor a body, such as a trailer, is held by the parser."""
        if self._ends:
            return
        self._idle_bytes += len(data)
        super().data_received(data)
        if self._idle_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.refuse(TOO_LARGE)

    def on_message_begin(self) -> None:
        """A request begins. Raises what makes the parser stop if too many wait already."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _QueueFullError
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head ends. Raises what makes the parser stop where it would lose the body."""
        self._idle_bytes = 0
        if self.parser.should_upgrade() and not _BODY_HEADERS.isdisjoint(name for name, _ in self.headers):
            self._why = "There is no upgrade here: send the request as HTTP/1.1, without `Upgrade`."
            raise _UpgradeError
        super().on_headers_complete()
        if not self.pipeline:
            self._answering = self.cycle

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._idle_bytes = 0
        super().on_body(body)
        if len(self.cycle.body) > MAX_UNREAD_BYTES:
            self.refuse(TOO_LARGE)

    def send_400_response(self, msg: str) -> None:
        """Say that what came is no HTTP; behind others, end with their answers."""
        if self._in_time_for_an_answer():
            super().send_400_response(self._why or msg)
            self._abort_later()
        else:
            self._end_with_answers()

    def refuse(self, answer: bytes) -> None:
        """Answer the request that is coming in and end; behind others, end with their answers."""
        if self._in_time_for_an_answer():
            self.transport.write(answer)
            self.leave()
        else:
            self._end_with_answers()

    def _end_with_answers(self) -> None:
        self._ends = True
        if self.pipeline and self.pipeline[0][0] is self.cycle and self.cycle.more_body:
            self.pipeline.popleft()  # what cannot come to its end is not begun

    def _in_time_for_an_answer(self) -> bool:
        """Whether the next bytes that are written would be taken for the answer to what is coming in."""
        if self.cycle is None or self.cycle.response_complete:
            return not self.pipeline
        return self.cycle.more_body and not self.cycle.response_started and not self.pipeline

    # What goes out

    def on_response_complete(self) -> None:
        """An answer is written, which may not mean that it was taken."""
        last = not self.pipeline
        self._answering = None if last else self.pipeline[-1][0]
        super().on_response_complete()
        if self._ends and last:
            self.leave()
        elif self.transport.is_closing():
            self._abort_later()
        elif not self.flow.write_paused:
            self._unset_answer_timer()

    def pause_writing(self) -> None:
        """More waits to be taken than should."""
        super().pause_writing()
        self._abort_later()

    def resume_writing(self) -> None:
        """It was taken; the time goes on for what is still to be written of the same answer."""
        super().resume_writing()
        if self.cycle is None or (self.cycle.response_complete and not self.transport.is_closing()):
            self._unset_answer_timer()

    def timeout_keep_alive_handler(self) -> None:
        """Nobody asks any more."""
        super().timeout_keep_alive_handler()
        self._abort_later()

    def leave(self) -> None:
        """Close when everything written is taken, or when the time for it is up."""
        self.transport.close()
        self._abort_later()

    def _abort_later(self) -> None:
        if self._taken_by is None and self.answer_s:
            self._taken_by = self.loop.call_later(self.answer_s, self.transport.abort)

    def _unset_answer_timer(self) -> None:
        if self._taken_by is not None:
            self._taken_by.cancel()
            self._taken_by = None


def limited_protocol(answer_timeout_s: float) -> type[LimitedProtocol]:
    """The protocol with this setting: a server makes an object of it for each connection, and gives it nothing more."""
    return type("LimitedProtocol", (LimitedProtocol,), {"answer_s": answer_timeout_s})
