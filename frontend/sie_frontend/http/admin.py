"""What is asked about the process: health, metrics and status, on the API's port or on one of their own."""

from __future__ import annotations

import logging
import socket

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sie_frontend.access.keyring import Grant
from sie_frontend.http.answers import keyed
from sie_frontend.http.frontend import Frontend
from sie_frontend.http.limits import limited_protocol
from sie_frontend.http.operating import operating_routes
from sie_frontend.http.status.gathered import GatheringRoom
from sie_frontend.http.status.routes import status_routes
from sie_frontend.settings import SettingsError
from sie_frontend.watch.metrics import CONTENT_TYPE

log = logging.getLogger("sie_frontend")


def health_routes(frontend: Frontend) -> list[BaseRoute]:
    """Whether the process lives, and whether its models answer. Nobody needs a key for it: probes have none."""

    async def readyz(_: Request) -> Response:
        ready = frontend.ready
        return Response("ok" if ready else "not ready", 200 if ready else 503, media_type="text/plain")

    async def livez(_: Request) -> Response:
        return Response("ok", media_type="text/plain")

    return [Route("/livez", livez), Route("/healthz", readyz), Route("/readyz", readyz)]


def metrics_route(frontend: Frontend, *, open_to_all: bool) -> Route:
    """Prometheus' metrics: for a key that is for them, or to whoever reaches a port of their own."""

    async def metrics(_: Request, grant: Grant | None = None) -> Response:
        frontend.metrics.ready.set(frontend.ready)
        return Response(frontend.metrics.render(), headers={"content-type": CONTENT_TYPE})

    return Route("/metrics", metrics if open_to_all else keyed(frontend, "metrics", metrics))


class AdminServer(uvicorn.Server):
    """Health, metrics and status on a port of their own, in the event loop of the server that it belongs to.

    It speaks plain HTTP, and asks for no key: what may reach it is the network's to decide.
    """

    def __init__(self, frontend: Frontend, host: str, port: int) -> None:
        room = GatheringRoom(frontend)
        app = Starlette(
            routes=[
                *health_routes(frontend),
                metrics_route(frontend, open_to_all=True),
                *operating_routes(frontend, room, open_to_all=True),
                *status_routes(frontend, room, open_to_all=True),
            ]
        )
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                http=limited_protocol(frontend.settings.answer_timeout_s),
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._address = (host, port)
        self._socket: socket.socket | None = None

    def bind(self) -> None:
        """Take the port. Raises `SettingsError`."""
        host, port = self._address
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family)
        except (OSError, OverflowError) as error:
            why = (getattr(error, "strerror", None) or str(error)).lower()
            raise SettingsError(f"`SIE_TRITON_ADMIN_PORT`: {host}:{port} cannot be listened on: {why}") from None

    async def open(self) -> None:
        """Answer from now on."""
        assert self._socket is not None
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=[self._socket])
        host, port = self._socket.getsockname()[:2]
        log.info("health and metrics are on http://%s:%d", f"[{host}]" if ":" in host else host, port)

    async def close(self) -> None:
        """Answer no more."""
        if self._socket is not None:
            if self.started:
                await self.shutdown(sockets=[self._socket])
            self._socket.close()
