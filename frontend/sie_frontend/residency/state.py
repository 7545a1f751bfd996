"""The words of the policy: in which stage a unit is, what it owes, and what shall be done next."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from sie_frontend.residency.units import Unit


class Stage(Enum):
    """Where a unit is. The value is the contract's word for its `state`."""

    ABSENT = ("absent", "available")
    WAITING = ("waiting", "loading")  # for room, or for a part that another unit loads or unloads
    LOADING = ("loading", "loading")
    READY = ("ready", "loaded")
    DRAINING = ("draining", "unloading")  # admits nothing more; goes when its work in flight is done
    LEAVING = ("leaving", "unloading")
    FAILED = ("failed", "failed")

    @property
    def word(self) -> str:
        """The contract's word."""
        return self.value[1]


HOLDING = frozenset({Stage.LOADING, Stage.READY, Stage.DRAINING})


@dataclass(frozen=True, slots=True)
class LoadFailure:
    """Why a unit could not be loaded. `permanent`: not before somebody changes a setting or the model."""

    message: str
    error_class: str
    attempts: int
    permanent: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits of the policy, in bytes and seconds.

    A caller that was told to wait comes back after about `hint_s`; `slack_s` later it is taken not to want the model
    any more. `cooldown_s` after a failure nothing is tried again, twice as long after the next one, up to
    `max_cooldown_s`. `idle_s` of 0 means that nothing is unloaded merely because nobody asks for it.
    """

    budget: int | None = None
    idle_s: float = 0.0
    hint_s: float = 5.0
    slack_s: float = 2.5
    cooldown_s: float = 10.0
    max_cooldown_s: float = 300.0
    unreachable_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Load:
    """Load these parts of a unit, in this order, then say `loaded`, `failed` or `unreachable`."""

    unit: str
    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unload:
    """Unload these parts of a unit, in this order, and say `unloaded` once their memory is free."""

    unit: str
    parts: tuple[str, ...]
    reason: str


Command = Load | Unload


@dataclass(slots=True, eq=False)
class Residence:
    """One unit's state. `owed` holds until when each caller that was turned away may be expected back.

    `retired`: nobody may ask for it any more, and it is forgotten once it is gone.
    """

    unit: Unit
    stage: Stage = Stage.ABSENT
    users: int = 0
    used_at: float = 0.0
    owed: deque[float] = field(default_factory=deque)
    moving: frozenset[str] = frozenset()
    failure: LoadFailure | None = None
    attempts: int = 0
    retry_at: float = 0.0
    asked_by_us: bool = False
    reason: str = ""
    retired: bool = False

    @property
    def there(self) -> bool:
        """Whether it is taken to be loaded and whole, if only until its last request is answered."""
        return self.stage is Stage.READY or (self.stage is Stage.DRAINING and self.reason not in ("failed", "lost"))

    def expects(self, now: float) -> bool:
        """Whether a caller that was turned away may still come back. Forgets those that will not."""
        while self.owed and self.owed[0] <= now:
            self.owed.popleft()
        return bool(self.owed)

    def wanted(self, now: float) -> bool:
        """Whether anybody waits for it."""
        return not self.retired and self._wanted(now)

    def _wanted(self, now: float) -> bool:
        return self.unit.pinned or self.asked_by_us or self.expects(now)
