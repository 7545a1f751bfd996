"""Leaving without losing a request: what a process answers between SIGTERM and its end.

Three phases. *Serving*. *Leaving*: `/readyz` says 503, and everything else is answered as before, with
`Connection: close`, so that load balancers and clients move to another instance. *Closing*: the listener is closed,
idle connections are closed too, requests in flight are finished, and one that comes all the same gets the contract's
503. SIE's SDK repeats a request whose connection was closed, but not this 503: that is why it is the last resort.
"""

from __future__ import annotations

import logging
import signal
import socket
import time
from enum import Enum
from types import FrameType
from typing import TYPE_CHECKING, Final

import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sie_frontend.contract.errors import shutting_down
from sie_frontend.http.tls import TlsFiles

if TYPE_CHECKING:
    from sie_frontend.http.admin import AdminServer  # which asks the process that is drained

log = logging.getLogger("sie_frontend")

# Every ten seconds.
_TICKS_OF_TLS: Final = 100


class Phase(Enum):
    """Where a process is in its life."""

    SERVING = "serving"
    LEAVING = "leaving"
    CLOSING = "closing"


class Drain:
    """The phase of this process. Signal handlers may call `leave`: it takes no lock and writes no log."""

    def __init__(self) -> None:
        self.phase = Phase.SERVING

    def leave(self) -> None:
        """Other instances should be asked from now on."""
        if self.phase is Phase.SERVING:
            self.phase = Phase.LEAVING

    def close(self) -> None:
        """No new request is answered from now on."""
        self.phase = Phase.CLOSING


class DrainMiddleware:
    """Says `Connection: close` on every answer once this process leaves, and 503 to what comes after."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the lifespan."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        drain = self._drain

        async def send_last(message: Message) -> None:
            # The phase when the answer is sent, not when the request came: it may have been in flight for long.
            if message["type"] == "http.response.start" and drain.phase is not Phase.SERVING:
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        if drain.phase is Phase.CLOSING and scope["path"].startswith("/v1/"):
            error = shutting_down()
            await Response(error.body(), error.status, error.headers())(scope, receive, send_last)
            return
        await self._app(scope, receive, send_last)


class DrainingServer(uvicorn.Server):
    """uvicorn, which keeps listening for `delay_s` seconds after SIGTERM. A second signal ends the wait."""

    def __init__(
        self,
        config: uvicorn.Config,
        drain: Drain,
        *,
        delay_s: float,
        admin: AdminServer | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        super().__init__(config)
        self._admin = admin
        self._tls = tls
        self._drain = drain
        self._delay_s = delay_s
        self._close_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Leave; on the first SIGTERM of a process that serves, close later."""
        first = self._drain.phase is Phase.SERVING
        self._drain.leave()
        super().handle_exit(sig, frame)
        if first and sig == signal.SIGTERM and self.started and self._delay_s:
            self._close_at = time.monotonic() + self._delay_s
            self.should_exit = False

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; returns whether to close now."""
        if self._tls is not None and self.config.ssl is not None and counter % _TICKS_OF_TLS == 0:
            self._tls.renew(self.config.ssl)
        if self._close_at is not None and time.monotonic() >= self._close_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen. Raises `SettingsError` if the port for health and metrics cannot be had."""
        if self._admin is not None:
            self._admin.bind()
        await super().startup(sockets)
        if self._admin is not None:
            await self._admin.open()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener and finish what is in flight; health and metrics are answered until that is done."""
        self._drain.close()
        log.info("closing: the listener is closed, requests in flight are finished")
        await super().shutdown(sockets)
        if self._admin is not None:
            await self._admin.close()
