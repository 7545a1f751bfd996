"""Cuts requests into short runs and shares the streams fairly: no query waits behind a whole bulk request.

Every run costs at most what `run_tokens` tokens do, because a batch should fit the device's fast memory. A request's
rows go longest first, so that rows of one run have about the same length; room that is left is filled with rows of
other requests, so that concurrent requests share a run. Where a model computes padding like tokens, a run of rows of
different lengths is a waste; where it computes little of it, rows of many lengths may share one.

Fairness is fair queueing by virtual time (Demers, Keshav and Shenker, 1989): a request starts at the present virtual
time, each run adds its tokens to the request's own, and the request whose next run would end first in virtual time goes
next. So a query passes a bulk request, whose next run is a whole one; and nobody starves, since virtual time moves on
with the work done and those who come later start later.

A request is small if all its rows cost at most `SMALL_SHARE` of a run. Small ones are served in the order in which they
came and share runs with each other, never with large ones, which would make them wait for a run's worth of somebody
else's rows. That leaves the runs that are under way, and two ways not to wait for them:

- *Express.* Where the model has instances to spare, `express` runs of small requests may be under way beside the
  `streams` runs for anybody. They hold a quarter of a run at most, so that the next small request soon has its turn.
- *Shorter runs.* Where it has none, large runs shrink to `SMALL_SHARE` for as long as small requests come, and
  `QUIET_S` longer. A query then waits for the end of a quarter of a run.

In the quiet between them a run is sent ahead: an instance that had to ask for its next one would wait for it.

Rows of many requests share a run, and none may suffer from another's. A run that fails for what is in it is repeated by
halves until the row is alone that fails; the other rows of its request are left out from then on, so that `n` rows cost
at most `2 n` further runs, and a run with one bad row about `2 log n`.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Generic, TypeAlias

from sie_frontend.rows import AnyRow, padded_width
from sie_frontend.serving.runs import Job, Outcome, Place, RowFailure, Run
from sie_frontend.serving.together import together
from sie_frontend.watch.metrics import RunRecord

# Four runs of a quarter cost 11 % more than one, by the same measure, and end a wait after a quarter of the time.
SMALL_SHARE = 0.25
QUIET_S = 10.0

RunFunction: TypeAlias = "Callable[[Sequence[AnyRow], tuple[str, ...]], Awaitable[Sequence[Any]]]"


class Quiet:
    """Whether no small request has come for a while, to any of the queues that share a machine."""

    def __init__(self) -> None:
        self._last = -math.inf

    def end(self) -> None:
        """A small request has come."""
        self._last = asyncio.get_running_loop().time()

    def __bool__(self) -> bool:
        return asyncio.get_running_loop().time() - self._last > QUIET_S


class _Lane(IntEnum):
    """What a run under way counts against."""

    STREAM = 0
    EXPRESS = 1


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """What a run under way counts against, its tokens, and how many of them are small requests'."""

    lane: _Lane
    tokens: int
    small_tokens: int


