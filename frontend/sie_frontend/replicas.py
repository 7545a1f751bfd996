"""Several Tritons that serve the same repository, with the face of one client.

A run goes to the replica with the fewest of this frontend's runs in flight among those where its model is ready. One
that gets no answer, because its replica is gone or no longer has the model, is tried once more on another replica:
inference changes nothing in Triton, so that doing it twice is harmless. What a replica did answer, a refusal included,
is never tried again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from sie_frontend.metrics import Metrics
from sie_frontend.tracing import Tracing
from sie_frontend.triton_client import FailureKind, TritonClient, TritonFailure

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_ELSEWHERE = (FailureKind.UNREACHABLE, FailureKind.NOT_READY)


@dataclass(slots=True, eq=False)
class _Replica:
    """One Triton. `ready` holds the models that it last said it serves; `inflight` counts runs, `used` orders ties."""

    url: str
    client: TritonClient
    ready: set[str] = field(default_factory=set)
    inflight: int = 0
    used: int = 0


class ReplicaSet:
    """The Tritons at `urls` (`host:port`). Made inside a running loop; `model_ready` must be asked now and then."""

    def __init__(self, urls: Sequence[str], metrics: Metrics, tracing: Tracing, *, timeout_s: float = 120.0) -> None:
        self._replicas = [_Replica(url, TritonClient(url, timeout_s=timeout_s)) for url in urls]
        self._metrics = metrics
        self._tracing = tracing
        self._timeout_s = timeout_s
        self._turn = 0
        for replica in self._replicas:
            metrics.replica_ready.labels(replica.url).set(0)
            metrics.replica_runs.labels(replica.url).set(0)

    def __len__(self) -> int:
        return len(self._replicas)

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(replica.client.close() for replica in self._replicas))

    async def infer(self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Run `model` on arrays of shape `[rows, …]`; returns the named outputs. Raises `TritonFailure`."""
        begun = time.monotonic()
        first = self._choose(model)
        try:
            return await self._infer(first, model, inputs, outputs)
        except TritonFailure as failure:
            second = self._choose(model, besides=first)
            # A run that used its whole time up has nobody left who waits for it, and may be what its replica hangs on.
            if failure.kind not in _ELSEWHERE or second is first or time.monotonic() - begun >= self._timeout_s:
                raise
            self._metrics.run_retries.labels(first.url, failure.kind.value).inc()
        return await self._infer(second, model, inputs, outputs)

    async def server_ready(self) -> bool:
        """Whether any replica answers that it is ready."""
        return any(await asyncio.gather(*(replica.client.server_ready() for replica in self._replicas)))

    async def model_ready(self, model: str) -> bool:
        """Ask every replica for `model`, remember what each said, and return whether any of them serves it."""
        return any(await asyncio.gather(*(self._ask(replica, model) for replica in self._replicas)))

    async def _ask(self, replica: _Replica, model: str) -> bool:
        ready = await replica.client.model_ready(model)
        (replica.ready.add if ready else replica.ready.discard)(model)
        self._metrics.replica_ready.labels(replica.url).set(bool(replica.ready))
        return ready

    def _choose(self, model: str, besides: _Replica | None = None) -> _Replica:
        """The least busy replica that serves `model`; among equals the one that waited longest for a run.

        If none is known to serve it, all are candidates: the caller admitted the run, so one of them did a moment ago.
        `besides` is returned only if there is no other that serves the model.
        """
        others = [replica for replica in self._replicas if replica is not besides]
        ready = [replica for replica in others if model in replica.ready]
        if not ready and besides is not None:
            return besides
        return min(ready or others, key=lambda replica: (replica.inflight, replica.used))

    async def _infer(
        self, replica: _Replica, model: str, inputs: Mapping[str, Array], outputs: Sequence[str]
    ) -> dict[str, Array]:
        self._turn += 1
        replica.used = self._turn
        replica.inflight += 1
        gauge = self._metrics.replica_runs.labels(replica.url)
        gauge.set(replica.inflight)
        try:
            with self._tracing.run(model, replica.url, rows=len(next(iter(inputs.values())))) as headers:
                if headers:
                    return await replica.client.infer(model, inputs, outputs, headers=headers)
                return await replica.client.infer(model, inputs, outputs)
        except TritonFailure as failure:
            if failure.kind in _ELSEWHERE:
                replica.ready.discard(model)
                self._metrics.replica_ready.labels(replica.url).set(bool(replica.ready))
            raise
        finally:
            replica.inflight -= 1
            gauge.set(replica.inflight)
