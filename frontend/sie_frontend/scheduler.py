"""Cuts requests into short runs and shares the streams fairly: no query waits behind a whole bulk request.

Every run holds at most `run_tokens` padded tokens, because a batch should fit the device's fast memory. A request's
rows go longest first, so that rows of one run have about the same length; room that is left is filled with rows of
other requests, so that concurrent small requests share a run.

Fairness is processor sharing by virtual time (Demers, Keshav and Shenker, 1989): a request starts at the present
virtual time, each run adds its tokens to the request's own, and the request that is furthest behind goes next. A bulk
request therefore gives way to whoever arrives, and is never starved, since virtual time moves on with the work done.
"""

from __future__ import annotations

import asyncio
import bisect
import contextvars
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from sie_frontend.tokenization import bucket_of

# Rows join a run as long as its padding stays below this share of its tokens, or below what a run of its own costs:
# measured on MiniLM with one thread, starting a run takes as long as computing about 20 positions.
PADDING_SHARE = 0.12
RUN_OVERHEAD = 20

Row = TypeVar("Row")


@dataclass(slots=True, eq=False)
class _Job(Generic[Row]):
    """One request's rows for one set of outputs. `order` holds row numbers, the longest last, where they are popped."""

    outputs: tuple[str, ...]
    rows: Sequence[Row]
    widths: Sequence[int]
    order: list[int]
    virtual: float
    future: asyncio.Future[list[Any]]
    results: list[Any]
    left: int
    submitted: float
    context: contextvars.Context
    started: float = 0.0
    compute: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a submitted request got: one result per row in order, and where its time went, in seconds."""

    results: list[Any]
    queue_s: float
    compute_s: float


RunFunction: TypeAlias = "Callable[[Sequence[Row], tuple[str, ...]], Awaitable[Sequence[Any]]]"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One finished run: its rows, their tokens, the positions computed for them, and the seconds it took."""

    rows: int
    tokens: int
    padded_tokens: int
    seconds: float


class _Run(Generic[Row]):
    """Rows gathered for one run, all padded to `width`."""

    def __init__(self, width: int, run_tokens: int, max_rows: int) -> None:
        self.width = width
        self.picked: list[tuple[_Job[Row], int]] = []
        self._room = min(max_rows, max(1, run_tokens // width))
        self._tokens = 0

    @property
    def full(self) -> bool:
        """Whether no further row fits."""
        return len(self.picked) >= self._room

    def take(self, job: _Job[Row]) -> int:
        """Move rows of `job` here, the longest that fit first; returns the positions that they take."""
        # `order` ascends by width: everything from here on is too wide for this run.
        start = bisect.bisect_right(job.order, self.width, key=job.widths.__getitem__)
        end = start
        while end and not self.full and self._worth(job.widths[job.order[end - 1]]):
            end -= 1
            row = job.order[end]
            self.picked.append((job, row))
            self._tokens += job.widths[row]
        del job.order[end:start]
        return (start - end) * self.width

    def _worth(self, width: int) -> bool:
        tokens = self._tokens + width
        padding = (len(self.picked) + 1) * self.width - tokens
        return padding <= max(RUN_OVERHEAD, PADDING_SHARE * tokens)


class RunQueue(Generic[Row]):
    """The rows waiting for one Triton model, and the runs that are under way: at most `streams` at once and replica.

    `replicas`, how many Tritons share the runs, may be changed at any time.

    `run(rows, outputs)` computes named outputs of rows and returns one result per row. `length` gives a row's tokens.
    """

    def __init__(
        self,
        run: RunFunction[Row],
        *,
        length: Callable[[Row], int],
        buckets: Sequence[int],
        run_tokens: int,
        max_rows: int,
        streams: int,
        observe: Callable[[RunRecord], None] | None = None,
    ) -> None:
        self._run = run
        self._length = length
        self._buckets = buckets
        self._run_tokens = run_tokens
        self._max_rows = max_rows
        self.replicas = 1
        self._streams = streams
        self._observe = observe
        self._jobs: list[_Job[Row]] = []
        self._virtual_now = 0.0
        self._running: set[asyncio.Task[None]] = set()

    @property
    def pending_rows(self) -> int:
        """Rows that wait for a run."""
        return sum(len(job.order) for job in self._jobs)

    async def submit(self, rows: Sequence[Row], outputs: tuple[str, ...]) -> Outcome:
        """Compute every row; raises what the run raised. Leaving early (cancellation) withdraws what is not running."""
        loop = asyncio.get_running_loop()
        lengths = [self._length(row) for row in rows]
        widths = [bucket_of(length, self._buckets) for length in lengths]
        job: _Job[Row] = _Job(
            outputs=outputs,
            rows=rows,
            widths=widths,
            order=sorted(range(len(rows)), key=lengths.__getitem__),
            virtual=self._virtual_now,
            future=loop.create_future(),
            results=[None] * len(rows),
            left=len(rows),
            submitted=time.perf_counter(),
            context=contextvars.copy_context(),
        )
        self._jobs.append(job)
        self._dispatch()
        try:
            results = await job.future
        finally:
            if job in self._jobs:
                self._jobs.remove(job)
        return Outcome(results, job.started - job.submitted, job.compute)

    async def drain(self) -> None:
        """Wait until no run is under way."""
        while self._running:
            await asyncio.wait(self._running)

    def _dispatch(self) -> None:
        while self._jobs and len(self._running) < self._streams * self.replicas:
            picked = self._pick()
            # In the context of the request that made the run necessary, not of the one that happened to end before it.
            task = picked[0][0].context.run(asyncio.get_running_loop().create_task, self._execute(picked))
            self._running.add(task)
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._dispatch()

    def _pick(self) -> list[tuple[_Job[Row], int]]:
        """The next run: rows of the job that is furthest behind, then of others, as far as they pad little."""
        by_need = sorted(self._jobs, key=lambda job: job.virtual)
        first = by_need[0]
        self._virtual_now = max(self._virtual_now, first.virtual)
        run: _Run[Row] = _Run(first.widths[first.order[-1]], self._run_tokens, self._max_rows)
        for job in by_need:
            if job.outputs == first.outputs:
                job.virtual += run.take(job)
            if run.full:
                break
        self._virtual_now += len(run.picked) * run.width / len(by_need)
        self._jobs = [job for job in self._jobs if job.order]
        now = time.perf_counter()
        for job, _ in run.picked:
            job.started = job.started or now
        return run.picked

    async def _execute(self, picked: list[tuple[_Job[Row], int]]) -> None:
        begun = time.perf_counter()
        rows = [job.rows[row] for job, row in picked]
        jobs = list(dict.fromkeys(job for job, _ in picked))
        try:
            results = await self._run(rows, jobs[0].outputs)
        except Exception as error:  # handed to every request that had a row in this run
            for job in jobs:
                job.order.clear()
                if job in self._jobs:
                    self._jobs.remove(job)
                if not job.future.done():
                    job.future.set_exception(error)
            return
        seconds = time.perf_counter() - begun
        if self._observe:
            width = max(job.widths[row] for job, row in picked)
            tokens = sum(self._length(row) for row in rows)
            self._observe(RunRecord(len(picked), tokens, width * len(picked), seconds))
        for job in jobs:
            job.compute += seconds
        for (job, row), result in zip(picked, results, strict=True):
            job.results[row] = result
            job.left -= 1
            if not job.left and not job.future.done():
                job.future.set_result(job.results)
