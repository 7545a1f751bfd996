"""Several runs at once in one process: a few threads over one model, and no more work than they can do.

Standard library only: it runs in each stub.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from queue import SimpleQueue

Work = Callable[[], None]


class Streams:
    """`count` threads, each of which computes one run at a time.

    Whoever submits waits until a stream is free again. So tritonserver, which hands on its next batch when the last
    one was taken, keeps its queue and forms that batch when it can be computed, as it does for instances.
    """

    def __init__(self, count: int, name: str, begin: Work = lambda: None) -> None:
        """`begin` is called once in each thread, before its first run. Raises what it raises; no thread stays then."""
        self.count = count
        self._begin = begin
        self._busy = 0
        self._changed = threading.Condition()
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._begun: SimpleQueue[BaseException | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        try:
            for number in range(count):
                thread = threading.Thread(target=self._compute, name=f"{name}-{number}", daemon=True)
                thread.start()
                self._threads.append(thread)
            for failure in [self._begun.get() for _ in self._threads]:
                if failure is not None:
                    raise failure
        except BaseException:
            self.close()
            raise

    @property
    def busy(self) -> int:
        """How many streams compute."""
        return self._busy

    def submit(self, work: Work) -> None:
        """Let a stream do `work`; returns as soon as another could be begun.

        What `work` raises goes to standard error, and the stream does what comes next.
        """
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
        try:
            self._begin()
        except BaseException as error:  # raised again where the streams are made
            self._begun.put(error)
            return
        self._begun.put(None)
        while self._do(self._work.get()):
            pass

    def _do(self, work: Work | None) -> bool:
        """Do one piece of work and keep nothing of it: its tensors take shared memory. False where it was the end."""
        if work is None:
            return False
        try:
            work()
        except BaseException:  # a stream that ended would let the next batch wait for ever
            traceback.print_exc()
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify()
        return True
