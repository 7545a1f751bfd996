"""How much is asked and how fast it is answered now: differences of the metrics over the last minute.

Now and then, in a thread, the sums of the counters and histograms are read. A window is the difference between now and
the oldest reading that is at most a minute old, divided by the seconds between. Percentiles come from the buckets of
`sie_frontend_request_seconds`, by a straight line within a bucket, as Prometheus' `histogram_quantile` has them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec
from prometheus_client import Counter, Histogram

from sie_frontend.watch.metrics import Metrics
from sie_frontend.watch.observation import UNKNOWN_ROUTE

WINDOW_S: Final = 60.0
READ_EVERY_S: Final = 5.0
# Where nobody looked lately, a reading now and then is enough: of a hundred busy models one takes 20 ms of a core.
IDLE_READ_EVERY_S: Final = 30.0
LATELY_S: Final = 120.0

Buckets = Mapping[float, float]
"""How many observations were at most so large, by the upper bound in seconds; the last bound is infinite."""


class Traffic(msgspec.Struct, frozen=True):
    """Means over the window, for one model or for all. `p50_ms` and `p95_ms` are null where nothing was answered."""

    requests_per_s: Annotated[float, msgspec.Meta(description="answers, refusals included")]
    failures_per_s: Annotated[float, msgspec.Meta(description="answers with a status of 500 or more")]
    items_per_s: float
    tokens_per_s: Annotated[
        float | None,
        msgspec.Meta(description="of all ids that share its Triton model; null for all of them but the first"),
    ]
    p50_ms: float | None
    p95_ms: float | None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums by model id since the process began; "" stands for ids that are not served. `at` is when they were read."""

    at: float
    requests: Mapping[str, float] = field(default_factory=dict)
    failures: Mapping[str, float] = field(default_factory=dict)
    items: Mapping[str, float] = field(default_factory=dict)
    tokens: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, Buckets] = field(default_factory=dict)
    errors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrafficWindow:
    """What happened between two readings."""

    before: Totals
    now: Totals

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.now.at - self.before.at

    def of(self, model_id: str | None, *, tokens: bool = True) -> Traffic:
        """The traffic of one model, or of all together; without `tokens` where another id is told of them."""
        per_s = 1 / self.seconds if self.seconds > 0 else 0.0

        def rate(after: Mapping[str, float], before: Mapping[str, float]) -> float:
            ids = after if model_id is None else (model_id,)
            return per_s * sum(after.get(name, 0.0) - before.get(name, 0.0) for name in ids)

        taken = self._taken(list(self.now.seconds) if model_id is None else [model_id])
        return Traffic(
            requests_per_s=rate(self.now.requests, self.before.requests),
            failures_per_s=rate(self.now.failures, self.before.failures),
            items_per_s=rate(self.now.items, self.before.items),
            tokens_per_s=rate(self.now.tokens, self.before.tokens) if tokens else None,
            p50_ms=_milliseconds(quantile(taken, 0.5)),
            p95_ms=_milliseconds(quantile(taken, 0.95)),
        )

    def errors(self, kind: str) -> int:
        """How many errors of a kind there were."""
        return round(self.now.errors.get(kind, 0.0) - self.before.errors.get(kind, 0.0))

    def _taken(self, ids: Sequence[str]) -> Buckets:
        found: dict[float, float] = {}
        for model_id in ids:
            before = self.before.seconds.get(model_id, {})
            for bound, count in self.now.seconds.get(model_id, {}).items():
                found[bound] = found.get(bound, 0.0) + count - before.get(bound, 0.0)
        return found


class TrafficWatch:
    """Reads the metrics now and then. `clock` gives seconds that never go back; it begins when this is made."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._clock = clock
        self._readings: deque[Totals] = deque([Totals(clock())])
        self._looked_at = -LATELY_S

    async def keep(self) -> None:
        """Read for as long as this runs."""
        while True:
            lately = self._clock() - self._looked_at < LATELY_S
            await asyncio.sleep(READ_EVERY_S if lately else IDLE_READ_EVERY_S)
            self.take(await self._read())

    async def look(self) -> TrafficWindow:
        """What happened in about the last minute, for somebody who may soon look again."""
        self._looked_at = self._clock()
        return self.window(await self._read())

    def take(self, reading: Totals) -> None:
        """Keep a reading, and forget what no window needs any more."""
        self._readings.append(reading)
        while len(self._readings) > 1 and reading.at - self._readings[0].at > WINDOW_S:
            self._readings.popleft()

    def window(self, reading: Totals) -> TrafficWindow:
        """What happened until a reading."""
        recent = (kept for kept in self._readings if reading.at - kept.at <= WINDOW_S)
        return TrafficWindow(next(recent, self._readings[-1]), reading)

    async def _read(self) -> Totals:
        return await asyncio.to_thread(read_totals, self._metrics, self._clock())


def read_totals(metrics: Metrics, at: float) -> Totals:
    """The sums that the metrics have now. Requests to paths that are not served do not count."""
    requests: dict[str, float] = {}
    failures: dict[str, float] = {}
    for labels, value in _samples(metrics.requests):
        if labels["route"] != UNKNOWN_ROUTE:
            model = labels["model"]
            requests[model] = requests.get(model, 0.0) + value
            if labels["status"] >= "500":
                failures[model] = failures.get(model, 0.0) + value
    seconds: dict[str, dict[float, float]] = {}
    for labels, value in _samples(metrics.request_seconds, "_bucket"):
        if labels["route"] != UNKNOWN_ROUTE:
            of_model = seconds.setdefault(labels["model"], {})
            bound = float(labels["le"])
            of_model[bound] = of_model.get(bound, 0.0) + value
    return Totals(
        at,
        requests,
        failures,
        items={labels["model"]: value for labels, value in _samples(metrics.items)},
        tokens={labels["model"]: value for labels, value in _samples(metrics.tokens)},
        seconds=seconds,
        errors={labels["kind"]: value for labels, value in _samples(metrics.errors)},
    )


def _samples(metric: Counter | Histogram, end: str = "_total") -> list[tuple[Mapping[str, str], float]]:
    [family] = metric.collect()
    return [(sample.labels, sample.value) for sample in family.samples if sample.name.endswith(end)]


def quantile(buckets: Buckets, share: float) -> float | None:
    """The value that `share` of the observations do not exceed, in the buckets' unit; None where there are none.

    Within its bucket it lies on a straight line; beyond the last finite bound it is that bound.
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    rank, lower, below = share * total, 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= rank and count > below:
            return lower if math.isinf(bound) else lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return lower


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
