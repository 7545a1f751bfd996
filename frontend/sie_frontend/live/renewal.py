"""Follows the served repository: what is published there is loaded beside what answers, tried, and switched to.

Each group of ids that share Triton models succeeds or fails by itself. One that fails stays what it was, and the reason
is told in the log, the metrics and the status. Changes are carried out one after the other; only the end of what was
replaced is waited for beside them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from sie_frontend.live.changes import ChangeStep, composed, difference, gone
from sie_frontend.live.loading import LoadAtOnce, Loading, LoadOnDemand, LoadRefused
from sie_frontend.live.origin import RepositoryOrigin
from sie_frontend.live.report import ChangeEvent, RefusedStep, RenewalReport, Standing
from sie_frontend.live.trial import TrialFailed, Verdict, moved, tried
from sie_frontend.manifest import Manifest, ManifestError
from sie_frontend.reference import REFERENCE_NAME
from sie_frontend.residency.carrier import Carrier, CarrierLimits, Discharge, Memory
from sie_frontend.serving.catalogue import Catalogue, make_catalogue
from sie_frontend.serving.engine import Engine
from sie_frontend.storage import OpenRepository
from sie_frontend.triton.model_control import ModelState

log = logging.getLogger("sie_frontend")

KEEP_S: Final = 2.0
_AGAIN_S: Final = 5.0
_EVENTS: Final = 50


class Renewal:
    """Makes an engine serve what its repository holds. Made in a running event loop; `start` it, then `close` it."""

    def __init__(
        self,
        engine: Engine,
        origin: RepositoryOrigin,
        opened: OpenRepository,
        mark: bytes | None,
        memory: Memory | None = None,
        discharge: Discharge | None = None,
    ) -> None:
        limits = CarrierLimits(engine.settings.load_timeout_s, min(60.0, engine.settings.load_timeout_s))
        self._carrier = Carrier(engine.triton, limits, memory, discharge)
        self._engine = engine
        self._origin = origin
        self.opened = opened
        self._mark = mark
        self._loading: Loading = (
            LoadAtOnce(engine, self._carrier) if engine.residency is None else LoadOnDemand(engine, engine.residency)
        )
        self._lock = asyncio.Lock()
        self._leaving: dict[asyncio.Task[None], frozenset[str]] = {}
        self._task: asyncio.Task[None] | None = None
        self._again_at = float("inf")
        self._changed = False
        self._unreadable: str | None = None
        self._phase = Standing.CURRENT
        self._working: tuple[str, ...] = ()
        self._refusals: dict[str, RefusedStep] = {}
        self._events: deque[ChangeEvent] = deque(maxlen=_EVENTS)
        self.renewed_at = time.time()
        engine.metrics.repository_current.set_function(lambda: self._phase is Standing.CURRENT)

    def start(self) -> None:
        """Follow the repository from now on."""
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="follow-repository")

    async def close(self) -> None:
        """Follow no longer. What is loaded stays so."""
        tasks = [task for task in (self._task, *self._leaving) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def report(self) -> RenewalReport:
        """How the present catalogue and the repository stand to each other."""
        leaving = sorted({name for names in self._leaving.values() for name in names})
        return RenewalReport(
            self._phase, self._working, self._unreadable, dict(self._refusals), tuple(leaving), tuple(self._events)
        )

    async def look(self, *, again: bool = False) -> None:
        """Look at the repository now, and return when what was found is served, or refused.

        With `again`, what was refused before is tried once more.
        """
        async with self._lock:
            mark = await asyncio.to_thread(self._origin.mark)
            due = again or time.monotonic() >= self._again_at
            if mark == self._mark and not (due and (self._refusals or self._unreadable)):
                return
            self._again_at = float("inf")
            await self._renew(mark)

    async def _follow(self) -> None:
        kept, cleared = time.monotonic(), not self.opened.manifest.previous
        while True:
            await asyncio.sleep(self._origin.every_s)
            try:
                cleared = cleared or await self._clear()
                await self.look()
                if self._changed and time.monotonic() - kept >= KEEP_S:
                    kept = time.monotonic()
                    async with self._lock:
                        await self._loading.keep(self._engine.catalogue)
            except Exception:  # whatever it is, nobody else follows
                log.exception("following the repository failed; it goes on")

    async def _clear(self) -> bool:
        """Unload what an earlier frontend, or Triton itself, loaded of what was replaced; False if none answers."""
        manifest = self._engine.manifest
        served = manifest.served().triton_models
        replaced = [name for name in manifest.triton_models if name not in served]
        survey = await self._carrier.survey()
        held = [n for n in replaced if any(states.get(n) is ModelState.READY for states in survey.values())]
        if held:
            await self._carrier.unload(sorted(held, key=lambda name: not manifest.triton_models[name].depends_on))
        return bool(survey)

    async def _renew(self, mark: bytes | None) -> None:
        """Serve what lies there now, as far as it can be served."""
        try:
            opened = await asyncio.to_thread(self._origin.open)
        except ManifestError as error:
            # Where two renames take the place of one, nothing lies there for a moment.
            self._again_at = time.monotonic() + _AGAIN_S
            if self._unreadable != str(error):
                log.error("the repository cannot be read, and what was served goes on: %s", error)
                self._tell("refused", "", str(error))
            self._unreadable, self._mark, self._phase = str(error), mark, Standing.REFUSED
            return
        self._unreadable = None
        self._refusals.clear()
        self._mark = mark
        old = self._engine.manifest
        try:
            for step in difference(old, opened.manifest):
                await self._take(step, opened)
        finally:
            self._working = ()
            self._phase = Standing.REFUSED if self._refusals else Standing.CURRENT
        self._finish(opened)

    async def _take(self, step: ChangeStep, opened: OpenRepository) -> None:
        """Carry one step out; refused, everything is as it was."""
        self._working, self._phase = tuple(step.kinds), Standing.WORKING
        begun = time.monotonic()
        try:
            said = await self._carried_out(step, opened)
        except (LoadRefused, TrialFailed) as refusal:
            if isinstance(refusal, LoadRefused) and refusal.again:
                self._again_at = time.monotonic() + _AGAIN_S
            self._refuse(step, str(refusal))
        except Exception as error:  # a file that no library reads, whatever it raises
            log.exception("a change of the repository failed")
            self._refuse(step, f"{type(error).__name__}: {error}")
        else:
            for model_id, kind in step.kinds.items():
                log.info("model %s is %s after %.1f s%s", model_id, kind.value, time.monotonic() - begun, said)
                self._tell(kind.value, model_id, said.strip(" :"))

    def _refuse(self, step: ChangeStep, reason: str) -> None:
        for model_id, kind in step.kinds.items():
            log.error("model %s is not %s, and what was served goes on: %s", model_id, kind.value, reason)
            self._refusals[model_id] = RefusedStep(kind.value, reason, time.time())
            self._tell("refused", model_id, reason)

    async def _carried_out(self, step: ChangeStep, opened: OpenRepository) -> str:
        """Load, try, switch, and begin to let go of what was replaced; returns what is told of it."""
        if step.in_place:
            names = ", ".join(f"`{name}`" for name in step.in_place)
            raise LoadRefused(
                f"the files of {names} became others under the same name, so that they cannot be loaded and tried "
                "beside those that answer: restart the server to serve them"
            )
        await self._gone_before(step.load)
        engine = self._engine
        others = {*opened.manifest.models, *engine.manifest.models} - step.ids
        wanted = composed(engine.manifest, opened.manifest, others)
        catalogue = await asyncio.to_thread(
            make_catalogue,
            wanted,
            opened.folder,
            engine.shared,
            engine.catalogue,
        )
        before = engine.catalogue
        catalogue.unit_of = self._loading.enter(wanted, opened.folder)
        engine.expect(catalogue)
        try:
            async with self._loading.loaded(step, catalogue) as loaded:
                verdicts = await self._try(step, catalogue, opened) if loaded else {}
                said = await self._compare(step, before, catalogue, opened, verdicts) if loaded else ""
                engine.switch(catalogue)
        except BaseException:
            with contextlib.suppress(Exception):
                await self._loading.withdraw(catalogue, step.load, before)
            engine.forget(step.public)
            raise
        if engine.residency is not None:
            engine.residency.unit_of = catalogue.unit_of
        self._changed = True
        self._loading.superseded(before)
        self._let_go(before, catalogue)
        return said

    async def _try(self, step: ChangeStep, catalogue: Catalogue, opened: OpenRepository) -> Mapping[str, Verdict]:
        """Whether every new public Triton model answers its own reference. Raises `TrialFailed`."""
        verdicts = {}
        for name in step.public:
            built = catalogue.manifest.built.get(name)
            target = catalogue.inputs[name]
            if built is None or not await self._has_reference(name, opened):
                continue
            served = catalogue.models[target.label]
            verdicts[name] = await tried(served, target, built, opened.folder, self._engine.settings.device)
        return verdicts

    async def _has_reference(self, name: str, opened: OpenRepository) -> bool:
        """Whether there is one to try a Triton model by; that of an object store is fetched. Raises `LoadRefused`."""
        try:
            return await asyncio.to_thread(opened.bring, f"{name}/1/{REFERENCE_NAME}")
        except ManifestError as error:
            raise LoadRefused(str(error), again=True) from None

    async def _compare(
        self,
        step: ChangeStep,
        before: Catalogue,
        after: Catalogue,
        opened: OpenRepository,
        verdicts: Mapping[str, Verdict],
    ) -> str:
        """How close the new models are to their reference, and how far from those before, in words."""
        said = []
        for name, verdict in verdicts.items():
            close = f" (worst cosine {min(verdict.closeness.values()):.6f})" if verdict.closeness else ""
            said.append(f"`{name}` answers its {verdict.cases} reference items{close}")
            target = after.inputs[name]
            was = before.models.get(target.label)
            modality = next(m for m, e in after.models[target.label].model.inputs.items() if e.triton_model == name)
            if was is None or modality not in was.model.inputs:
                continue
            path = opened.folder / name / "1" / REFERENCE_NAME
            old = before.inputs[was.model.inputs[modality].triton_model]
            if not self._engine.model_ready(was.model):
                continue
            far = await moved(was, old, after.models[target.label], target, path)
            if far:
                said.append(f"from the one before they moved to a cosine of {min(far.values()):.6f} at worst")
        return ": " + "; ".join(said) if said else ""

    def _let_go(self, before: Catalogue, present: Catalogue) -> None:
        """Unload, beside all else, what only the catalogue before needed."""
        parts = gone(before.manifest, present.manifest)
        if not parts and set(before.unit_of.values()) <= set(present.unit_of.values()):
            return
        task = asyncio.get_running_loop().create_task(self._leave(before, parts, present))
        self._leaving[task] = frozenset(parts)
        task.add_done_callback(lambda done: self._leaving.pop(done, None))

    async def _leave(self, before: Catalogue, parts: Sequence[str], present: Catalogue) -> None:
        try:
            await self._loading.leave(before, parts, present)
        except Exception:  # whatever it is, nobody waits for this task, and requests have left these models already
            log.exception("%s may not be unloaded", ", ".join(parts))
        else:
            log.info("%s answered the last request and is unloaded", ", ".join(parts))
        self._engine.forget(parts)

    async def _gone_before(self, parts: Sequence[str]) -> None:
        """Wait until what is being let go of, and is wanted again, is gone."""
        waited = [task for task, names in self._leaving.items() if names.intersection(parts)]
        if waited:
            await asyncio.wait(waited)

    def _finish(self, opened: OpenRepository) -> None:
        """Take over what needs no step, such as what can be gone back to."""
        refused = set(self._refusals)
        present: Manifest = composed(self._engine.manifest, opened.manifest, refused)
        self._engine.catalogue.manifest = present
        if self.opened is not opened:
            self.opened.close()
        self.opened = opened
        self.renewed_at = time.time()

    def _tell(self, what: str, model_id: str, detail: str) -> None:
        self._events.append(ChangeEvent(time.time(), what, model_id, detail))
        if model_id:
            self._engine.metrics.model_changes.labels(model_id, what).inc()
