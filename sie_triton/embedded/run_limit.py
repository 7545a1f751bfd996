"""A run that does not end: the process that computes it ends itself, so that its model can be loaded again.

tritonserver waits for ever for a process that lives, and says meanwhile that the model is ready. Standard library only:
it runs in each stub.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

from sie_triton.embedded.last_resort import UNFINISHED, end_process

VARIABLE = "SIE_EMBEDDED_RUN_LIMIT_S"
"""Environment variable with the seconds that a run may take; without it, or with 0, a run may take for ever."""


def limit_from_environment() -> float:
    """The seconds that a run may take; 0 for no limit."""
    with contextlib.suppress(ValueError):
        return max(0.0, float(os.environ.get(VARIABLE, "")))
    return 0.0


class RunLimit:
    """Watches the runs of one process from a thread of its own.

    `give_up` is called with the seconds that a run has taken once that is more than `seconds`.
    """

    def __init__(self, name: str, seconds: float, give_up: Callable[[float], None] | None = None) -> None:
        self._name = name
        self._seconds = seconds
        self._give_up = give_up or self._end_process
        self._begun: dict[int, float] = {}  # by thread
        if seconds > 0:
            threading.Thread(target=self._watch, name="run-limit", daemon=True).start()

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """One run. Each thread may have one under way."""
        thread = threading.get_ident()
        self._begun[thread] = time.monotonic()
        try:
            yield
        finally:
            del self._begun[thread]

    def _watch(self) -> None:
        while True:
            time.sleep(min(self._seconds / 4, 1.0))
            begun = list(self._begun.values())
            if begun and (taken := time.monotonic() - min(begun)) > self._seconds:
                self._give_up(taken)
                return

    def _end_process(self, taken: float) -> None:
        end_process(
            UNFINISHED,
            f"model `{self._name}` has computed one run for {taken:.0f} s, longer than anybody waits for it "
            f"({self._seconds:g} s): its process ends, so that the model can be loaded again",
        )
