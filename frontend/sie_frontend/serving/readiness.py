"""Which models can be admitted to: what Triton says of them, and what was seen of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sie_frontend.serving.served import ServedInput
from sie_frontend.settings import Settings
from sie_frontend.triton.client import PROBE_TIMEOUT_S, TritonFailure
from sie_frontend.triton.replicas import ReplicaSet
from sie_frontend.watch.metrics import Metrics

log = logging.getLogger("sie_frontend")

READY_POLL_S = 1.0
# So long a broken model must compute before it is admitted to, where nobody supervises its Triton.
TRIAL_S = 3.0


@dataclass(slots=True)
class _Broken:
    """A model that could not compute `outputs`; `since` is when it was last seen to fail."""

    outputs: tuple[str, ...]
    since: float


class Readiness:
    """Watches the public Triton models of `inputs`, those of `required` for the readiness of the whole.

    With `watched`, which names those that are loaded now, the others are not asked about, and the whole is ready
    without any as long as a Triton answers. `down` tells of a model that its supervisor knows not to run; without it
    nobody supervises. Made inside a running event loop, closed by `close`.
    """

    def __init__(
        self,
        inputs: Mapping[str, ServedInput],
        required: frozenset[str],
        triton: ReplicaSet,
        settings: Settings,
        metrics: Metrics,
        watched: Callable[[], Iterable[str]] | None = None,
        down: Callable[[str], bool] | None = None,
    ) -> None:
        self._inputs = inputs
        self._required = required
        self._triton = triton
        self._settings = settings
        self._metrics = metrics
        self._ready: dict[str, bool] = dict.fromkeys(inputs, False)
        self._losses: dict[str, int] = dict.fromkeys(inputs, 0)
        self._broken: dict[str, _Broken] = {}
        self._watched = watched or (lambda: inputs)
        self._partial = watched is not None
        self._down = down or (lambda _: False)
        self._trial_s = TRIAL_S if down is None else 0.0
        self._alive = not self._partial and bool(required)
        self._recheck = asyncio.Event()
        self._monitor = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Watch no longer."""
        self._monitor.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._monitor

    @property
    def all_ready(self) -> bool:
        """Whether everything that is required can be admitted to, and some Triton answers."""
        return self._alive and all(self._ready.get(name) for name in self._required)

    def ready(self, triton_model: str) -> bool:
        """Whether this one can be admitted to."""
        return self._ready.get(triton_model, False)

    def enter(self, names: Iterable[str]) -> None:
        """Watch these too; their inputs are there."""
        for name in names:
            self._ready.setdefault(name, False)
            self._losses.setdefault(name, 0)

    def require(self, names: frozenset[str]) -> None:
        """Without these the whole is not ready."""
        self._required = names
        self._alive = self._alive or (not self._partial and bool(names))

    def drop(self, name: str) -> None:
        """Watch this one no longer."""
        self._ready.pop(name, None)
        self._losses.pop(name, None)
        self._broken.pop(name, None)

    def lost(self, triton_model: str, broken: tuple[str, ...]) -> None:
        """Triton did not answer, or cannot compute the outputs `broken`: admit nothing until it is ready again."""
        if broken:
            self._broken[triton_model] = _Broken(broken, time.monotonic())
        if triton_model not in self._ready:
            return
        self._losses[triton_model] += 1
        self._ready[triton_model] = False
        self._metrics.ready.set(False)
        self._recheck.set()

    async def look(self, names: Iterable[str]) -> None:
        """Ask about these models now."""
        for name in names:
            if name not in self._ready:
                continue
            now = await self._computes(name)
            if name not in self._ready:  # it left meanwhile
                continue
            if now != self._ready[name]:
                log.info("model %s is %s", name, "ready" if now else "not ready")
            self._ready[name] = now
            self._inputs[name].queue.replicas = self._triton.serving(name, self._settings.keep_busy)

    def left(self, names: Iterable[str]) -> None:
        """These are being unloaded: what was found out about them is of no more use."""
        for name in names:
            self._ready[name] = False
            self._losses[name] = self._losses.get(name, 0) + 1
            self._broken.pop(name, None)

    async def _watch(self) -> None:
        while True:
            try:
                await self.look(tuple(self._watched()))
                if self._partial:
                    self._alive = await self._triton.server_live()
            except Exception:  # whatever it is, nobody else looks
                log.exception("looking after the models failed; it goes on")
            self._metrics.ready.set(self.all_ready)
            self._recheck.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._recheck.wait(), READY_POLL_S if self.all_ready else READY_POLL_S / 5)

    async def _computes(self, name: str) -> bool:
        """Whether a model can be admitted to: Triton says so, and if it was found broken, it has computed for a while.

        Triton goes on to call a model ready whose backend's process has died. Whoever supervises Triton sees that and
        loads the model again, and says so; nobody may supervise a remote one, so it is tried as well. There for a
        while, since the other instances may take every run as long as Triton waits for the dead one.
        """
        losses = self._losses.get(name)
        if self._down(name) or not await self._triton.model_ready(name):
            self._broken.pop(name, None)
            return False
        broken = self._broken.get(name)
        # Meanwhile it may have been unloaded, and is not looked after any more.
        if broken is not None and not await self._try_all_instances(name, broken.outputs):
            broken.since = time.monotonic()
        if broken is not None and time.monotonic() - broken.since > self._trial_s and self._broken.get(name) is broken:
            del self._broken[name]
        return name not in self._broken and losses == self._losses.get(name)

    async def _try_all_instances(self, name: str, outputs: tuple[str, ...]) -> bool:
        """Whether a model computes, tried with as many runs at once as it has instances.

        The runs cost different amounts, so that Triton does not merge those whose shapes follow their cost.
        """
        served = self._inputs[name]

        async def attempt(cost: int) -> bool:
            batch = served.batch([served.reader.probe(cost)])
            try:
                await self._triton.infer(name, batch, outputs, timeout_s=PROBE_TIMEOUT_S)
            except TritonFailure:  # whatever it is: a server that is being ended refuses in many words
                return False
            return True

        instances = served.batching.streams + served.batching.express
        return all(await asyncio.gather(*map(attempt, range(1, 1 + instances))))
