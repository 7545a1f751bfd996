"""The policy at work: admits requests, carries out what the policy decides, and looks after what Triton holds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Final

from sie_frontend.contract import errors
from sie_frontend.residency.carrier import Carrier, Survey
from sie_frontend.residency.policy import Policy
from sie_frontend.residency.state import HOLDING, Command, Load, LoadFailure, Stage, Unload
from sie_frontend.residency.units import Unit
from sie_frontend.triton.client import FailureKind, TritonFailure
from sie_frontend.triton.model_control import ModelState
from sie_frontend.watch.metrics import Metrics

log = logging.getLogger("sie_frontend")

TICK_S: Final = 0.25
SURVEY_S: Final = 1.0
MEASURE_S: Final = 2.0
_REPAIR_S: Final = 5.0
_BRING_S: Final = 0.05
_MAX_REPAIR_S: Final = 300.0

# The units that the present request holds: what it asks for further on is admitted with it.
_held: ContextVar[frozenset[str]] = ContextVar("sie_frontend_held_units", default=frozenset())


class LoadFailed(Exception):
    """A unit could not be loaded; the message is Triton's reason."""


class Residency:
    """Loads what is asked for and unloads what must go. Made inside a running loop; `start` it, then `close` it.

    `unit_of` names each id's unit. `arrived` is awaited with the public Triton models of a unit before the first
    request is admitted to it, `left` is called with them before they are unloaded.
    """

    def __init__(
        self,
        policy: Policy,
        unit_of: Mapping[str, str],
        carrier: Carrier,
        metrics: Metrics,
        *,
        arrived: Callable[[Collection[str]], Awaitable[None]],
        left: Callable[[Collection[str]], None],
        preload: Collection[str] = (),
    ) -> None:
        self.policy = policy
        self.unit_of = unit_of
        self._carrier = carrier
        self._metrics = metrics
        self._arrived = arrived
        self._left = left
        self._unsettled = {unit_of[model_id] for model_id in preload}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ready_since: dict[str, float] = {}
        self._left_at: dict[str, float] = {}
        self._repairs: dict[tuple[str, str], tuple[float, float]] = {}
        self._repairing: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._adopted = False
        self._wake = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        metrics.memory_budget.set(policy.rules.budget or 0)
        metrics.memory_used.set_function(policy.used)
        for residence in policy.residences.values():
            self._tell_memory(residence.unit.label)

    def start(self) -> None:
        """Look after the models from now on."""
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Let go. What is loaded stays so: another frontend, or the next one, may find it."""
        tasks = [task for task in (self._watcher, *self._tasks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # What requests need

    @contextlib.contextmanager
    def use(self, model_id: str, unit: str = "") -> Iterator[None]:
        """Hold a model, or one `unit` of several that were the model's, while a request is computed.

        Raises `WireError` where it is not there, and asks for it.
        """
        name, held = unit or self.unit_of[model_id], _held.get()
        if name in held:
            yield
            return
        if name not in self.policy.residences or not self.policy.admit(name, time.monotonic()):
            self._step()
            raise self._refusal(model_id, name)
        token = _held.set(held | {name})
        try:
            yield
        finally:
            _held.reset(token)
            self.policy.release(name, time.monotonic())
            if self.policy.residences[name].stage is Stage.DRAINING:
                self._wake.set()

    @property
    def settled(self) -> bool:
        """Whether all that was to be loaded at the start is, or has failed."""
        return self._adopted and not self._unsettled

    @property
    def watched(self) -> Sequence[str]:
        """The public Triton models that are loaded now."""
        residences = self.policy.residences.values()
        loaded = (one.unit.public for one in residences if one.stage in (Stage.READY, Stage.DRAINING))
        return tuple(dict.fromkeys(name for public in loaded for name in public))

    def stage(self, model_id: str) -> Stage:
        """Where a model is."""
        return self.policy.residences[self.unit_of[model_id]].stage

    def failure(self, model_id: str) -> LoadFailure | None:
        """Why a model is not there; None while nothing is wrong with it."""
        residence = self.policy.residences[self.unit_of[model_id]]
        return residence.failure if residence.stage is Stage.FAILED else None

    def _refusal(self, model_id: str, name: str) -> errors.WireError:
        residence = self.policy.residences.get(name)
        failure = residence.failure if residence is not None and residence.stage is Stage.FAILED else None
        if failure is None:
            return errors.model_loading(model_id)
        return errors.model_load_failed(
            model_id,
            failure.message,
            error_class=failure.error_class,
            attempts=max(1, failure.attempts),
            permanent=failure.permanent,
        )

    # Models that come and go while it runs

    def add(self, units: Collection[Unit], costs: Mapping[str, int]) -> None:
        """Units that may be asked for from now on."""
        for unit in units:
            self.policy.add(unit, costs)
            self._tell_memory(unit.label)
        self._step()

    async def bring(self, name: str) -> None:
        """Load a unit, wherever there is room, and return when it is there. Raises `LoadFailed`."""
        self.policy.wish(name, time.monotonic())
        while (residence := self.policy.residences[name]).stage is not Stage.READY:
            if residence.stage is Stage.FAILED and residence.failure is not None:
                raise LoadFailed(residence.failure.message)
            if residence.stage is Stage.ABSENT:
                self.policy.wish(name, time.monotonic())
            self._wake.set()
            await asyncio.sleep(_BRING_S)

    async def retire(self, name: str, reason: str) -> None:
        """Take a unit out of service and return when its last request is answered and it is unloaded."""
        if name in self.policy.residences:
            self.policy.retire(name, reason)
        while name in self.policy.residences:
            self._wake.set()
            await asyncio.sleep(_BRING_S)

    def _tell_memory(self, label: str) -> None:
        """Let the metric of a label tell what its units hold."""

        def held() -> int:
            names = [name for name, one in self.policy.residences.items() if one.unit.label == label]
            return sum(map(self.policy.held_by, names))

        self._metrics.model_memory.labels(label).set_function(held)

    # What goes on behind them

    async def _watch(self) -> None:
        surveyed = measured = -SURVEY_S
        while True:
            now = time.monotonic()
            try:
                if now - surveyed >= SURVEY_S:
                    surveyed = now
                    survey = await self._carrier.survey()
                    await (self._look_after(survey, now) if self._adopted else self._adopt(survey))
                if now - measured >= MEASURE_S:
                    measured = now
                    await self._measure()
                self._step()
            except Exception:  # whatever it is, nobody else loads, unloads and looks
                log.exception("the models could not be looked after; it is tried again")
            self._wake.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), TICK_S)

    async def _adopt(self, survey: Survey) -> None:
        """Take what Triton has already for ours; unload what is part of a unit that is not whole. Then begin."""
        if not survey:
            return
        units = [residence.unit for residence in self.policy.residences.values()]
        ready = {name for states in survey.values() for name, state in states.items() if state is ModelState.READY}
        whole = [unit for unit in units if ready.issuperset(unit.parts)]
        for unit in whole:
            await self._arrived(unit.public)
            self._now_ready(unit)
            self.policy.adopt(unit.name, time.monotonic())
        known = {part: unit for unit in units for part in reversed(unit.parts)}
        stray = [part for part in reversed(list(known)) if part in ready]
        await self._carrier.unload([part for part in stray if all(part not in unit.parts for unit in whole)])
        self._adopted = True
        self._unsettled -= {unit.name for unit in whole}
        for name in self._unsettled:
            self.policy.wish(name, time.monotonic())

    def _step(self) -> None:
        if not self._adopted:
            return
        for command in self.policy.step(time.monotonic()):
            task = asyncio.get_running_loop().create_task(self._carry_out(command))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, command: Command) -> None:
        unit = self.policy.residences[command.unit].unit
        if isinstance(command, Load):
            await self._load(unit, command.parts)
        else:
            await self._unload(unit, command)
        self._step()

    async def _unload(self, unit: Unit, command: Unload) -> None:
        for (name, _), repair in list(self._repairing.items()):
            if name == unit.name:
                repair.cancel()  # what it has begun is unloaded too, once it is loaded
        log.info("model %s is unloaded: %s", unit.name, command.reason)
        self._metrics.model_unloads.labels(unit.label, command.reason).inc()
        self._left([name for name in unit.public if name in command.parts])
        try:
            await self._carrier.unload(command.parts)
        except Exception:  # whatever it is, nobody may wait for this memory for ever
            log.exception("model %s may not be unloaded", unit.name)
        self._left_at[unit.name] = time.monotonic()
        self.policy.unloaded(unit.name, time.monotonic())

    async def _load(self, unit: Unit, parts: Sequence[str]) -> None:
        begun = time.monotonic()
        try:
            await self._carrier.load(parts)
            await self._arrived(unit.public)
        except Exception as failure:  # whatever it is, nobody may wait for this model for ever
            if isinstance(failure, TritonFailure) and failure.kind is FailureKind.UNREACHABLE:
                self.policy.unreachable(unit.name, time.monotonic())
                return
            log.error("model %s cannot be loaded: %s", unit.name, failure)
            self._metrics.model_loads.labels(unit.label, "failed").inc()
            self.policy.failed(unit.name, str(failure), type(failure).__name__, time.monotonic())
        else:
            self._metrics.model_loads.labels(unit.label, "loaded").inc()
            self._metrics.load_seconds.labels(unit.label).observe(time.monotonic() - begun)
            log.info("model %s is loaded after %.1f s", unit.name, time.monotonic() - begun)
            self._now_ready(unit)
            self.policy.loaded(unit.name, time.monotonic())
        self._unsettled.discard(unit.name)

    def _now_ready(self, unit: Unit) -> None:
        self._ready_since[unit.name] = time.monotonic()

    async def _look_after(self, survey: Survey, at: float) -> None:
        """Load again what was ready and is lost: on one replica that came or came back, or everywhere. Unload what is
        loaded and nobody's.
        """
        for residence in self.policy.residences.values():
            name = residence.unit.name
            if not residence.there or self._ready_since.get(name, at) >= at or not survey:
                continue
            lacking = [url for url, states in survey.items() if not _whole(residence.unit, states)]
            if len(lacking) == len(survey):
                log.warning("model %s is loaded in no Triton any more", name)
                self._left(residence.unit.public)
                self.policy.gone(name, time.monotonic())
                continue
            for url in lacking if residence.stage is Stage.READY else ():
                self._repair(residence.unit, url)
        self._find_strays(survey, at)

    def _find_strays(self, survey: Survey, at: float) -> None:
        """A load may end after it was given up, and an unload may not have been heard."""
        ready = {part for states in survey.values() for part, state in states.items() if state is ModelState.READY}
        settled = [
            residence.unit
            for residence in self.policy.residences.values()
            if residence.stage not in HOLDING and self._left_at.get(residence.unit.name, at - 1) < at
        ]
        self.policy.stray(ready.intersection(part for unit in settled for part in unit.parts))

    def _repair(self, unit: Unit, url: str) -> None:
        """Load a unit on a replica that lacks it, ever more seldom as long as that fails."""
        key, now = (unit.name, url), time.monotonic()
        due, delay = self._repairs.get(key, (0.0, _REPAIR_S))
        if now < due:
            return
        self._repairs[key] = (float("inf"), delay)

        async def repair() -> None:
            client = self._carrier.client(url)
            try:
                if client is not None:
                    await self._carrier.load_on(client, unit.parts)
                self._repairs.pop(key, None)
            except TritonFailure as failure:
                log.warning("Triton %s cannot load %s: %s", url, unit.name, failure)
                self._repairs[key] = (time.monotonic() + delay, min(2 * delay, _MAX_REPAIR_S))
            except asyncio.CancelledError:
                self._repairs.pop(key, None)
                raise
            finally:
                self._repairing.pop(key, None)

        task = self._repairing[key] = asyncio.get_running_loop().create_task(repair())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _measure(self) -> None:
        """Correct what parts were expected to take by what they are seen to take, once they are ready."""
        seen = await self._carrier.seen()
        for residence in self.policy.residences.values():
            if residence.stage in (Stage.READY, Stage.DRAINING):
                for part in residence.unit.parts:
                    if size := seen.get(part):
                        self.policy.see(part, size)


def _whole(unit: Unit, states: Mapping[str, ModelState]) -> bool:
    """Whether a replica has, or is about to have, every part."""
    return all(states.get(part) in (ModelState.READY, ModelState.LOADING) for part in unit.parts)
