"""`/v1/status` and the page at `/`."""

from __future__ import annotations

from typing import Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from sie_frontend.access.keyring import Grant
from sie_frontend.http.answers import keyed
from sie_frontend.http.frontend import Frontend
from sie_frontend.http.status.facts import status_report
from sie_frontend.http.status.gathered import GatheringRoom
from sie_frontend.http.status.page import StaticPage, wants_page

_HEADERS: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


def status_routes(frontend: Frontend, room: GatheringRoom, *, open_to_all: bool) -> list[BaseRoute]:
    """The facts and the page. The page is for anybody.

    The facts are for a key that may list models, with numbers if it may read metrics; or for whoever reaches a port of
    their own. Where there is such a port and no key, the API's port tells no numbers.
    """
    page = StaticPage()
    without_key = open_to_all or frontend.settings.admin_port is None

    async def status(_: Request, grant: Grant | None = None) -> Response:
        numbers = without_key if grant is None else grant.may("metrics")
        gathered = await room.gather(counted=numbers)
        report = status_report(frontend, gathered, frontend.model_ids(grant), api=not open_to_all)
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
