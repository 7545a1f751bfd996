"""Runs of a process that ended: nobody answers them, so nobody shall wait for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection

from sie_frontend.manifest import Manifest
from sie_frontend.serving.ailments import Ailments, parts_of
from sie_frontend.triton.replicas import ReplicaSet


class DeathWatch:
    """Gives up the runs of models of `inputs` when whoever supervises Triton has seen a process of theirs end.

    A process that computes several runs at once takes all of them along, and Triton says nothing of those that its
    backend has accepted. Made inside a running event loop, closed by `close`.
    """

    def __init__(
        self, inputs: Collection[str], manifest: Callable[[], Manifest], triton: ReplicaSet, ailments: Ailments
    ) -> None:
        self._inputs = inputs
        self._manifest = manifest
        self._triton = triton
        self._ailments = ailments
        self._seen = 0
        self._loop = asyncio.get_running_loop()
        ailments.follow(self._wake)
        self._look()  # what died before concerns no run of ours

    def close(self) -> None:
        """Watch no longer."""
        self._ailments.unfollow(self._wake)

    def _wake(self) -> None:
        """Any thread calls this; the loop may have ended by then."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        """Give up what runs on those that died since the last look."""
        ailments = self._ailments()
        died = {name for name, one in ailments.items() if one.number > self._seen}
        self._seen = max((one.number for one in ailments.values()), default=self._seen)
        for name in tuple(self._inputs) if died else ():
            for part in died.intersection(parts_of(name, self._manifest())):
                self._triton.give_up(name, ailments[part].cause)
