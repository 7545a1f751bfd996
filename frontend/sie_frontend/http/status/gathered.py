"""The room that gathers: what a process knows of itself, read once. Its readers narrow it to what they may say.

`facts.py` tells whoever may list models, with numbers for whoever may read metrics; `http/operating.py` tells whoever
operates the server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from sie_frontend import __version__
from sie_frontend.http.frontend import Frontend
from sie_frontend.http.status.traffic import TrafficWindow
from sie_frontend.manifest import Built, Manifest, Model
from sie_frontend.serving.engine import Engine
from sie_frontend.serving.results import ModelStatus

_MEMORY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ModelStanding:
    """One id: how it stands, the Triton models that it needs, and what was built for it."""

    model: Model
    status: ModelStatus
    parts: tuple[str, ...]
    built: tuple[Built, ...]


@dataclass(frozen=True, slots=True)
class Counted:
    """Numbers that not everybody may see: bytes by Triton model, as far as they are known, and what was asked."""

    memory: Mapping[str, int]
    window: TrafficWindow


@dataclass(frozen=True, slots=True)
class Gathered:
    """A process and its models now. `now` is the time by the clock of the last errors."""

    version: str
    phase: Literal["serving", "leaving", "closing"]
    ready: bool
    uptime_s: float
    now: float
    manifest: Manifest
    models: Mapping[str, ModelStanding]
    counted: Counted | None


class GatheringRoom:
    """Gathers what one process's engine, metrics and memory say. Nothing is asked of Triton."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        self._seen: Mapping[str, int] = {}
        self._at = -_MEMORY_S
        self._looking = asyncio.Lock()

    async def gather(self, *, counted: bool) -> Gathered:
        """Everything; numbers only if they are asked for, since whoever may not see them must not cost either."""
        frontend = self._frontend
        numbers = Counted(await self._memory(), await frontend.traffic.look()) if counted else None
        engine, now = frontend.engine, time.monotonic()
        manifest = engine.manifest
        return Gathered(
            version=__version__,
            phase=frontend.drain.phase.value,
            ready=frontend.ready,
            uptime_s=now - frontend.begun,
            now=now,
            manifest=manifest,
            models={model_id: _standing(engine, model_id, model) for model_id, model in manifest.models.items()},
            counted=numbers,
        )

    async def _memory(self) -> Mapping[str, int]:
        """Bytes by Triton model: as seen where that is possible, else as the residency reckons; else nothing."""
        engine = self._frontend.engine
        seen = await self._looked()
        if seen or engine.residency is None:
            return seen
        policy = engine.residency.policy
        held = (residence for name, residence in policy.residences.items() if policy.held_by(name))
        return {part: policy.costs.get(part, 0) for residence in held for part in residence.unit.parts}

    async def _looked(self) -> Mapping[str, int]:
        """No more often than every few seconds: it reads much of `/proc`."""
        look = self._frontend.engine.memory
        if look is None:
            return {}
        async with self._looking:
            if time.monotonic() - self._at >= _MEMORY_S:
                self._seen = await asyncio.to_thread(look)
                self._at = time.monotonic()
        return self._seen


def _standing(engine: Engine, model_id: str, model: Model) -> ModelStanding:
    manifest = engine.manifest
    built = tuple(found for name in model.triton_models if (found := manifest.built.get(name)))
    return ModelStanding(model, engine.state(model_id, model), manifest.parts(model), built)
