"""Sleeping until a process ends, somebody rings, or time is up: whoever supervises need not ask all the time."""

from __future__ import annotations

import contextlib
import os
import select
import threading


class Alarm:
    """Wakes one sleeper; the processes that it watches need not be children.

    Any thread may `ring`, and signal handlers too; a ring that nobody waited for counts for the next `sleep`.
    """

    def __init__(self) -> None:
        self._bell, self._cord = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._watched: dict[int, int] = {}  # process id -> descriptor
        self._open = True
        self._lock = threading.RLock()  # a signal handler may ring while its thread does

    def ring(self) -> None:
        """Wake the sleeper, or the next one. After `close` nothing happens."""
        with self._lock, contextlib.suppress(BlockingIOError):  # full of rings: one is enough
            if self._open:
                os.write(self._cord, b"\0")

    def watch(self, pid: int) -> bool:
        """Wake the sleeper when this process has ended, once. False where the kernel does not tell or it is gone."""
        if pid not in self._watched:
            try:
                descriptor = os.pidfd_open(pid)
            except (OSError, AttributeError):
                return False
            self._watched[pid] = descriptor
            self._poll.register(descriptor, select.POLLIN)
        return True

    def sleep(self, seconds: float) -> None:
        """Return after so many seconds, or at once when there is a reason."""
        ready = {descriptor for descriptor, _ in self._poll.poll(max(0.0, seconds) * 1000)}
        if self._bell in ready:
            os.read(self._bell, 4096)
        for pid in [pid for pid, descriptor in self._watched.items() if descriptor in ready]:
            self._forget(pid)

    def close(self) -> None:
        """Let go of every descriptor; nobody may sleep any more. Idempotent."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._bell)
                os.close(self._cord)
        for pid in tuple(self._watched):
            self._forget(pid)

    def _forget(self, pid: int) -> None:
        descriptor = self._watched.pop(pid)
        self._poll.unregister(descriptor)
        os.close(descriptor)
