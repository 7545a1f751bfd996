"""Which models are down, when each is loaded again, and what is said of it: one state machine without I/O or clock.

A model is the matter of one line of its own: what happens to another never delays it, and none is given up. The first
death is mended at once. Each further one waits, twice as long as the last, unless the model was well for a spell in
between: that forgives everything. So a model that dies at each request costs little, and one that died once a day is
always back at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Condition(Enum):
    """Where a model that has died stands."""

    DOWN = "down"  # waits for its turn
    MENDING = "mending"  # is being loaded again
    WELL = "well"  # is loaded, and not yet forgiven


@dataclass(frozen=True, slots=True)
class HealingRules:
    """The second death in a row waits `first_delay` seconds, each further one twice as long, at most `max_delay`.

    `healthy` seconds without a death forgive. A model that died `failing` times in a row is called failing. A process
    may do nothing for `still_loading` seconds while its model is loaded, and for `still_running` while somebody waits
    for its answer; then it is ended.
    """

    first_delay: float = 0.5
    max_delay: float = 30.0
    healthy: float = 10.0
    failing: int = 5
    still_loading: float = 20.0
    still_running: float = 5.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a model: the last cause, how often in a row, and whether it has to be called failing.

    `number` counts the deaths of all models: a later one has a larger number.
    """

    cause: str
    times: int
    failing: bool
    down: bool
    number: int


@dataclass(slots=True)
class _Patient:
    cause: str
    times: int
    condition: Condition
    since: float
    due: float
    number: int


class Patients:
    """The models that have died and are not forgiven yet. Not thread-safe."""

    def __init__(self, rules: HealingRules | None = None) -> None:
        self._rules = rules or HealingRules()
        self._patients: dict[str, _Patient] = {}
        self._deaths = 0

    def died(self, model: str, cause: str, now: float) -> float:
        """A process of the model ended, or its load failed. Returns after how many seconds it is mended.

        One that waits for its turn goes on to wait.
        """
        patient = self._patients.get(model)
        if patient is not None and patient.condition is Condition.DOWN:
            return patient.due - now
        forgiven = patient is None or self._forgiven(patient, now)
        times = 1 if patient is None or forgiven else patient.times + 1
        delay = min(self._rules.first_delay * 2.0 ** min(times - 2, 60), self._rules.max_delay) if times > 1 else 0.0
        self._deaths += 1
        self._patients[model] = _Patient(cause, times, Condition.DOWN, now, now + delay, self._deaths)
        return delay

    def due(self, now: float) -> list[str]:
        """The models whose turn it is; they are being mended from now on, until `mended`, `died` or `discharged`."""
        found = [name for name, one in self._patients.items() if one.condition is Condition.DOWN and now >= one.due]
        for name in found:
            self._patients[name].condition = Condition.MENDING
        return found

    def next_due(self) -> float:
        """When the next turn comes; infinity where nobody waits."""
        waiting = (one.due for one in self._patients.values() if one.condition is Condition.DOWN)
        return min(waiting, default=math.inf)

    def mended(self, model: str, now: float) -> None:
        """The model is loaded again; its spell of health begins."""
        if patient := self._patients.get(model):
            patient.condition, patient.since = Condition.WELL, now

    def discharged(self, model: str) -> None:
        """Somebody unloaded the model or it was replaced: it is nobody's matter any more."""
        self._patients.pop(model, None)

    def restarted(self, now: float) -> None:
        """The whole server was started again, and has loaded what it could."""
        for patient in self._patients.values():
            patient.condition, patient.since = Condition.WELL, now

    def is_mending(self, model: str) -> bool:
        """Whether the model is being loaded again now."""
        patient = self._patients.get(model)
        return patient is not None and patient.condition is Condition.MENDING

    def times(self, model: str) -> int:
        """How often in a row the model has died."""
        patient = self._patients.get(model)
        return patient.times if patient else 0

    def troubles(self, now: float) -> Mapping[str, Trouble]:
        """What is wrong, by model. Forgets what is forgiven."""
        self._patients = {name: one for name, one in self._patients.items() if not self._forgiven(one, now)}
        return {name: self._trouble(one) for name, one in self._patients.items()}

    def _trouble(self, patient: _Patient) -> Trouble:
        failing, down = patient.times >= self._rules.failing, patient.condition is not Condition.WELL
        return Trouble(patient.cause, patient.times, failing, down, patient.number)

    def _forgiven(self, patient: _Patient, now: float) -> bool:
        return patient.condition is Condition.WELL and now - patient.since >= self._rules.healthy
