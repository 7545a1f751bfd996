"""One process's state: the repository, the engine, and the identity that its responses carry."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.applications import Starlette

from sie_frontend.access.keyring import Grant
from sie_frontend.contract import errors
from sie_frontend.http.drain import Drain, Phase
from sie_frontend.http.gate import make_gate
from sie_frontend.http.status.traffic import TrafficWatch
from sie_frontend.live.origin import RepositoryOrigin
from sie_frontend.live.renewal import Renewal
from sie_frontend.manifest import Manifest, Model
from sie_frontend.residency.carrier import Discharge, Memory
from sie_frontend.serving.ailments import Ailments
from sie_frontend.serving.engine import Engine
from sie_frontend.serving.lora import weights_of
from sie_frontend.serving.on_demand import check_on_demand
from sie_frontend.settings import Settings, SettingsError
from sie_frontend.storage import open_repository
from sie_frontend.watch.last_errors import LastErrors
from sie_frontend.watch.metrics import Metrics
from sie_frontend.watch.observation import Observer
from sie_frontend.watch.tracing import Tracing, make_tracing


class Frontend:
    """One process's state: the repository, the engine, what watches it, and the identity that responses carry."""

    def __init__(
        self,
        settings: Settings,
        tracing: Tracing | None = None,
        memory: Memory | None = None,
        ailments: Ailments | None = None,
        discharge: Discharge | None = None,
    ) -> None:
        self.settings = settings
        self.gate = make_gate(settings)
        self.begun = time.monotonic()
        self.metrics = Metrics()
        self.last_errors = LastErrors()
        self.traffic = TrafficWatch(self.metrics)
        self.drain = Drain()
        self._engine: Engine | None = None
        self._renewal: Renewal | None = None
        self._origin = RepositoryOrigin(settings.repository)
        self._mark = self._origin.mark()
        self.repository = open_repository(settings.repository)
        for model_id in settings.ready_model_ids:
            if model_id not in self.manifest.models:
                raise SettingsError(f"`SIE_TRITON_READY_MODELS` names {model_id!r}, which the repository does not hold")
        check_on_demand(self.manifest, self.repository.folder, settings)
        self._memory = memory
        self._ailments = ailments
        self._discharge = discharge
        self.tracing = tracing or make_tracing()
        self.observer = Observer(self.metrics, self.tracing, self, access_log=settings.access_log)
        self.runtime_instance = secrets.token_hex(32)
        self.served = ""

    def __contains__(self, model_id: object) -> bool:
        """Whether it is a routable id now."""
        return model_id in self.manifest.models

    @property
    def manifest(self) -> Manifest:
        """What is served now."""
        return self.repository.manifest if self._engine is None else self._engine.manifest

    @property
    def served_parts(self) -> tuple[str, ...]:
        """The Triton models that answer now; nothing before the lifespan is open. Any thread may ask."""
        return () if self._engine is None else tuple(self._engine.manifest.served().triton_models)

    @property
    def built(self) -> int:
        """When the repository was published that is served, in seconds since 1970; of a copy, when it was fetched."""
        return self.renewal.opened.published

    @property
    def renewal(self) -> Renewal:
        """What makes the engine follow the repository; it exists while the application's lifespan is open."""
        assert self._renewal is not None
        return self._renewal

    @property
    def engine(self) -> Engine:
        """The engine; it exists while the application's lifespan is open."""
        assert self._engine is not None
        return self._engine

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Open the engine inside the event loop and close it when the last request is answered."""
        folder = self.repository.folder
        watched = (self._memory, self._ailments, self._discharge)
        self._engine = Engine(self.manifest, folder, self.settings, self.metrics, self.tracing, *watched)
        self._renewal = Renewal(self._engine, self._origin, self.repository, self._mark, self._memory, self._discharge)
        self._renewal.start()
        watching = asyncio.create_task(self.traffic.keep(), name="watch-traffic")
        try:
            async with self.gate.followed() if self.gate else contextlib.nullcontext():
                yield
        finally:
            await self._renewal.close()
            watching.cancel()
            await self._engine.close()
            await asyncio.to_thread(self.tracing.close)
            self._renewal.opened.close()
            self.repository.close()

    @property
    def ready(self) -> bool:
        """What `/readyz` says: the models that must answer do, and this process stays."""
        return self.drain.phase is Phase.SERVING and self.engine.ready

    def model(self, model_id: str, grant: Grant | None = None) -> Model:
        """The model of a routable id. Raises `WireError`: 404 with suggestions, 403 for what a key is not for."""
        if grant is not None:
            grant.check_model(model_id)
        model = self.manifest.models.get(model_id)
        if model is None:
            raise errors.model_not_found(model_id, self.model_ids(grant))
        return model

    def version_headers(self, model_id: str, model: Model) -> Mapping[str, str]:
        """The header that names the version which answers; nothing for an id that never had another one."""
        if model_id not in self.manifest.previous:
            return {}
        return {"x-sie-model-version": ",".join(model.triton_models)}

    def check_weights(self, model_id: str, options: Mapping[str, Any], grant: Grant | None) -> None:
        """Whether a key is for the weights that options choose instead of the model's own. Raises `WireError` (403)."""
        if grant is not None:
            grant.check_model(weights_of(model_id, self.manifest.models, options))

    def model_ids(self, grant: Grant | None = None) -> list[str]:
        """The routable ids, or those that a key is for."""
        return [model_id for model_id in self.manifest.models if grant is None or grant.reads(model_id)]
