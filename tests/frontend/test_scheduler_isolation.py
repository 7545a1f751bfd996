"""A run that fails for one of its rows: who gets what, and how many further runs it costs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sie_frontend.serving.runs import RowFailure
from sie_frontend.serving.scheduler import RunQueue


class Indivisible(Exception):
    """Fails everybody."""


class Number(int):
    """A row that costs one position."""

    @property
    def cost(self) -> int:
        return 1

    @property
    def shape_key(self) -> None:
        return None


@dataclass
class Machine:
    """Computes numbers; odd hundreds are poison, by an exception or by a result that is one."""

    poisoned: frozenset[int]
    raises: type[Exception] | None = ValueError
    runs: list[list[int]] = field(default_factory=list)

    async def __call__(self, rows: Sequence[int], outputs: tuple[str, ...]) -> list[object]:
        self.runs.append(list(rows))
        await asyncio.sleep(0)
        if self.raises and self.poisoned & set(rows):
            raise self.raises("poison")
        return [ArithmeticError("poison") if row in self.poisoned else -row for row in rows]


async def outcomes(machine: Machine, requests: Sequence[Sequence[int]], max_rows: int = 64) -> list[object]:
    """What each request got: its results or what was raised. The first run is a blocker, so that the others share."""
    queue: RunQueue[Number] = RunQueue(
        machine,
        widths=range(1, 2),
        run_tokens=1024,
        max_rows=max_rows,
        streams=1,
        divisible=lambda error: not isinstance(error, Indivisible),
    )
    blocker = asyncio.create_task(queue.submit([Number(0)], ("a",)))
    await asyncio.sleep(0)
    tasks = [asyncio.create_task(queue.submit(list(map(Number, rows)), ("a",))) for rows in requests]
    await blocker
    got = await asyncio.gather(*tasks, return_exceptions=True)
    await queue.drain()
    assert queue.pending_rows == 0
    return [entry if isinstance(entry, BaseException) else entry.results for entry in got]


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=20),
    picks=st.sets(st.integers(0, 179), max_size=12),
    by_exception=st.booleans(),
    max_rows=st.sampled_from([1, 2, 7, 64]),
)
def test_only_requests_with_poison_fail_and_the_row_is_named(
    sizes: list[int], picks: set[int], by_exception: bool, max_rows: int
) -> None:
    requests = [[100 * number + row + 1 for row in range(size)] for number, size in enumerate(sizes)]
    rows = [row for request in requests for row in request]
    machine = Machine(frozenset(rows[pick] for pick in picks if pick < len(rows)), ValueError if by_exception else None)
    for request, got in zip(requests, asyncio.run(outcomes(machine, requests, max_rows)), strict=True):
        if machine.poisoned & set(request):
            assert isinstance(got, RowFailure)
            assert request[got.row] in machine.poisoned
            assert isinstance(got.cause, ValueError if by_exception else ArithmeticError)
        else:
            assert got == [-row for row in request]
    assert len(machine.runs) <= 1 + 2 * len(rows)


def test_one_bad_row_of_many_costs_the_logarithm() -> None:
    machine = Machine(frozenset({37}))
    got = asyncio.run(outcomes(machine, [[row] for row in range(1, 65)]))
    assert sum(isinstance(entry, RowFailure) for entry in got) == 1
    assert len(machine.runs) == 2 + 2 * math.log2(64)


def test_the_other_rows_of_a_bad_request_are_not_tried() -> None:
    machine = Machine(frozenset(range(1, 65)))
    [got] = asyncio.run(outcomes(machine, [list(range(1, 65))]))
    assert isinstance(got, RowFailure)
    assert len(machine.runs) == 2 + math.log2(64)


def test_what_is_nobodys_fault_is_not_repeated() -> None:
    machine = Machine(frozenset({3}), Indivisible)
    got = asyncio.run(outcomes(machine, [[1], [2], [3]]))
    assert [type(entry) for entry in got] == [Indivisible] * 3
    assert len(machine.runs) == 2


@pytest.mark.parametrize("poison", [1, 2])
def test_a_run_that_fails_once_fails_nobody(poison: int) -> None:
    class Moody(Machine):
        async def __call__(self, rows: Sequence[int], outputs: tuple[str, ...]) -> list[object]:
            self.runs.append(list(rows))
            if len(self.runs) == 2:
                raise ValueError("now and then")
            return [-row for row in rows]

    assert asyncio.run(outcomes(Moody(frozenset()), [[1], [2]])) == [[-1], [-2]]
