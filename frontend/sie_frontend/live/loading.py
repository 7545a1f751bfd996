"""How Triton models come and go while requests are answered: all at once, or by the rules of loading on demand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from sie_frontend.live.changes import ChangeKind, ChangeStep
from sie_frontend.manifest import Manifest
from sie_frontend.residency.carrier import Carrier, Survey
from sie_frontend.residency.residency import LoadFailed, Residency
from sie_frontend.residency.units import expected_bytes, units_of
from sie_frontend.serving.catalogue import Catalogue
from sie_frontend.serving.engine import Engine
from sie_frontend.triton.client import FailureKind, TritonFailure
from sie_frontend.triton.model_control import ModelState

_NO_CONTROL = "explicit model load / unload is not allowed"


class LoadRefused(Exception):
    """Triton models could not be loaded. `again`: nobody answered, so that it may be tried again soon."""

    def __init__(self, message: str, *, again: bool = False) -> None:
        super().__init__(message)
        self.again = again


class Loading(Protocol):
    """Loads what a step needs, and unloads what nobody needs any more."""

    def enter(self, manifest: Manifest, repository: Path) -> Mapping[str, str]:
        """Know the models of a manifest that may be switched to; returns the name of each id's unit."""

    def loaded(self, step: ChangeStep, catalogue: Catalogue) -> contextlib.AbstractAsyncContextManager[bool]:
        """Load what a step needs, and keep it within the context; gives whether it is loaded. Raises `LoadRefused`."""

    async def withdraw(self, catalogue: Catalogue, parts: Sequence[str], present: Catalogue) -> None:
        """Unload what was loaded for a catalogue that is not switched to, but not what the `present` one needs."""

    def superseded(self, before: Catalogue) -> None:
        """Another catalogue is switched to; requests that began with this one go on."""

    async def leave(self, before: Catalogue, parts: Sequence[str], present: Catalogue) -> None:
        """Unload parts that only catalogues up to `before` need, when their last request is answered."""

    async def keep(self, present: Catalogue) -> None:
        """Load again what a Triton lacks that came back without it, and unload what it has that was let go of."""


class LoadAtOnce:
    """Everything is loaded, as at the start."""

    def __init__(self, engine: Engine, carrier: Carrier) -> None:
        self._engine = engine
        self._carrier = carrier
        self._older: list[Catalogue] = []
        self._lacking: dict[str, int] = {}
        self._left: dict[str, int] = {}  # what was let go of, and how often it was seen since

    def enter(self, manifest: Manifest, repository: Path) -> Mapping[str, str]:
        """Nothing has units."""
        return {}

    @contextlib.asynccontextmanager
    async def loaded(self, step: ChangeStep, catalogue: Catalogue) -> AsyncIterator[bool]:
        """Load the new parts on every Triton."""
        for part in step.load:
            self._left.pop(part, None)
        try:
            if step.load:
                await self._carrier.load(step.load)
        except TritonFailure as failure:
            raise _refused(failure) from failure
        await self._engine.readiness.look(step.public)
        for name in step.public:
            if not self._engine.readiness.ready(name):
                raise LoadRefused(f"`{name}` is loaded and does not say that it is ready", again=True)
        yield True

    async def withdraw(self, catalogue: Catalogue, parts: Sequence[str], present: Catalogue) -> None:
        """Unload at once: no request was ever sent to it."""
        needed = _parts(present)
        await self._unload([part for part in reversed(parts) if part not in needed])

    def superseded(self, before: Catalogue) -> None:
        """Remember it as long as it has requests."""
        self._older = [older for older in (*self._older, before) if older.busy]

    async def leave(self, before: Catalogue, parts: Sequence[str], present: Catalogue) -> None:
        """Wait for the requests of every older catalogue, since each of them may need these parts."""
        for older in tuple(self._older):
            await older.unused()
        self._engine.readiness.left([name for name in parts if name in before.inputs])
        await self._unload(parts)

    async def _unload(self, parts: Sequence[str]) -> None:
        await self._carrier.unload(parts)
        self._left.update(dict.fromkeys(parts, 0))

    async def keep(self, present: Catalogue) -> None:
        """What a Triton was seen to lack twice is loaded there, ever more seldom as long as that fails.

        What was let go of is unloaded where it is seen: a Triton that was just starting then had not heard of it.
        """
        needed = _parts(present)
        survey = await self._carrier.survey()
        await self._unload_again(survey, needed)
        for url, states in survey.items():
            lacking = [part for part in needed if states.get(part) not in (ModelState.READY, ModelState.LOADING)]
            seen = self._lacking[url] = self._lacking.get(url, 0) + 1 if lacking else 0
            client = self._carrier.client(url)
            if client is not None and seen > 1 and seen & (seen - 1) == 0:
                with contextlib.suppress(TritonFailure):
                    await self._carrier.load_on(client, lacking)

    async def _unload_again(self, survey: Survey, needed: Collection[str]) -> None:
        """Ever more seldom: another frontend may want it."""
        seen = {part for states in survey.values() for part, state in states.items() if state is ModelState.READY}
        stray = [part for part in self._left if part in seen and part not in needed]
        for part in stray:
            self._left[part] += 1
        due = [part for part in stray if self._left[part] & (self._left[part] - 1) == 0]
        if due:
            await self._carrier.unload(due)


