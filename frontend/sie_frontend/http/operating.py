"""For whoever operates the server: what is served and how it stands, and a look at the repository at once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from sie_frontend.access.keyring import Grant
from sie_frontend.http.answers import json_answer, keyed
from sie_frontend.http.frontend import Frontend
from sie_frontend.http.status.gathered import GatheringRoom, ModelStanding
from sie_frontend.live.report import RenewalReport, built_facts
from sie_frontend.residency.units import expected_bytes
from sie_frontend.storage import is_url

STATUS_PATH: Final = "/admin/status"
RELOAD_PATH: Final = "/admin/reload"


def operating_routes(frontend: Frontend, room: GatheringRoom, *, open_to_all: bool) -> list[BaseRoute]:
    """`GET /admin/status` and `POST /admin/reload`: for a key of the verb `admin`, or for whoever reaches the port."""

    async def status(_: Request, grant: Grant | None = None) -> Response:
        return json_answer(await status_document(frontend, room))

    async def reload(_: Request, grant: Grant | None = None) -> Response:
        # A client that leaves does not end what others are answered by.
        await asyncio.shield(asyncio.create_task(frontend.renewal.look(again=True)))
        return json_answer(await status_document(frontend, room))

    return [
        Route(STATUS_PATH, status if open_to_all else keyed(frontend, "admin", status)),
        Route(RELOAD_PATH, reload if open_to_all else keyed(frontend, "admin", reload), methods=["POST"]),
    ]


async def status_document(frontend: Frontend, room: GatheringRoom) -> dict[str, Any]:
    """What `sie-triton status` shows: the repository, each id, what was refused, and what happened lately."""
    gathered = await room.gather(counted=True)
    assert gathered.counted is not None
    report, location = frontend.renewal.report(), frontend.settings.repository
    manifest, requests = gathered.manifest, gathered.counted.window.now.requests
    memory = await _memory(frontend, gathered.counted.memory)
    models = {
        model_id: {
            **_state(standing),
            **built_facts(manifest, model_id, standing.model),
            "memory_bytes": sum(memory.get(part, 0) for part in standing.parts),
            "requests": round(requests.get(model_id, 0.0)),
            **_change(report, model_id),
        }
        for model_id, standing in gathered.models.items()
    }
    missing = {
        model_id: {"state": "refused", "loaded": False, "triton_models": [], **_change(report, model_id)}
        for model_id in report.refusals
        if model_id not in manifest.models
    }
    return {
        "repository": location if is_url(location) else os.path.realpath(location),
        "published": frontend.built,
        "phase": report.phase.value,
        "unreadable": report.unreadable,
        "ready": gathered.ready,
        "working": list(report.working),
        "leaving": list(report.leaving),
        "models": {**models, **missing},
        "removed": sorted(model_id for model_id in manifest.previous if model_id not in manifest.models),
        "events": [
            {"at": event.at, "what": event.what, "model": event.model, "detail": event.detail}
            for event in report.events
        ],
    }


def _state(standing: ModelStanding) -> dict[str, Any]:
    status = standing.status
    failure = None if status.failure is None else status.failure.message
    return {"state": status.state, "loaded": status.loaded, "last_error": failure}


def _change(report: RenewalReport, model_id: str) -> dict[str, Any]:
    refusal = report.refusals.get(model_id)
    return {
        "changing": model_id in report.working,
        "refused": None if refusal is None else {"change": refusal.change, "reason": refusal.reason, "at": refusal.at},
    }


async def _memory(frontend: Frontend, known: Mapping[str, int]) -> Mapping[str, int]:
    """Bytes by Triton model: what is known, and where everything is loaded what the rest is reckoned to take."""
    engine = frontend.engine
    if engine.residency is not None:
        return known
    reckoned = await asyncio.to_thread(
        expected_bytes, engine.manifest.served(), frontend.renewal.opened.folder, engine.settings.device
    )
    return {**reckoned, **known}
