"""The last error of each kind, for whoever looks later. As many are kept as there are kinds, however many come."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sie_frontend.contract.errors import ErrorKind, WireError

# Of a message that somebody else wrote, this much is kept.
MAX_MESSAGE: Final = 500


@dataclass(frozen=True, slots=True)
class LastError:
    """When an error of its kind was last answered, by the clock of `LastErrors`, and in which words.

    `message` is null for what the client did wrong: it may repeat what the client sent, and the log leaves it out too.
    """

    kind: ErrorKind
    at: float
    message: str | None


class LastErrors:
    """Takes note of every refusal. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_kind: dict[ErrorKind, LastError] = {}

    def note(self, error: WireError) -> None:
        """An error is being answered."""
        told = error.message[:MAX_MESSAGE] if error.row.log_level >= logging.WARNING else None
        self._by_kind[error.kind] = LastError(error.kind, self._clock(), told)

    def of(self, kind: ErrorKind) -> LastError | None:
        """The last one of a kind; None if there was none."""
        return self._by_kind.get(kind)