class LoadOnDemand:
    """Models are loaded when they are asked for; what replaces one is loaded before it is switched to."""

    def __init__(self, engine: Engine, residency: Residency) -> None:
        self._engine = engine
        self._residency = residency

    def enter(self, manifest: Manifest, repository: Path) -> Mapping[str, str]:
        """The units of a manifest, of which those that are known are the same."""
        settings = self._engine.settings
        pinned = frozenset(settings.pinned_ids) & frozenset(manifest.models)
        known = [residence.unit for residence in self._residency.policy.residences.values()]
        units, unit_of = units_of(manifest, pinned, known)
        self._residency.add(list(units.values()), expected_bytes(manifest, repository, settings.device))
        return unit_of

    @contextlib.asynccontextmanager
    async def loaded(self, step: ChangeStep, catalogue: Catalogue) -> AsyncIterator[bool]:
        """Load what replaces something; what is merely added is loaded when it is asked for."""
        replacing = [i for i, kind in step.kinds.items() if kind is ChangeKind.REPLACED]
        if not replacing:
            yield False
            return
        with contextlib.ExitStack() as holding:
            for model_id in replacing:
                unit = catalogue.unit_of[model_id]
                try:
                    await self._residency.bring(unit)
                except LoadFailed as failure:
                    raise LoadRefused(str(failure)) from None
                holding.enter_context(self._residency.use(model_id, unit))
            yield True

    async def withdraw(self, catalogue: Catalogue, parts: Sequence[str], present: Catalogue) -> None:
        """Forget the units that only the catalogue has."""
        await self._retire(set(catalogue.unit_of.values()) - set(present.unit_of.values()), "refused")

    def superseded(self, before: Catalogue) -> None:
        """Each unit knows its own requests."""

    async def leave(self, before: Catalogue, parts: Sequence[str], present: Catalogue) -> None:
        """Forget the units that only the older catalogue has; each waits for its own requests alone."""
        await self._retire(set(before.unit_of.values()) - set(present.unit_of.values()), "replaced")

    async def keep(self, present: Catalogue) -> None:
        """The residency looks after that."""

    async def _retire(self, units: Collection[str], reason: str) -> None:
        await asyncio.gather(*(self._residency.retire(unit, reason) for unit in units))


def _parts(catalogue: Catalogue) -> tuple[str, ...]:
    """Every Triton model that a catalogue needs, in the order of loading."""
    manifest = catalogue.manifest
    return tuple(dict.fromkeys(part for model in manifest.models.values() for part in manifest.parts(model)))


def _refused(failure: TritonFailure) -> LoadRefused:
    if _NO_CONTROL in str(failure):
        return LoadRefused("Triton loads nothing while it runs: start it with `--model-control-mode=explicit`")
    return LoadRefused(str(failure), again=failure.kind is FailureKind.UNREACHABLE)
