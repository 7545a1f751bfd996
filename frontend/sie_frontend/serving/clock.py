"""Where one call's time goes."""

from __future__ import annotations

import time

from sie_frontend.contract.responses import Timing
from sie_frontend.serving.runs import Outcome


class Clock:
    """Started when it is made; of a call with several parts, each stage ends with its last part."""

    def __init__(self) -> None:
        self._begun = self._read = self._computed = time.perf_counter()
        self._queue_s = 0.0

    def read(self) -> None:
        """The rows are made."""
        self._read = time.perf_counter()

    def computed(self, outcome: Outcome) -> None:
        """Triton has answered."""
        self._computed, self._queue_s = time.perf_counter(), outcome.queue_s

    def timing(self) -> Timing:
        """Milliseconds by stage, up to now."""
        return Timing(
            total_ms=(time.perf_counter() - self._begun) * 1e3,
            queue_ms=self._queue_s * 1e3,
            tokenization_ms=(self._read - self._begun) * 1e3,
            inference_ms=max(0.0, self._computed - self._read - self._queue_s) * 1e3,
        )
