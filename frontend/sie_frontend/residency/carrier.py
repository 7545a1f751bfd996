"""Carries out what the policy decides, on every replica: loads, unloads, and waits until memory is really free."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sie_frontend.triton import model_control
from sie_frontend.triton.client import FailureKind, TritonClient, TritonFailure
from sie_frontend.triton.model_control import ModelState
from sie_frontend.triton.replicas import ReplicaSet

log = logging.getLogger("sie_frontend")

# Bytes that the processes of each Triton model take; only where Triton runs on this machine.
Memory = Callable[[], Mapping[str, int]]
# Tells whoever brings dead models back that Triton models are being unloaded on purpose; returns when none of them is
# being brought back any more.
Discharge = Callable[[Collection[str]], None]
Survey = dict[str, dict[str, ModelState]]

UNLOAD_S: Final = 30.0
LOOK_S: Final = 0.1
AGAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class CarrierLimits:
    """How long one Triton model may take to load, and how long its memory may take to come free."""

    load_s: float = 600.0
    release_s: float = 60.0


class Carrier:
    """Loads and unloads on all replicas of `replicas`. `memory` tells what Triton models take, where that is known.

    `discharge` is told of what is unloaded, before it is: whoever brings back models that have died must not bring
    back these.
    """

    def __init__(
        self,
        replicas: ReplicaSet,
        limits: CarrierLimits,
        memory: Memory | None = None,
        discharge: Discharge | None = None,
    ) -> None:
        self._replicas = replicas
        self._limits = limits
        self._memory = memory
        self._discharge = discharge

    async def load(self, parts: Sequence[str]) -> None:
        """Load the parts in order, on every replica. Enough if one replica can; raises `TritonFailure` if none can.

        What a replica lacks is loaded there later, by `load_on`.
        """
        clients = self._replicas.clients()
        found = await asyncio.gather(
            *(self.load_on(client, parts) for client in clients.values()), return_exceptions=True
        )
        failures = [failure for failure in found if failure is not None]
        for failure in failures:
            if not isinstance(failure, TritonFailure):
                raise failure
        if clients and len(failures) < len(clients):
            return
        refusals = [one for one in failures if isinstance(one, TritonFailure) and one.kind is not _UNREACHABLE]
        raise (refusals or failures or [TritonFailure(_UNREACHABLE, "no Triton is known")])[0]

    async def load_on(self, client: TritonClient, parts: Sequence[str]) -> None:
        """Load the parts in order on one replica. Raises `TritonFailure`.

        What is being loaded already is waited for. Some loads never end, and then each further call of Triton's about
        that model takes one of its threads for good.
        """
        for part in parts:
            begun = time.monotonic()
            try:
                while (await model_control.index(client)).get(part) is ModelState.LOADING:
                    if time.monotonic() - begun > self._limits.load_s:
                        raise TritonFailure(_UNREACHABLE, "it is still being loaded")
                    await asyncio.sleep(LOOK_S)
                await model_control.load(client, part, self._limits.load_s)
            except TritonFailure as failure:
                if failure.kind is _UNREACHABLE and time.monotonic() - begun >= self._limits.load_s:
                    message = f"`{part}` was not loaded within {self._limits.load_s:g} s"
                    raise TritonFailure(FailureKind.REJECTED, message) from failure
                raise

    async def unload(self, parts: Sequence[str]) -> None:
        """Unload the parts in order, everywhere, and return when their memory is free.

        What was not heard, and what was still being loaded then, is told again. A replica that does not answer has
        nothing loaded, or is told when it is surveyed.
        """
        for part in parts:
            self._replicas.forget(part)
        if self._discharge and parts:
            await asyncio.to_thread(self._discharge, parts)
        until, again = time.monotonic() + self._limits.release_s, 0.0
        while parts:
            if time.monotonic() >= again:
                again = time.monotonic() + AGAIN_S
                clients = self._replicas.clients().values()
                await asyncio.gather(*(self._unload_on(client, parts) for client in clients))
            if not await self._lingering(frozenset(parts)):
                return
            if time.monotonic() > until:
                log.warning("the memory of %s is not free after %g s", ", ".join(parts), self._limits.release_s)
                return
            await asyncio.sleep(LOOK_S)

    async def _unload_on(self, client: TritonClient, parts: Sequence[str]) -> None:
        for part in parts:
            try:
                if (await model_control.index(client)).get(part) is ModelState.READY:
                    await model_control.unload(client, part, UNLOAD_S)
            except TritonFailure as failure:
                log.info("Triton %s does not unload %s: %s", client.url, part, failure)

    async def _lingering(self, parts: frozenset[str]) -> bool:
        """Whether a replica still holds one of the parts, or a process of one still lives.

        A Python-based model whose process died with a run is said to be unloading for ever: where processes can be
        seen, what has none left is gone.
        """
        states, seen = await self.survey(), await self.seen()
        told = _HOLDING if self._memory else _HOLDING | {ModelState.UNLOADING}
        held = any(found.get(part) in told for found in states.values() for part in parts)
        return held or any(size for part, size in seen.items() if part in parts)

    async def survey(self) -> Survey:
        """What each replica that answers says of its models, by its URL."""
        clients = self._replicas.clients()

        async def ask(client: TritonClient) -> dict[str, ModelState] | None:
            try:
                return await model_control.index(client)
            except TritonFailure:
                return None

        answers = await asyncio.gather(*map(ask, clients.values()))
        return {url: answer for url, answer in zip(clients, answers, strict=True) if answer is not None}

    async def seen(self) -> Mapping[str, int]:
        """Bytes by Triton model; nothing where that cannot be known."""
        return await asyncio.to_thread(self._memory) if self._memory else {}

    def client(self, url: str) -> TritonClient | None:
        """The replica at a URL; None if it has left."""
        return self._replicas.clients().get(url)


_UNREACHABLE: Final = FailureKind.UNREACHABLE
_HOLDING: Final = frozenset({ModelState.READY, ModelState.LOADING})
