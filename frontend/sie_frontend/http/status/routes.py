"""`/v1/status` and the page at `/`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from sie_frontend import __version__
from sie_frontend.access.keyring import Grant
from sie_frontend.http.answers import keyed
from sie_frontend.http.frontend import Frontend
from sie_frontend.http.status.facts import ProcessFacts, StatusReport, gather
from sie_frontend.http.status.page import StaticPage, wants_page
from sie_frontend.residency.carrier import Memory

_MEMORY_S: Final = 5.0


class MemoryLook:
    """What Triton models take, looked at no more often than every few seconds: it reads much of `/proc`."""

    def __init__(self, memory: Memory | None) -> None:
        self._memory = memory
        self._seen: Mapping[str, int] = {}
        self._at = -_MEMORY_S
        self._looking = asyncio.Lock()

    async def seen(self) -> Mapping[str, int]:
        """Bytes by Triton model; nothing where that cannot be known."""
        if self._memory is None:
            return {}
        async with self._looking:
            if time.monotonic() - self._at >= _MEMORY_S:
                self._seen = await asyncio.to_thread(self._memory)
                self._at = time.monotonic()
        return self._seen


def status_routes(frontend: Frontend, memory: Memory | None) -> list[BaseRoute]:
    """The facts, for a key that may list models, with numbers if it may read metrics; and the page, for anybody."""
    look = MemoryLook(memory)
    page = StaticPage()

    async def status(_: Request, grant: Grant | None) -> Response:
        numbers = frontend.settings.admin_port is None if grant is None else grant.may("metrics")
        report = await report_of(frontend, look, grant, numbers=numbers)
        return Response(
            msgspec.json.encode(report), media_type="application/json", headers={"cache-control": "no-store"}
        )

    async def root(request: Request) -> Response:
        if wants_page(request.headers.get("accept")):
            answer = page.answer(request)
            answer.headers["vary"] = "Accept"
            return answer
        return RedirectResponse("/docs", status_code=307)

    return [Route("/v1/status", keyed(frontend, "models", status)), Route("/", root), Mount("/page", page)]


async def report_of(frontend: Frontend, look: MemoryLook, grant: Grant | None, *, numbers: bool) -> StatusReport:
    """The facts about the models that a key is for; with the process's numbers, if the asker may have them."""
    memory = await look.seen() if numbers else {}
    now = time.monotonic()
    process = ProcessFacts(
        version=__version__,
        phase=frontend.drain.phase.value,
        ready=frontend.ready,
        uptime_s=now - frontend.begun,
        memory=memory,
        now=now,
    )
    ids = frontend.model_ids(grant)
    traffic = frontend.traffic if numbers else None
    return gather(frontend.engine, frontend.metrics, process, ids, traffic, frontend.last_errors)
