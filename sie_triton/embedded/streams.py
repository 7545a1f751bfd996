"""Several runs at once in one process: a few threads over one model, and no more work than they can do.

Standard library only: it runs in each stub.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

Work = Callable[[], None]


class Streams:
    """`count` threads, each of which computes one run at a time.

    Whoever submits waits until a stream is free again. So tritonserver, which hands on its next batch when the last
    one was taken, keeps its queue and forms that batch when it can be computed, as it does for instances.
    """

    def __init__(self, count: int, name: str, begin: Work = lambda: None) -> None:
        """`begin` is called once in each thread, before its first run."""
        self.count = count
        self._begin = begin
        self._busy = 0
        self._changed = threading.Condition()
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._compute, name=f"{name}-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def busy(self) -> int:
        """How many streams compute."""
        return self._busy

    def submit(self, work: Work) -> None:
        """Let a stream do `work`, which must not raise; returns as soon as another could be begun."""
        with self._changed:
            self._busy += 1
            self._work.put(work)
            self._changed.wait_for(lambda: self._busy < self.count)

    def close(self) -> None:
        """Wait for what is under way and end the threads. Idempotent."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _compute(self) -> None:
        self._begin()
        while (work := self._work.get()) is not None:
            try:
                work()
            finally:
                with self._changed:
                    self._busy -= 1
                    self._changed.notify()
