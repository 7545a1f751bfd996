"""How long a run may go without an answer before it is asked whether a load holds it up."""

from __future__ import annotations

from typing import Final

LEAST_S: Final = 1.0
UNKNOWN_S: Final = 5.0
_FACTOR: Final = 2.0
_FADING: Final = 0.9


class RunPatience:
    """Per model, from what its runs take: a long run is not late merely because others are short."""

    def __init__(self) -> None:
        self._longest: dict[str, float] = {}

    def of(self, model: str) -> float:
        """Seconds: twice the longest of its last runs, at least a second; five where none has ended yet."""
        longest = self._longest.get(model)
        return UNKNOWN_S if longest is None else max(LEAST_S, _FACTOR * longest)

    def took(self, model: str, seconds: float) -> None:
        """A run was answered at its first try. A longest one counts for ever less."""
        self._longest[model] = max(seconds, _FADING * self._longest.get(model, 0.0))
