"""Waiting for what a program cannot be told of: the one loop that asks again and again."""

from __future__ import annotations

import time
from collections.abc import Callable

_PAUSE_S = 0.05


def eventually(condition: Callable[[], object], seconds: float = 60.0) -> bool:
    """Whether a condition comes true in time. It is asked once more at the end."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return True
