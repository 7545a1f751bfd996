"""How much was spent in the last minute, exactly enough to say when there is room again."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_S: Final = 60.0
# What is spent within so many seconds is one entry: a window holds 600 entries at most.
_GRAIN_S: Final = 0.1


class Window:
    """What was spent of `limit` in the last 60 seconds. It slides: what is older is forgotten bit by bit.

    Times are seconds of one monotonic clock, and never go back.
    """

    __slots__ = ("_entries", "_total", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: deque[list[float]] = deque()  # [when, how much], oldest first
        self._total = 0

    def wait_s(self, amount: int, now: float) -> float:
        """Seconds until `amount` has room: 0.0 now, infinity where it is more than the limit."""
        while self._entries and self._entries[0][0] + WINDOW_S <= now:
            self._total -= int(self._entries.popleft()[1])
        excess = self._total + amount - self.limit
        if excess <= 0:
            return 0.0
        for when, spent in self._entries:
            excess -= int(spent)
            if excess <= 0:
                return min(when + WINDOW_S - now, WINDOW_S)
        return float("inf")

    def spend(self, amount: int, now: float) -> None:
        """Count `amount`, whether or not it has room."""
        if self._entries and now - self._entries[-1][0] < _GRAIN_S:
            self._entries[-1][1] += amount
        else:
            self._entries.append([now, amount])
        self._total += amount

    def give_back(self, amount: int, since: float) -> None:
        """Take `amount` out of what was spent since then: what is older is others', or forgotten."""
        while amount and self._entries and self._entries[-1][0] > since - _GRAIN_S:
            taken = min(amount, int(self._entries[-1][1]))
            self._entries[-1][1] -= taken
            self._total -= taken
            amount -= taken
            if not self._entries[-1][1]:
                self._entries.pop()
