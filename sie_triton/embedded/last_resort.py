"""What a process does that may be unable to answer its callers: it sees in time, or it ends itself.

Whoever supervises it says why, and loads its model again.

Standard library only: it runs in each stub.
"""

from __future__ import annotations

import os
import sys
from typing import Final, NoReturn

UNFINISHED: Final = 86
UNANSWERED: Final = 87
CAUSES: Final = {
    UNFINISHED: "did not finish a run in time and ended itself",
    UNANSWERED: "could not send an answer and ended itself",
}
"""Exit status -> what it means. No program of ours or of Triton's ends so otherwise."""
# Answers of so many bytes find room in what tritonserver has already; a larger one may need that much more at once.
_SMALL, _GROWTH = 1 << 16, 1 << 20


def lack_of_room(size: int, place: str = "/dev/shm") -> str:
    """Why an answer of `size` bytes may not be sent; empty where nothing is known against it.

    A response sender that finds no room is closed nevertheless, so that nothing else can be said by it.
    """
    if size <= _SMALL:
        return ""
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize
    if free >= size + _GROWTH:
        return ""
    return f"the shared memory pool has no room for an answer of {size} bytes: {place} has {free} left"


def end_process(status: int, message: str) -> NoReturn:
    """End this process at once, whatever its threads are at, with a line in tritonserver's log."""
    print(message, file=sys.stderr, flush=True)
    os._exit(status)
