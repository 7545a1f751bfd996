"""Who is resident, who goes, who waits: one state machine without I/O, clock or threads.

Its caller tells it what happens (`admit`, `release`, `loaded` …) and when, carries out what `step` returns, and calls
`step` again after each event and now and then.

- What waits is served in the order in which it was first asked for. Only the first may make others go, and only if
  that is enough: nothing is evicted for a unit that still has no room afterwards.
- Those go first that have no work in flight, and among equals the one that was used longest ago. One with work in
  flight is drained: it admits nothing more, so that no stream of requests keeps another unit out for ever, and goes
  when the last of them is answered.
- A caller that was turned away comes back after the hint it was given. Until then, and no longer, its model stays:
  otherwise two models could evict each other for ever between "ready" and the first request.
- A wait ends when nobody is expected back, and so does the eviction that it asked for.
- A part that two units need is loaded once and stays while one of them holds it. One that nobody holds goes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from sie_frontend.residency.state import HOLDING, Command, Load, LoadFailure, Residence, Rules, Stage, Unload
from sie_frontend.residency.units import Unit


class Policy:
    """The residences of all units. `costs` are bytes by part; `see` corrects them."""

    def __init__(self, units: Collection[Unit], costs: Mapping[str, int], rules: Rules) -> None:
        self.rules = rules
        self.costs = dict(costs)
        self.residences = {unit.name: Residence(unit) for unit in units}
        self._queue: list[Residence] = []
        self._strays: list[Unload] = []
        for residence in self.residences.values():
            if residence.unit.pinned:
                self._enqueue(residence)

    # What there is

    def add(self, unit: Unit, costs: Mapping[str, int]) -> None:
        """A unit that may be asked for from now on; nothing changes if it is known."""
        self.costs = {**costs, **self.costs}
        if unit.name in self.residences:
            return
        self.residences[unit.name] = residence = Residence(unit)
        if unit.pinned:
            self._enqueue(residence)

    def retire(self, name: str, reason: str) -> None:
        """A unit that nobody may ask for any more: it goes when its work in flight is done, and is forgotten."""
        residence = self.residences[name]
        residence.retired, residence.asked_by_us = True, False
        residence.owed.clear()
        self._dequeue(residence)
        if residence.there:
            residence.stage, residence.reason = Stage.DRAINING, reason
        elif residence.stage in (Stage.ABSENT, Stage.WAITING, Stage.FAILED):
            del self.residences[name]

    # What happens

    def admit(self, name: str, now: float) -> bool:
        """Whether a request may be computed now; then `release` must follow. Otherwise the unit is asked for."""
        residence = self.residences[name]
        if residence.stage is Stage.READY:
            residence.users += 1
            residence.used_at = now
            if residence.expects(now):
                residence.owed.popleft()
            return True
        self._ask(residence, now)
        return False

    def release(self, name: str, now: float) -> None:
        """A request that was admitted is answered."""
        residence = self.residences[name]
        residence.users -= 1
        residence.used_at = now

    def wish(self, name: str, now: float) -> None:
        """Load it without a caller, once."""
        residence = self.residences[name]
        residence.asked_by_us = True
        self._ask(residence, now, owed=False)

    def adopt(self, name: str, now: float) -> None:
        """It was found loaded already."""
        residence = self.residences[name]
        self._dequeue(residence)
        residence.stage, residence.used_at = Stage.READY, now

    def loaded(self, name: str, now: float) -> None:
        """A `Load` was carried out."""
        residence = self.residences[name]
        residence.stage, residence.moving = Stage.READY, frozenset()
        if residence.retired:
            residence.stage, residence.reason = Stage.DRAINING, "retired"
        residence.failure, residence.attempts, residence.asked_by_us = None, 0, False
        residence.used_at = now

    def failed(self, name: str, message: str, error_class: str, now: float) -> None:
        """A `Load` failed: what it has loaded is unloaded, then it cools down."""
        residence = self.residences[name]
        residence.attempts += 1
        residence.failure = LoadFailure(message, error_class, residence.attempts, permanent=False)
        doubled = self.rules.cooldown_s * 2.0 ** min(residence.attempts - 1, 30)
        residence.retry_at = now + min(doubled, self.rules.max_cooldown_s)
        residence.asked_by_us = False
        residence.owed.clear()
        residence.stage, residence.reason = Stage.DRAINING, "failed"  # and its parts are still nobody else's

    def unreachable(self, name: str, now: float) -> None:
        """No Triton answered a `Load`: it waits again, and nobody is blamed."""
        residence = self.residences[name]
        residence.retry_at = now + self.rules.unreachable_s
        residence.stage, residence.reason = Stage.DRAINING, "lost"

    def gone(self, name: str, now: float) -> None:
        """What was ready is whole nowhere any more, as after a restart of Triton: it is loaded again."""
        residence = self.residences[name]
        residence.asked_by_us = residence.stage is Stage.READY
        residence.stage, residence.reason = Stage.DRAINING, "lost"
        residence.moving = frozenset(residence.unit.parts)  # nobody may count on them

    def stray(self, parts: Collection[str]) -> None:
        """Parts were found loaded that nobody had asked for, such as those of a load that ended after its time: they
        go. What of them is held or moved by now stays.
        """
        free = set(parts) - self._held()
        for residence in self.residences.values():
            found = frozenset(free.intersection(residence.unit.parts))
            if found and residence.stage in (Stage.ABSENT, Stage.FAILED, Stage.WAITING):
                free -= found
                self._dequeue(residence)
                residence.reason = "failed" if residence.stage is Stage.FAILED else "stray"
                residence.stage, residence.moving = Stage.LEAVING, found
                going = tuple(part for part in reversed(residence.unit.parts) if part in found)
                self._strays.append(Unload(residence.unit.name, going, residence.reason))

    def unloaded(self, name: str, now: float) -> None:
        """An `Unload` was carried out, and the memory is free."""
        residence = self.residences[name]
        residence.moving = frozenset()
        if residence.retired:
            del self.residences[name]
            return
        failed = residence.failure is not None and residence.reason == "failed"
        residence.stage = Stage.FAILED if failed else Stage.ABSENT
        if not failed and residence.wanted(now):
            self._enqueue(residence)

    def see(self, part: str, size: int) -> None:
        """A part was seen to take `size` bytes."""
        self.costs[part] = size

    # What it says

    def used(self) -> int:
        """The bytes of all that is held, or not yet let go."""
        return self._bytes(self._held())

    def held_by(self, name: str) -> int:
        """The bytes of what one unit holds now, whoever else holds it too."""
        residence = self.residences[name]
        return self._bytes(residence.unit.parts if residence.stage in HOLDING else residence.moving)

    def too_large(self, name: str) -> LoadFailure | None:
        """Why a unit will never have room; None if it may."""
        budget, unit = self.rules.budget, self.residences[name].unit
        if budget is None:
            return None
        bound = (one.unit for one in self.residences.values() if one.unit.pinned and not one.retired)
        pinned = {part for other in bound for part in other.parts}
        alone, together = self._bytes(unit.parts), self._bytes({*unit.parts, *pinned})
        if together <= budget:
            return None
        beside = f", {_megabytes(together)} with the pinned ones," if alone <= budget else ""
        message = f"it takes {_megabytes(alone)}{beside} and the memory budget is {_megabytes(budget)}"
        return LoadFailure(message, "MemoryBudgetExceeded", self.residences[name].attempts, permanent=True)

    # What is to be done

    def step(self, now: float) -> list[Command]:
        """Everything that can be begun now. The state has changed as if it had been."""
        self._give_up_waiting(now)
        self._retry_pinned(now)
        commands: list[Command] = [*self._strays, *self._loads(now)]
        self._strays.clear()
        self._shrink(now)
        self._send_idle_away(now)
        commands += self._unloads()
        return commands

    # Inside

    def _ask(self, residence: Residence, now: float, *, owed: bool = True) -> None:
        if failure := self.too_large(residence.unit.name):
            self._refuse(residence, failure)
            return
        if residence.stage is Stage.FAILED and now < residence.retry_at:
            return
        if owed:
            residence.owed.append(now + self.rules.hint_s + self.rules.slack_s)
        if residence.stage in (Stage.ABSENT, Stage.FAILED):
            self._enqueue(residence)

    def _refuse(self, residence: Residence, failure: LoadFailure) -> None:
        if residence.stage in (Stage.ABSENT, Stage.FAILED, Stage.WAITING):
            self._dequeue(residence)
            residence.stage, residence.failure, residence.asked_by_us = Stage.FAILED, failure, False
            residence.owed.clear()

    def _enqueue(self, residence: Residence) -> None:
        residence.stage = Stage.WAITING
        self._queue.append(residence)

    def _dequeue(self, residence: Residence) -> None:
        if residence in self._queue:
            self._queue.remove(residence)

    def _bytes(self, parts: Collection[str]) -> int:
        return sum(self.costs.get(part, 0) for part in set(parts))

    def _held(self, besides: Residence | None = None) -> set[str]:
        """The parts that are loaded, or on their way in or out, for any unit but one."""
        held: set[str] = set()
        for residence in self.residences.values():
            if residence is not besides:
                held.update(residence.unit.parts if residence.stage in HOLDING else residence.moving)
        return held

    def _moving(self) -> set[str]:
        return {part for residence in self.residences.values() for part in residence.moving}

    def _give_up_waiting(self, now: float) -> None:
        for residence in [one for one in self._queue if not one.wanted(now)]:
            self._dequeue(residence)
            residence.stage = Stage.FAILED if residence.failure else Stage.ABSENT
        if not self._queue:
            for residence in self.residences.values():
                if residence.stage is Stage.DRAINING and residence.reason == "room":
                    residence.stage = Stage.READY

    def _retry_pinned(self, now: float) -> None:
        for residence in self.residences.values():
            if residence.unit.pinned and not residence.retired and residence.stage in (Stage.ABSENT, Stage.FAILED):
                self._ask(residence, now, owed=False)

    def _loads(self, now: float) -> Iterator[Load]:
        """Begin what has room, in order; the first that has none makes it, and those behind it wait."""
        for residence in list(self._queue):
            if residence.retry_at > now:
                continue
            name, parts = residence.unit.name, residence.unit.parts
            if failure := self.too_large(name):
                self._refuse(residence, failure)
                continue
            held = self._held()
            if self.rules.budget is not None and self._bytes({*held, *parts}) > self.rules.budget:
                self._make_room(residence.unit, now)
                return
            if self._moving().intersection(parts):
                continue
            self._dequeue(residence)
            residence.stage, residence.moving = Stage.LOADING, frozenset(parts) - held
            yield Load(name, tuple(part for part in parts if part in residence.moving))

    def _make_room(self, wanting: Unit | None, now: float) -> None:
        """Drain as many units as the wanting one needs to have room, or none if even all that may go are too few."""
        staying = [one for one in self.residences.values() if one.stage in (Stage.LOADING, Stage.READY)]
        chosen: list[Residence] = []
        for candidate in sorted(staying, key=lambda one: (one.users > 0, one.used_at)):
            if self._fits(staying, chosen, wanting):
                break
            if candidate.stage is Stage.READY and not candidate.unit.pinned and not candidate.expects(now):
                chosen.append(candidate)
        if not self._fits(staying, chosen, wanting):
            return
        for candidate in list(chosen):  # a large one that came later may have made smaller ones needless
            if self._fits(staying, [one for one in chosen if one is not candidate], wanting):
                chosen.remove(candidate)
        for candidate in chosen:
            candidate.stage, candidate.reason = Stage.DRAINING, "room"

    def _fits(self, staying: Collection[Residence], going: Collection[Residence], wanting: Unit | None) -> bool:
        """Whether all of `staying` but those `going` have room together with the wanting unit."""
        parts = {part for one in staying if one not in going for part in one.unit.parts}
        assert self.rules.budget is not None
        return self._bytes(parts.union(wanting.parts if wanting else ())) <= self.rules.budget

    def _shrink(self, now: float) -> None:
        """What is held was seen to take more than was expected."""
        if self.rules.budget is not None and not self._queue and self.used() > self.rules.budget:
            self._make_room(None, now)

    def _send_idle_away(self, now: float) -> None:
        if not self.rules.idle_s:
            return
        for one in self.residences.values():
            idle = one.stage is Stage.READY and not one.users and now - one.used_at >= self.rules.idle_s
            if idle and not one.unit.pinned and not one.expects(now):
                one.stage, one.reason = Stage.DRAINING, "idle"

    def _unloads(self) -> Iterator[Unload]:
        """Begin with those that are drained; of their parts, what no other unit holds or moves."""
        for residence in self.residences.values():
            if residence.stage is Stage.DRAINING and not residence.users:
                residence.stage = Stage.LEAVING
                residence.moving = frozenset(residence.unit.parts) - self._held(residence)
                parts = tuple(part for part in reversed(residence.unit.parts) if part in residence.moving)
                yield Unload(residence.unit.name, parts, residence.reason)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
