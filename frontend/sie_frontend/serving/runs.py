"""One request's rows that wait, and the rows that are gathered for one run."""

from __future__ import annotations

import asyncio
import bisect
import contextvars
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias

from sie_frontend.rows import AnyRow

# Rows join a run as long as its padding stays below this share of its tokens, or below what a run of its own costs:
# measured on MiniLM with one thread, starting a run takes as long as computing about 20 positions.
PADDING_SHARE = 0.12
RUN_OVERHEAD = 20


@dataclass(slots=True, eq=False)
class Job(Generic[AnyRow]):
    """One request's rows of one shape for one set of outputs.

    `widths` are what the rows are padded to, and `key` is what the rows of one run have in common. `order` holds the
    numbers of the rows that wait, the longest last, where they are popped; `tokens` is their length.
    """

    outputs: tuple[str, ...]
    key: Hashable
    rows: Sequence[AnyRow]
    widths: Sequence[int]
    order: list[int]
    tokens: int
    small: bool
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


class RowFailure(Exception):
    """The row of a number, counted in its own request, cannot be computed; `cause` says why."""

    def __init__(self, row: int, cause: Exception) -> None:
        super().__init__(f"row {row}: {cause}")
        self.row = row
        self.cause = cause


Place: TypeAlias = "tuple[Job[AnyRow], int]"


class Run(Generic[AnyRow]):
    """Rows gathered for one run, all padded to `width`; what they cost is told in tokens."""

    def __init__(self, width: int, run_tokens: int, max_rows: int, padding_price: float) -> None:
        self.width = width
        self.picked: list[Place[AnyRow]] = []
        self._run_tokens = run_tokens
        self._max_rows = max_rows
        self._padding_price = padding_price
        self._tokens = 0

    @property
    def full(self) -> bool:
        """Whether no further row fits."""
        return len(self.picked) >= self._max_rows or self.cost + 1 > self._run_tokens

    @property
    def cost(self) -> float:
        """Its tokens and what its padding costs."""
        return self._tokens + self._padding_price * (len(self.picked) * self.width - self._tokens)

    def take(self, job: Job[AnyRow]) -> float:
        """Move rows of `job` here, the longest that fit first; returns what they cost."""
        before = self.cost
        # `order` ascends by width: everything from here on is too wide for this run.
        start = bisect.bisect_right(job.order, self.width, key=job.widths.__getitem__)
        end = start
        while end and len(self.picked) < self._max_rows and self._worth(job.widths[job.order[end - 1]]):
            end -= 1
            row = job.order[end]
            self.picked.append((job, row))
            self._tokens += job.widths[row]
            job.tokens -= job.widths[row]
        del job.order[end:start]
        return self.cost - before

    def _worth(self, width: int) -> bool:
        """Whether one more row of `width` fits and its padding costs little; the first one always goes."""
        tokens = self._tokens + width
        padding = self._padding_price * ((len(self.picked) + 1) * self.width - tokens)
        fits = not self.picked or tokens + padding <= self._run_tokens
        return fits and padding <= max(RUN_OVERHEAD, PADDING_SHARE * tokens)
