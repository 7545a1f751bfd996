"""`/v1/status` and the page at `/`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.exceptions import HTTPException
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
_HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


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


def status_routes(frontend: Frontend, memory: Memory | None, *, open_to_all: bool) -> list[BaseRoute]:
    """The facts and the page. The page is for anybody.

    The facts are for a key that may list models, with numbers if it may read metrics; or for whoever reaches a port of
    their own. Where there is such a port and no key, the API's port tells no numbers.
    """
    look = MemoryLook(memory)
    page = StaticPage()
    without_key = open_to_all or frontend.settings.admin_port is None

    async def status(_: Request, grant: Grant | None = None) -> Response:
        numbers = without_key if grant is None else grant.may("metrics")
        report = await _report(frontend, look, grant, numbers=numbers, api=not open_to_all)
        return Response(msgspec.json.encode(report), media_type="application/json", headers=_HEADERS)

    async def root(request: Request) -> Response:
        if wants_page(request.headers.get("accept")):
            answer = page.answer(request)
            answer.headers["vary"] = "Accept"
            return answer
        if open_to_all:
            raise HTTPException(404)
        return RedirectResponse("/docs", status_code=307)

    asked = status if open_to_all else keyed(frontend, "models", status)
    return [Route("/v1/status", asked), Route("/", root), Mount("/page", page)]


async def _report(
    frontend: Frontend, look: MemoryLook, grant: Grant | None, *, numbers: bool, api: bool
) -> StatusReport:
    """The facts about the models that a key is for; with the process's numbers, if the asker may have them."""
    memory = await look.seen() if numbers else {}
    window = await frontend.traffic.look() if numbers else None
    now = time.monotonic()
    process = ProcessFacts(
        version=__version__,
        phase=frontend.drain.phase.value,
        ready=frontend.ready,
        uptime_s=now - frontend.begun,
        api=api,
        memory=memory,
        now=now,
    )
    ids = frontend.model_ids(grant)
    return gather(frontend.engine, frontend.metrics, process, ids, window, frontend.last_errors)
