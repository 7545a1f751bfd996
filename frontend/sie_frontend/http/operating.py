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
from sie_frontend.live.report import RenewalReport, built_facts
from sie_frontend.manifest import Model
from sie_frontend.residency.units import expected_bytes
from sie_frontend.storage import is_url

STATUS_PATH: Final = "/admin/status"
RELOAD_PATH: Final = "/admin/reload"


def operating_routes(frontend: Frontend, *, open_to_all: bool) -> list[BaseRoute]:
    """`GET /admin/status` and `POST /admin/reload`: for a key of the verb `admin`, or for whoever reaches the port."""

    async def status(_: Request, grant: Grant | None = None) -> Response:
        return json_answer(await status_document(frontend))

    async def reload(_: Request, grant: Grant | None = None) -> Response:
        # A client that leaves does not end what others are answered by.
        await asyncio.shield(asyncio.create_task(frontend.renewal.look(again=True)))
        return json_answer(await status_document(frontend))

    return [
        Route(STATUS_PATH, status if open_to_all else keyed(frontend, "admin", status)),
        Route(RELOAD_PATH, reload if open_to_all else keyed(frontend, "admin", reload), methods=["POST"]),
    ]


async def status_document(frontend: Frontend) -> dict[str, Any]:
    """What `sie-triton status` shows: the repository, each id, what was refused, and what happened lately."""
    report, location = frontend.renewal.report(), frontend.settings.repository
    manifest = frontend.manifest
    memory = await _memory(frontend)
    requests = _requests(frontend)
    models = {
        model_id: {
            **_state(frontend, model_id, model),
            **built_facts(manifest, model_id, model),
            "memory_bytes": sum(memory.get(part, 0) for part in manifest.parts(model)),
            "requests": requests.get(model_id, 0),
            **_change(report, model_id),
        }
        for model_id, model in manifest.models.items()
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
        "ready": frontend.ready,
        "working": list(report.working),
        "leaving": list(report.leaving),
        "models": {**models, **missing},
        "removed": sorted(model_id for model_id in manifest.previous if model_id not in manifest.models),
        "events": [
            {"at": event.at, "what": event.what, "model": event.model, "detail": event.detail}
            for event in report.events
        ],
    }


def _state(frontend: Frontend, model_id: str, model: Model) -> dict[str, Any]:
    status = frontend.engine.state(model_id, model)
    failure = None if status.failure is None else status.failure.message
    return {"state": status.state, "loaded": status.loaded, "last_error": failure}


def _change(report: RenewalReport, model_id: str) -> dict[str, Any]:
    refusal = report.refusals.get(model_id)
    return {
        "changing": model_id in report.working,
        "refused": None if refusal is None else {"change": refusal.change, "reason": refusal.reason, "at": refusal.at},
    }


async def _memory(frontend: Frontend) -> Mapping[str, int]:
    """Bytes by Triton model: seen where that is possible, else reckoned; nothing for what is not loaded."""
    engine = frontend.engine
    if engine.residency is not None:
        policy = engine.residency.policy
        return {
            part: policy.costs.get(part, 0)
            for name, residence in policy.residences.items()
            if policy.held_by(name)
            for part in residence.unit.parts
        }
    seen = await asyncio.to_thread(engine.memory) if engine.memory else {}
    reckoned = await asyncio.to_thread(
        expected_bytes, engine.manifest.served(), frontend.renewal.opened.folder, engine.settings.device
    )
    return {**reckoned, **seen}


def _requests(frontend: Frontend) -> Mapping[str, int]:
    """Answered requests by id since the start."""
    found: dict[str, int] = {}
    for metric in frontend.metrics.requests.collect():
        for sample in metric.samples:
            if sample.name.endswith("_total"):
                model_id = sample.labels["model"]
                found[model_id] = found.get(model_id, 0) + int(sample.value)
    return found
