"""Brings back the models of a running tritonserver whose processes ended, each alone: unload it, load it.

`look` is called by the thread that supervises the server and never waits: what takes time is done in a thread for each
model that is mended. `Patients` decides when.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from sie_triton.diagnostics import Diagnostic
from sie_triton.embedded.control import LOADING, READY, Control, ControlError
from sie_triton.embedded.healing import HealingRules, Patients, Trouble
from sie_triton.embedded.stubs import Death, StubWatch
from sie_triton.embedded.stuck import MEMORY_HINT, UNHEARD_S, never_loaded

LOAD_TIMEOUT_S = 600.0
_LOOK_S = 0.4
_MISSED_S = 2.0
# How soon tritonserver is asked again that did not answer.
_AGAIN_S = 0.1
Tell = Callable[[Diagnostic], None]


class Healer:
    """Heals the models of one supervised server, over its restarts.

    With `reloads` it loads a model again. Without, it only unloads what is dead: whoever loads models on demand sees
    that it is gone and loads it by its own rules, so that nothing is loaded twice and no budget is exceeded.
    `tell` is called from any thread, for each death and each load that failed.
    """

    def __init__(self, *, reloads: bool = True, tell: Tell = lambda _: None, rules: HealingRules | None = None) -> None:
        self._reloads = reloads
        self._tell = tell
        self._rules = rules or HealingRules()
        self._patients = Patients(self._rules)
        self._lock = threading.Lock()
        self._server = 0  # counts the servers: what began on one must not end on the next
        self._down: dict[str, list[str]] = {}  # what we have unloaded, and the ensembles that went with it
        self._movers: dict[str, threading.Lock] = {}
        self._relapses: dict[str, str] = {}  # what died again while it was being mended
        self._unborn: dict[int, tuple[str | None, float]] = {}  # what died while it was being loaded
        self._deaths: list[Death] = []  # not yet examined
        self._suspects: dict[str, float] = {}  # models for whose answers somebody waits, and since how many seconds
        self._loaded: set[int] = set()  # processes that stand still because their models are loaded
        self._looked = 0.0

    def troubles(self) -> Mapping[str, Trouble]:
        """What is wrong with which Triton model. Any thread may ask."""
        with self._lock:
            return self._patients.troubles(time.monotonic())

    def discharge(self, models: Collection[str]) -> None:
        """Somebody unloads these models on purpose: none of them is brought back.

        Returns when nothing is being done to them any more, so that whoever unloads a model, or loads it again later,
        meets nobody. That may take as long as a load does.
        """
        for model in models:
            with self._moving(model), self._lock:
                self._patients.discharged(model)
                self._down.pop(model, None)
                self._relapses.pop(model, None)
                for composed in self._down.values():  # nor along with a part of it
                    composed[:] = [name for name in composed if name != model]

    def suspect(self, model: str, waited_s: float) -> None:
        """Somebody has waited so long for a model, longer than it takes; the next look sees whether it computes."""
        with self._lock:
            self._suspects[model] = waited_s

    def leave(self) -> None:
        """The server has ended, or is about to: what is under way is nobody's matter any more."""
        with self._lock:
            self._server += 1
            self._down.clear()
            self._unborn.clear()
            self._deaths.clear()
            self._suspects.clear()
            self._loaded.clear()

    def restarted(self, control: Control) -> None:
        """Another server is ready with what it could load; the rest is tried again, each model by itself."""
        with self._lock:
            self._patients.restarted(time.monotonic())
            server = self._server
        if not self._reloads:
            return
        try:
            absent = {name: reason for name, reason in control.reasons().items() if reason}
        except ControlError:
            return
        for name, reason in absent.items():
            with self._lock:
                self._down[name] = []
            self._failed(server, name, reason)

    def look(self, pid: int, stubs: StubWatch, control: Control) -> Diagnostic | None:
        """See which stubs of the server `pid` have ended, and begin to mend the models whose turn it is.

        Returns why the whole server must be started again, for the one case in which nothing else helps.
        """
        self._deaths += stubs.look(pid)
        self._end_what_hangs(stubs, control)
        if self._deaths and self._examine(self._deaths, stubs, control):
            self._deaths.clear()
        with self._lock:
            due = self._patients.due(time.monotonic())
            server = self._server
        for model in due:
            self._in_thread(self._mend, server, model, control)
        return self._look_for_the_unborn(stubs, control) if self._unborn else None

    def pause(self, now: float) -> float:
        """After how many seconds `look` has something to do, as far as that is known."""
        with self._lock:
            due = self._patients.next_due() - now
        if self._deaths:
            due = min(due, _AGAIN_S)
        return max(0.0, min(due, _LOOK_S) if self._unborn else due)

    def _end_what_hangs(self, stubs: StubWatch, control: Control) -> None:
        """End each process that stands still though its model is being loaded, or somebody waits for its answer."""
        with self._lock:
            suspects, self._suspects = self._suspects, {}
        for pid, model in stubs.models.items():
            still, waited = stubs.stood_still(pid), suspects.get(model, 0.0)
            # All the time, but for what looks may have missed.
            if waited >= self._rules.still_running and still >= max(self._rules.still_running, waited - _MISSED_S):
                stubs.end(pid, f"did not answer a run, computed nothing for {still:.0f} s and had to be ended")
        self._loaded.intersection_update(stubs.models)  # a number may come again
        limit = self._rules.still_loading
        quiet = {pid for pid in stubs.models if stubs.stood_still(pid) >= limit} - self._loaded
        if not quiet:
            return
        try:
            states = control.index()
        except ControlError:
            return
        for pid in quiet:
            if states.get(stubs.models[pid]) == LOADING:
                stubs.end(pid, f"computed nothing for {limit:.0f} s while it was loaded and had to be ended")
            else:
                self._loaded.add(pid)

    def _look_for_the_unborn(self, stubs: StubWatch, control: Control) -> Diagnostic | None:
        """Whether a load will never end, because its process ended before tritonserver had heard of it."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return None
        self._looked = now
        try:
            loading = {name for name, state in control.index().items() if state == LOADING}
        except ControlError:
            return None
        for pid, (model, since) in list(self._unborn.items()):
            if not stubs.unburied(pid) or not (model in loading if model else loading):
                del self._unborn[pid]
            elif now - since >= UNHEARD_S:
                return never_loaded(model)
        return None

    def _in_thread(self, work: Callable[[int, str, Control], None], server: int, model: str, control: Control) -> None:
        threading.Thread(target=work, args=(server, model, control), name=f"heal-{model}", daemon=True).start()

    def _examine(self, deaths: list[Death], stubs: StubWatch, control: Control) -> bool:
        """Note the models of these deaths, as far as Triton takes them for loaded. Whether Triton could be asked."""
        try:
            states = control.index()
        except ControlError:
            return False  # the server itself has ended, or has no thread to spare
        for death in deaths:
            if LOADING in ([states.get(death.model)] if death.model else states.values()):
                self._unborn[death.pid] = (death.model, time.monotonic())
            for model in [death.model] if death.model else _short_of_stubs(states, stubs, control):
                if states.get(model) == READY:
                    stubs.dismiss(model)  # those of its other instances end with it
                    self._note(model, death.cause, control)
        return True

    def _note(self, model: str, cause: str, control: Control) -> None:
        with self._lock:
            if self._patients.is_mending(model):
                self._relapses[model] = cause
                return
            delay = self._patients.died(model, f"its process {cause}", time.monotonic())
            times, server = self._patients.times(model), self._server
        if delay and self._reloads:  # nobody is to wait for what is dead
            self._in_thread(self._try_to_take_down, server, model, control)
        often = "" if times == 1 else f", {times} times in a row"
        after = "it alone is loaded again" + (f" in {delay:.1f} s" if delay else "")
        self._tell(Diagnostic("SIE711", f"the process of model `{model}` {cause}{often}; {after}", hint=MEMORY_HINT))

    def _take_down(self, server: int, model: str, control: Control) -> None:
        """Unload a dead model. Triton takes what is composed of it along."""
        with self._moving(model):
            if server != self._server or model in self._down or control.index().get(model) != READY:
                return
            composed = [name for name in composed_of(model, control) if self._reloads]
            control.unload(model)
            if self._reloads:
                self._down[model] = composed

    def _try_to_take_down(self, server: int, model: str, control: Control) -> None:
        with contextlib.suppress(ControlError):  # it is tried again before the model is loaded
            self._take_down(server, model, control)

    def _mend(self, server: int, model: str, control: Control) -> None:
        try:
            self._take_down(server, model, control)
            mended = self._bring_up(server, model, control)
        except Exception as error:  # whatever it is, nobody else would try again
            self._failed(server, model, str(error) or type(error).__name__)
            return
        with self._lock:
            if server != self._server:
                return
            relapse = self._relapses.pop(model, None)
            if mended:
                self._patients.mended(model, time.monotonic())
            else:
                self._patients.discharged(model)
        if mended and relapse:
            self._note(model, relapse, control)

    def _bring_up(self, server: int, model: str, control: Control) -> bool:
        """Load what was taken down; whether that is our matter. Raises `ControlError` with Triton's reason."""
        if not self._reloads:
            return True
        with self._moving(model):
            if server != self._server or model not in self._down:
                return False  # somebody else has unloaded it
            # It stays UNLOADING for ever if a run failed with its process: Triton forgets that run. Loading it helps.
            control.load(model, LOAD_TIMEOUT_S)
            composed = self._down.pop(model, [])
            states = control.index()
            for name in composed:  # Triton loads them by itself, as a rule
                if states.get(name) not in (READY, LOADING):
                    control.load(name, LOAD_TIMEOUT_S)
            return True

    def _moving(self, model: str) -> threading.Lock:
        """Who unloads or loads a model holds this."""
        with self._lock:
            return self._movers.setdefault(model, threading.Lock())

    def _failed(self, server: int, model: str, reason: str) -> None:
        with self._lock:
            if server != self._server:
                return
            self._relapses.pop(model, None)
            delay = self._patients.died(model, f"it could not be loaded again: {reason}", time.monotonic())
        message = f"model `{model}` could not be loaded again: {reason}; it is tried again in {delay:.1f} s"
        self._tell(Diagnostic("SIE718", message, hint="the other models go on; mend the cause, no restart is needed"))


def composed_of(part: str, control: Control) -> list[str]:
    """The loaded ensembles that wire a model. Raises `ControlError`."""
    found = []
    for name, state in control.index().items():
        if state == READY:
            steps: list[dict[str, Any]] = control.config(name).get("ensemble_scheduling", {}).get("step", [])
            if any(step.get("model_name") == part for step in steps):
                found.append(name)
    return found


def _short_of_stubs(states: Mapping[str, str], stubs: StubWatch, control: Control) -> list[str]:
    """The loaded models that have fewer living stubs than instances: one of them lost a stub that nobody knew."""
    found = []
    for name, state in states.items():
        if state != READY:
            continue
        try:
            config = control.config(name)
        except ControlError:
            continue
        wanted = sum(int(group.get("count", 1)) * max(1, len(group.get("gpus", ()))) for group in _groups(config))
        if stubs.living(name) < wanted:
            found.append(name)
    return found


def _groups(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [] if config.get("platform") == "ensemble" else list(config.get("instance_group", ()))
