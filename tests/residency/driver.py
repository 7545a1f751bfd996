"""A policy driven by hand or at random: a clock, what is under way, and the rules that must hold after every event."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sie_frontend.residency.policy import Policy
from sie_frontend.residency.state import Command, Load, Rules, Stage, Unload
from sie_frontend.residency.units import Unit


def unit(name: str, *parts: str, pinned: bool = False) -> Unit:
    """A unit of these parts, or of one part of its own name."""
    found = parts or (name,)
    return Unit(name, found, found[-1:], pinned)


@dataclass
class Driver:
    """Plays Triton and the callers. `loaded` is what Triton holds; `commands` are under way."""

    units: Sequence[Unit]
    rules: Rules
    costs: Mapping[str, int] = field(default_factory=dict)
    now: float = 0.0
    loaded: set[str] = field(default_factory=set)
    under_way: list[Command] = field(default_factory=list)
    log: list[Command] = field(default_factory=list)
    retired: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        costs = {part: 1 for unit in self.units for part in unit.parts} | dict(self.costs)
        self.policy = Policy(self.units, costs, self.rules)
        self.users: dict[str, int] = {unit.name: 0 for unit in self.units}
        self.step()

    # Events

    def ask(self, name: str) -> bool:
        """One request begins, if it may."""
        admitted = self.policy.admit(name, self.now)
        self.users[name] += admitted
        self.step()
        return admitted

    def answer(self, name: str) -> None:
        """One request ends."""
        self.users[name] -= 1
        self.policy.release(name, self.now)
        self.step()

    def add(self, unit: Unit) -> None:
        """A unit joins."""
        self.users.setdefault(unit.name, 0)
        self.policy.add(unit, dict.fromkeys(unit.parts, 1))
        self.step()

    def retire(self, name: str) -> None:
        """A unit is to go for good."""
        self.retired.add(name)
        self.policy.retire(name, "replaced")
        self.step()

    def end(self, command: Command, *, fails: bool = False, reachable: bool = True) -> None:
        """A command is carried out."""
        self.under_way.remove(command)
        if isinstance(command, Unload):
            self.loaded.difference_update(command.parts)
            self.policy.unloaded(command.unit, self.now)
        elif not reachable:
            self.policy.unreachable(command.unit, self.now)
        elif fails:
            self.loaded.update(command.parts[:-1])  # the last of them is what could not be loaded
            self.policy.failed(command.unit, "no such file", "TritonFailure", self.now)
        else:
            self.loaded.update(command.parts)
            self.policy.loaded(command.unit, self.now)
        self.step()

    def finish(self) -> None:
        """Carry out all that is under way, and what follows."""
        while self.under_way:
            self.end(self.under_way[0])

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.step()

    def step(self) -> None:
        """As the shell does after each event; then everything is looked at."""
        for command in self.policy.step(self.now):
            self.under_way.append(command)
            self.log.append(command)
            self._begun(command)
        self.check()

    # What must hold

    def stage(self, name: str) -> Stage:
        return self.policy.residences[name].stage

    @property
    def ready(self) -> set[str]:
        return {name for name, one in self.policy.residences.items() if one.stage is Stage.READY}

    def _begun(self, command: Command) -> None:
        others = {part for one in self.under_way if one is not command for part in one.parts}
        assert not others.intersection(command.parts), "two commands move one part"
        if isinstance(command, Load):
            needed = self.policy.residences[command.unit].unit.parts
            assert set(needed) <= self.loaded | set(command.parts), "a part is neither there nor loaded"
            assert list(command.parts) == [part for part in needed if part in command.parts], "the order of loading"
            return
        residence = self.policy.residences[command.unit]
        assert not self.users[command.unit], "unloaded with work in flight"
        bound = residence.unit.pinned and command.unit not in self.retired
        assert not bound or command.reason in ("failed", "lost", "stray"), "a pinned one goes"
        backwards = [part for part in reversed(residence.unit.parts) if part in command.parts]
        assert list(command.parts) == backwards, "the order of unloading"
        for name, one in self.policy.residences.items():
            if name != command.unit and one.stage in (Stage.READY, Stage.LOADING, Stage.DRAINING):
                assert not set(one.unit.parts).intersection(command.parts), "a shared part goes"

    def check(self) -> None:
        """The rules of every moment."""
        for name in self.ready:
            assert set(self.policy.residences[name].unit.parts) <= self.loaded, f"{name} is called ready"
        for name, count in self.users.items():
            if name not in self.policy.residences:
                assert name in self.retired and not count, f"{name} is forgotten with work in flight"
                continue
            assert self.policy.residences[name].users == count
            assert not count or self.stage(name) in (Stage.READY, Stage.DRAINING), f"{name} has lost its work"
        if self.rules.budget is not None:
            moving = {part for command in self.under_way for part in command.parts}
            held = self.loaded | moving
            assert sum(self.policy.costs[part] for part in held) <= self.rules.budget, "beyond the budget"
            assert sum(self.policy.costs[part] for part in held) <= self.policy.used() <= self.rules.budget


class Storm(Driver):
    """A driver that does what a seed says. With `renewing`, units are replaced by newer ones too."""

    renewing: bool = False

    def run(self, seed: int, events: int) -> None:
        """Random events; then silence, after which nothing may be left undone."""
        chance = random.Random(seed)
        for _ in range(events):
            self._event(chance)
        for name, count in self.users.items():
            for _ in range(count):
                self.answer(name)
        self.finish()

    def _renew(self, chance: random.Random) -> None:
        """A unit is replaced by one of other parts, or of some of the same, as a new version of a model is."""
        name = chance.choice([name for name in self.users if name not in self.retired])
        old = self.policy.residences[name].unit
        newer = f"{name}'"
        parts = tuple(part if chance.random() < 0.3 else f"{part}'" for part in old.parts)
        self.add(Unit(newer, parts, parts[-1:], old.pinned))
        self.retire(name)

    def _event(self, chance: random.Random) -> None:
        if self.renewing and chance.random() < 0.05:
            self._renew(chance)
            return
        busy = [name for name, count in self.users.items() if count]
        kind = chance.random()
        if kind < 0.45:
            self.ask(chance.choice([name for name in self.users if name not in self.retired]))
        elif kind < 0.65 and busy:
            self.answer(chance.choice(busy))
        elif kind < 0.85 and self.under_way:
            command = chance.choice(self.under_way)
            self.end(command, fails=chance.random() < 0.15, reachable=chance.random() > 0.05)
        elif kind < 0.97:
            self.wait(chance.expovariate(1.0))
        elif kind < 0.985:
            self.late_load(chance)
        else:
            self.restart()

    def late_load(self, chance: random.Random) -> None:
        """A load that was given up ends after all, where there is room for it. One of a unit that is leaving would only
        be seen by a later look.
        """
        known = self.policy.residences.values()
        gone = [one.unit for one in known if one.stage in (Stage.ABSENT, Stage.FAILED, Stage.WAITING)]
        free = sorted({part for unit in gone for part in unit.parts} - self.policy._held())
        room = float("inf") if self.rules.budget is None else self.rules.budget - self.policy.used()
        late = [part for part in free if self.policy.costs[part] <= room]
        if late:
            part = chance.choice(late)
            self.loaded.add(part)
            self.policy.stray({part})
            self.step()

    def restart(self) -> None:
        """Triton starts again, empty: what it was doing gets no answer."""
        self.loaded.clear()
        for name, residence in self.policy.residences.items():
            if residence.there:
                self.policy.gone(name, self.now)
        for command in list(self.under_way):
            if command in self.under_way:
                self.end(command, reachable=False)
