"""Runs of a process that ended: nobody answers them, so nobody shall wait for them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping

from sie_frontend.manifest import Manifest
from sie_frontend.serving.ailments import Ailment, Ailments, parts_of
from sie_frontend.triton.replicas import ReplicaSet

POLL_S = 0.1


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
        self._known: dict[str, int] = {}
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Watch no longer."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _watch(self) -> None:
        while True:
            self.look(self._ailments())
            await asyncio.sleep(POLL_S)

    def look(self, ailments: Mapping[str, Ailment]) -> None:
        """Give up what runs on those that died since the last look."""
        died = {name for name, one in ailments.items() if one.times > self._known.get(name, 0)}
        self._known = {name: one.times for name, one in ailments.items()}
        for name in tuple(self._inputs) if died else ():
            for part in died.intersection(parts_of(name, self._manifest())):
                self._triton.give_up(name, ailments[part].cause)
