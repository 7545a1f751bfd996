"""Several Tritons that serve the same repository, with the face of one client.

A run goes to the replica with the fewest of this frontend's runs in flight among those where its model is ready. One
that gets no answer, because its replica is gone or its model no longer runs, is tried once more on another replica:
inference changes nothing in Triton, so that doing it twice is harmless. What a replica did answer, a refusal included,
is never tried again.

`dns://name:port` stands for every address that the name has, as a headless service of Kubernetes has one for each pod:
replicas come and go with them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import Gauge

from sie_frontend.rows import Array
from sie_frontend.triton.client import FailureKind, Late, TritonClient, TritonFailure
from sie_frontend.watch.metrics import Metrics
from sie_frontend.watch.tracing import Tracing

log = logging.getLogger("sie_frontend")

_DNS = "dns://"
# How often names are looked up; cluster DNS itself keeps its answers for some seconds.
_RESOLVE_S = 2.0
_ELSEWHERE = (FailureKind.UNREACHABLE, FailureKind.NOT_READY, FailureKind.BROKEN)


@dataclass(slots=True, eq=False)
class _Replica:
    """One Triton. `ready` holds the models that it last said it serves; `inflight` counts runs, `used` orders ties."""

    url: str
    client: TritonClient
    runs_gauge: Gauge
    ready_gauge: Gauge
    ready: set[str] = field(default_factory=set)
    inflight: int = 0
    used: int = 0


class ReplicaSet:
    """The Tritons at `urls` (`host:port`). Made inside a running loop; `model_ready` must be asked now and then.

    `late` is told of models as `TritonClient` does.
    """

    def __init__(
        self,
        urls: Sequence[str],
        metrics: Metrics,
        tracing: Tracing,
        *,
        timeout_s: float = 120.0,
        late: Late | None = None,
    ) -> None:
        self._metrics = metrics
        self._tracing = tracing
        self._timeout_s = timeout_s
        self._late = late
        self._turn = 0
        self._names = [url.removeprefix(_DNS) for url in urls if url.startswith(_DNS)]
        self._fixed = [url for url in urls if not url.startswith(_DNS)]
        self._addresses: dict[str, list[str]] = {}
        self._resolving = asyncio.Lock()
        self._resolved_at = -_RESOLVE_S
        self._replicas: list[_Replica] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._update(self._fixed)

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*(replica.client.close() for replica in self._replicas), *self._closing)

    def clients(self) -> dict[str, TritonClient]:
        """Every replica that is known now, by its URL."""
        return {replica.url: replica.client for replica in self._replicas}

    def give_up(self, model: str, cause: str) -> None:
        """The process that computed a model has ended: nobody waits any longer for its runs under way."""
        for replica in self._replicas:
            replica.client.give_up(model, cause)

    def forget(self, model: str) -> None:
        """No replica serves this model any more, or soon none will."""
        for replica in self._replicas:
            self._note(replica, model, False)

    async def server_live(self) -> bool:
        """Whether any replica answers, whatever models it has."""
        await self._resolve()
        return any(await asyncio.gather(*(replica.client.server_live() for replica in self._replicas)))

    def serving(self, model: str, at_most: int = 0) -> int:
        """How many replicas last said that they serve `model`, at least 1; no more than `at_most`, if that is not 0."""
        found = max(1, sum(model in replica.ready for replica in self._replicas))
        return min(found, at_most) if at_most else found

    async def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, timeout_s: float | None = None
    ) -> dict[str, Array]:
        """Run `model` on arrays of shape `[rows, …]`; returns the named outputs. Raises `TritonFailure`."""
        begun, patience = time.monotonic(), timeout_s or self._timeout_s
        if not self._replicas:
            raise TritonFailure(FailureKind.UNREACHABLE, f"`{', '.join(self._names)}` has no address")
        first = self._choose(model)
        try:
            return await self._infer(first, model, inputs, outputs, timeout_s)
        except TritonFailure as failure:
            second = self._choose(model, besides=first)
            # A run that used its whole time up has nobody left who waits for it, and may be what its replica hangs on.
            if failure.kind not in _ELSEWHERE or second is first or time.monotonic() - begun >= patience:
                raise
            self._metrics.run_retries.labels(first.url, failure.kind.value).inc()
        return await self._infer(second, model, inputs, outputs, timeout_s)

    async def server_ready(self) -> bool:
        """Whether any replica answers that it is ready."""
        await self._resolve()
        return any(await asyncio.gather(*(replica.client.server_ready() for replica in self._replicas)))

    async def model_ready(self, model: str) -> bool:
        """Ask every replica for `model`, remember what each said, and return whether any of them serves it."""
        await self._resolve()
        return any(await asyncio.gather(*(self._ask(replica, model) for replica in self._replicas)))

    async def _resolve(self) -> None:
        """Look the names up, if that was not done a moment ago. A name that cannot be looked up keeps its addresses."""
        async with self._resolving:
            if not self._names or time.monotonic() - self._resolved_at < _RESOLVE_S:
                return
            loop = asyncio.get_running_loop()
            for name in self._names:
                authority, slash, path = name.partition("/")
                host, _, port = authority.rpartition(":")
                try:
                    found = await loop.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
                except OSError as error:
                    if self._addresses.get(name) is None:
                        log.warning("cannot look up `%s`: %s", host, error)
                    self._addresses.setdefault(name, [])
                    continue
                addresses = sorted({str(address[0]) for *_, address in found})
                behind = f":{port}{slash}{path}"
                self._addresses[name] = [f"[{a}]{behind}" if ":" in a else f"{a}{behind}" for a in addresses]
            self._resolved_at = time.monotonic()
            self._update([*self._fixed, *(url for name in self._names for url in self._addresses[name])])

    def _update(self, urls: Sequence[str]) -> None:
        """Make the replicas those at `urls`. Runs on one that goes are finished."""
        known = {replica.url: replica for replica in self._replicas}
        wanted = dict.fromkeys(urls)
        for url in wanted:
            if url not in known:
                log.info("Triton %s joins", url)
                client = TritonClient(url, timeout_s=self._timeout_s, late=self._late)
                gauges = (self._metrics.replica_runs.labels(url), self._metrics.replica_ready.labels(url))
                known[url] = _Replica(url, client, *gauges)
        for replica in self._replicas:
            if replica.url not in wanted:
                log.info("Triton %s leaves", replica.url)
                task = asyncio.get_running_loop().create_task(self._leave(replica))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        self._replicas = [known[url] for url in wanted]

    async def _leave(self, replica: _Replica) -> None:
        """Close a replica once its runs have ended, and forget its gauges: addresses of pods are never seen again."""
        while replica.inflight:
            await asyncio.sleep(0.1)
        await replica.client.close()
        if all(other.url != replica.url for other in self._replicas):
            self._metrics.replica_ready.remove(replica.url)
            self._metrics.replica_runs.remove(replica.url)

    async def _ask(self, replica: _Replica, model: str) -> bool:
        ready = await replica.client.model_ready(model)
        self._note(replica, model, ready)
        return ready

    def _note(self, replica: _Replica, model: str, ready: bool) -> None:
        (replica.ready.add if ready else replica.ready.discard)(model)
        replica.ready_gauge.set(bool(replica.ready))

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
        self,
        replica: _Replica,
        model: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        timeout_s: float | None,
    ) -> dict[str, Array]:
        self._turn += 1
        replica.used = self._turn
        replica.inflight += 1
        replica.runs_gauge.set(replica.inflight)
        try:
            with self._tracing.run(model, replica.url, rows=len(next(iter(inputs.values())))) as headers:
                return await replica.client.infer(model, inputs, outputs, timeout_s=timeout_s, headers=headers)
        except TritonFailure as failure:
            if failure.kind in _ELSEWHERE:
                self._note(replica, model, False)
            raise
        finally:
            replica.inflight -= 1
            replica.runs_gauge.set(replica.inflight)