class RunQueue(Generic[AnyRow]):
    """The rows waiting for one Triton model, and the runs that are under way.

    At most `streams` runs at once and replica are for anybody, `express` more for small requests. `ahead` further ones
    are sent while there is `quiet`, which the queues of one machine share, so that an instance finds its next run
    waiting; a query that ends the quiet waits. `replicas`, how many Tritons share the runs, may be changed at any time.

    `run(rows, outputs)` computes named outputs of rows and returns one result per row, or the exception that is this
    row's own. What it raises fails all its rows, unless `divisible` says that a smaller run may fare better.

    `widths` are the costs that rows are padded to. A padded position costs `padding_cost` of a token for each position
    of its row, and never more than a token.
    """

    def __init__(
        self,
        run: RunFunction[AnyRow],
        *,
        widths: Sequence[int],
        run_tokens: int,
        max_rows: int,
        streams: int,
        express: int = 0,
        padding_cost: float | None = None,
        ahead: int = 0,
        quiet: Quiet | None = None,
        observe: Callable[[RunRecord], None] | None = None,
        divisible: Callable[[Exception], bool] = lambda _: False,
    ) -> None:
        self._run = run
        self._widths = widths
        self._run_tokens = run_tokens
        self._small_tokens = max(1, int(run_tokens * SMALL_SHARE))
        self._max_rows = max_rows
        self.replicas = 1
        self._streams = streams
        self._express = express
        self._padding_cost = 1.0 if padding_cost is None else padding_cost
        self._ahead = ahead
        self._quiet = Quiet() if quiet is None else quiet
        self._observe = observe
        self._divisible = divisible
        self._jobs: dict[Job[AnyRow], None] = {}
        self._virtual_now = 0.0
        self._running: dict[asyncio.Task[None], _UnderWay] = {}
        self._under_way = [0] * len(_Lane)

    @property
    def pending_rows(self) -> int:
        """Rows that wait for a run."""
        return sum(len(job.order) for job in self._jobs)

    @property
    def waiting_tokens(self) -> int:
        """Their tokens."""
        return sum(job.tokens for job in self._jobs)

    @property
    def running_tokens(self) -> int:
        """Tokens of the runs under way."""
        return sum(run.tokens for run in self._running.values())

    async def submit(self, rows: Sequence[AnyRow], outputs: tuple[str, ...]) -> Outcome:
        """Compute every row. Leaving early (cancellation) withdraws what is not running.

        Raises what the run raised, as `RowFailure` where it is known whose it is.
        """
        places: dict[Hashable, list[int]] = {}
        for index, row in enumerate(rows):
            places.setdefault(row.shape_key, []).append(index)
        if len(places) <= 1:
            return await self._submit_alike(rows, outputs)
        groups = list(places.values())
        outcomes = await together(self._submit_group(rows, group, outputs) for group in groups)
        results: list[Any] = [None] * len(rows)
        for group, outcome in zip(groups, outcomes, strict=True):
            for index, result in zip(group, outcome.results, strict=True):
                results[index] = result
        # The slowest shape's times are the request's.
        return Outcome(results, max(o.queue_s for o in outcomes), max(o.compute_s for o in outcomes))

    async def _submit_group(self, rows: Sequence[AnyRow], group: Sequence[int], outputs: tuple[str, ...]) -> Outcome:
        """The rows of these numbers, which are of one shape; a failure names the request's number."""
        try:
            return await self._submit_alike([rows[index] for index in group], outputs)
        except RowFailure as failure:
            raise RowFailure(group[failure.row], failure.cause) from failure

    async def _submit_alike(self, rows: Sequence[AnyRow], outputs: tuple[str, ...]) -> Outcome:
        loop = asyncio.get_running_loop()
        costs = [row.cost for row in rows]
        widths = [padded_width(cost, self._widths) for cost in costs]
        job: Job[AnyRow] = Job(
            outputs=outputs,
            key=rows[0].shape_key if rows else None,
            rows=rows,
            widths=widths,
            order=sorted(range(len(rows)), key=costs.__getitem__),
            tokens=sum(widths),
            small=len(rows) <= self._max_rows and len(rows) * max(widths, default=0) <= self._small_tokens,
            virtual=self._virtual_now,
            future=loop.create_future(),
            results=[None] * len(rows),
            left=len(rows),
            submitted=time.perf_counter(),
            context=contextvars.copy_context(),
        )
        if job.small:
            self._quiet.end()
        self._jobs[job] = None
        self._dispatch()
        try:
            results = await job.future
        finally:
            self._jobs.pop(job, None)
        return Outcome(results, job.started - job.submitted, job.compute)

    async def drain(self) -> None:
        """Wait until no run is under way."""
        while self._running:
            await asyncio.wait(list(self._running))

    def _dispatch(self) -> None:
        while self._jobs:
            ahead = self._ahead if self._quiet else 0
            if self._under_way[_Lane.STREAM] < (self._streams + ahead) * self.replicas:
                first = min(self._jobs, key=self._virtual_end)
                lane, room = _Lane.STREAM, self._room_for(first)
            elif self._under_way[_Lane.EXPRESS] < self._express * self.replicas:
                small = [job for job in self._jobs if job.small]
                if not small:
                    return
                first = min(small, key=self._virtual_end)
                lane, room = _Lane.EXPRESS, self._small_tokens
            else:
                return
            picked = self._pick(first, room)
            # In the context of the request that made the run necessary, not of the one that happened to end before it.
            task = first.context.run(asyncio.get_running_loop().create_task, self._execute(picked))
            tokens = sum(job.widths[row] for job, row in picked)
            self._running[task] = _UnderWay(lane, tokens, tokens if first.small else 0)
            self._under_way[lane] += 1
            task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._under_way[self._running.pop(task).lane] -= 1
        self._dispatch()

    def _virtual_end(self, job: Job[AnyRow]) -> float:
        """When the next run of a request would end, in virtual time; a small one's takes none, so first comes first."""
        return job.virtual if job.small else job.virtual + min(job.tokens, self._run_tokens)

    def _room_for(self, first: Job[AnyRow]) -> int:
        """How many tokens a run led by `first` may hold in a stream."""
        if first.small:
            return max(self._small_tokens, min(self._run_tokens, self._even_share()))
        return self._run_tokens if self._express or self._quiet else self._small_tokens

    def _even_share(self) -> int:
        """The tokens of all small requests, spread over the runs that may be under way and one that waits.

        If runs took all that waits, one would go on with most of the requests and the others with what is left.
        """
        tokens = sum(job.tokens for job in self._jobs if job.small)
        tokens += sum(run.small_tokens for run in self._running.values())
        return math.ceil(tokens / ((self._streams + self._express) * self.replicas + 1))

    def _pick(self, first: Job[AnyRow], room: int) -> list[Place[AnyRow]]:
        """The next run: rows of `first`, then of others of its kind, as far as they pad little."""
        self._virtual_now = max(self._virtual_now, first.virtual)
        sharing = len(self._jobs)
        width = first.widths[first.order[-1]]
        run: Run[AnyRow] = Run(width, room, self._max_rows, min(1.0, self._padding_cost * width))
        first.virtual += run.take(first)
        alike = (first.small, first.outputs, first.key)
        others = [j for j in self._jobs if j is not first and (j.small, j.outputs, j.key) == alike]
        for job in sorted(others, key=self._virtual_end):
            if run.full:
                break
            job.virtual += run.take(job)
        self._virtual_now += run.cost / sharing
        now = time.perf_counter()
        for job in dict.fromkeys(job for job, _ in run.picked):
            job.started = job.started or now
            if not job.order:
                del self._jobs[job]
        return run.picked

    async def _execute(self, picked: list[Place[AnyRow]]) -> None:
        begun = time.perf_counter()
        failures: dict[Job[AnyRow], Exception] = {}
        results = await self._compute(picked, failures)
        for job, error in failures.items():
            self._fail(job, error)
        if len(failures) == len({job for job, _ in picked}):
            return
        seconds = time.perf_counter() - begun
        if self._observe:
            width = max(job.widths[row] for job, row in picked)
            tokens = sum(job.rows[row].cost for job, row in picked)
            self._observe(RunRecord(len(picked), tokens, width * len(picked), seconds))
        for job in {job for job, _ in picked}:
            job.compute += seconds
        for (job, row), result in results:
            job.results[row] = result
            job.left -= 1
            if not job.left and not job.future.done():
                job.future.set_result(job.results)

    def _fail(self, job: Job[AnyRow], error: Exception) -> None:
        job.order.clear()
        self._jobs.pop(job, None)
        if not job.future.done():
            job.future.set_exception(error)

    async def _compute(
        self, picked: Sequence[Place[AnyRow]], failures: dict[Job[AnyRow], Exception]
    ) -> list[tuple[Place[AnyRow], Any]]:
        """What rows gave, by halves if the run fails for one of them; `failures` gains the requests that must fail."""
        picked = [place for place in picked if place[0] not in failures and not place[0].future.done()]
        if not picked:
            return []
        try:
            results = await self._run([job.rows[row] for job, row in picked], picked[0][0].outputs)
        except Exception as error:  # handed to every request that it concerns
            if not self._divisible(error):
                failures.update({job: error for job, _ in picked})
                return []
            if len(picked) == 1:
                [(job, row)] = picked
                failures[job] = RowFailure(row, error)
                return []
            half = len(picked) // 2
            return [
                *await self._compute(picked[:half], failures),
                *await self._compute(picked[half:], failures),
            ]
        computed = []
        for (job, row), result in zip(picked, results, strict=True):
            if isinstance(result, Exception):
                failures.setdefault(job, RowFailure(row, result))
            else:
                computed.append(((job, row), result))
        return computed
