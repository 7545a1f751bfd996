"""Runs that come one by one: the embedded server is told, and answers them sooner.

It computes such a run in the thread that takes requests, and lets the next one wait. Nobody else knows early enough
whether there is a next one. NVIDIA's backends read no such parameter.
"""

from __future__ import annotations

import math
import time
from typing import Final

ALONE: Final = "sie_alone"
QUIET_S: Final = 0.1
"""So long no two runs of a model must have been under way at once until one is called alone again."""


class LoneRuns:
    """What one client knows of the runs of each model that it sends."""

    def __init__(self) -> None:
        self._beside: dict[str, float] = {}

    def parameters(self, model: str, *, beside: bool) -> dict[str, bool]:
        """Those of the request of a run that begins now, `beside` others of its model or not."""
        now = time.monotonic()
        if beside:
            self._beside[model] = now
        return {ALONE: True} if now - self._beside.get(model, -math.inf) > QUIET_S else {}
