"""Two ways to compute a run that is alone, and which of them is quicker here and now.

Two threads answer one text in less time than one where both cores are free, and in much more where other programs take
them: they wait for each other. Nothing says which it is but the clock. Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# How much of an estimate one run replaces, and what share of the time trying the slower way may lose.
_WEIGHT = 0.2
_LOST = 0.02
_FIRST = 3
# A run that a busy machine kept for seconds says little of its way: it counts as so many times what was expected.
_FAR = 4.0


@dataclass(slots=True)
class _Estimates:
    """Seconds of each way, how often it was taken, and the seconds of all runs since the slower one was tried."""

    seconds: list[float] = field(default_factory=lambda: [0.0, 0.0])
    taken: list[int] = field(default_factory=lambda: [0, 0])
    spent: float = 0.0


class QuickerWay:
    """Chooses between way 0 and way 1 for runs of a size, by what such runs took."""

    def __init__(self) -> None:
        self._of: dict[int, _Estimates] = {}

    def choose(self, size: int) -> int:
        """0 or 1. Both are tried at first, and the slower one now and then: the machine may have become quiet."""
        known = self._of.setdefault(size.bit_length(), _Estimates())
        fewer = min((0, 1), key=known.taken.__getitem__)
        if known.taken[fewer] < _FIRST:
            return fewer
        quicker = min((0, 1), key=known.seconds.__getitem__)
        if abs(known.seconds[0] - known.seconds[1]) > _LOST * known.spent:
            return quicker
        known.spent = 0.0
        return 1 - quicker

    def took(self, size: int, way: int, seconds: float) -> None:
        """A run of `size` took so long."""
        known = self._of.setdefault(size.bit_length(), _Estimates())
        known.spent += seconds
        known.taken[way] += 1
        expected = known.seconds[way]
        if known.taken[way] <= _FIRST:
            known.seconds[way] = min(seconds, expected or seconds)
        else:
            known.seconds[way] += _WEIGHT * (min(seconds, _FAR * expected) - expected)
