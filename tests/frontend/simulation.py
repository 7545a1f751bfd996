"""A machine and its clients under a virtual clock: what the scheduler's decisions cost, without a computer's noise.

Computing one token on one core takes `POSITION_S`, starting a run `RUN_OVERHEAD` times as long, and a padded position
what `padding_cost` says; durations are told in positions, or in full runs.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sie_frontend.serving.runs import RUN_OVERHEAD
from sie_frontend.serving.scheduler import RunQueue

T = TypeVar("T")
RUN_TOKENS = 512
POSITION_S = 0.00014
FULL_RUN = RUN_OVERHEAD + RUN_TOKENS


class _Clock(selectors.SelectSelector):
    """Nothing is ever waited for: the time to wait passes at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "every task waits for another"
        self.now += max(0.0, timeout)
        return super().select(0)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Clock()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def simulate(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on a loop whose clock starts at 0 and stands still while anything computes."""
    loop = _VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


@dataclass
class Machine:
    """`instances` of a model on `cores`: runs that are computed share the cores evenly, the others wait their turn."""

    cores: int = 2
    instances: int = 2
    padding_cost: float | None = None
    run_lengths: list[tuple[int, int]] = field(default_factory=list)
    computed: int = 0
    _active: dict[asyncio.Future[None], float] = field(default_factory=dict)
    _waiting: deque[tuple[asyncio.Future[None], float]] = field(default_factory=deque)
    _since: float = 0.0
    _timer: asyncio.TimerHandle | None = None

    async def __call__(self, rows: Sequence[int], outputs: tuple[str, ...]) -> list[int]:
        done = asyncio.get_running_loop().create_future()
        self.run_lengths.append((len(rows), max(rows)))
        self.computed += sum(rows)
        self._advance()
        price = 1.0 if self.padding_cost is None else min(1.0, self.padding_cost * max(rows))
        padding = price * (len(rows) * max(rows) - sum(rows))
        self._waiting.append((done, POSITION_S * (RUN_OVERHEAD + sum(rows) + padding)))
        self._plan()
        await done
        return list(rows)

    @property
    def _speed(self) -> float:
        return min(1.0, self.cores / len(self._active)) if self._active else 0.0

    def _advance(self) -> None:
        now = asyncio.get_running_loop().time()
        passed, self._since = (now - self._since) * self._speed, now
        for done in self._active:
            self._active[done] -= passed

    def _plan(self) -> None:
        for done in [done for done, left in self._active.items() if left <= 1e-9]:
            del self._active[done]
            done.set_result(None)
        while self._waiting and len(self._active) < self.instances:
            done, work = self._waiting.popleft()
            self._active[done] = work
        if self._timer:
            self._timer.cancel()
        if self._active:
            delay = min(self._active.values()) / self._speed
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._advance()
        self._plan()


class Length(int):
    """A row that is nothing but its length."""

    @property
    def cost(self) -> int:
        return self

    @property
    def shape_key(self) -> None:
        return None


def queue_of(machine: Machine, *, streams: int = 2, express: int = 0, ahead: int = 0) -> RunQueue[Length]:
    """The scheduler in front of a machine; a row is its length."""
    return RunQueue(
        machine,
        widths=range(1, 513),
        run_tokens=RUN_TOKENS,
        max_rows=64,
        streams=streams,
        express=express,
        ahead=ahead,
        padding_cost=machine.padding_cost,
    )


async def timed(queue: RunQueue[Length], rows: Sequence[int]) -> float:
    """How long a request takes, in positions."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    outcome = await queue.submit(list(map(Length, rows)), ("dense",))
    assert outcome.results == list(rows)
    return (loop.time() - begun) / POSITION_S


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile."""
    return sorted(values)[math.ceil(percent / 100 * len(values)) - 1]
