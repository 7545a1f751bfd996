from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sie_frontend.rows import padded_width
from sie_frontend.serving.runs import PADDING_SHARE, RUN_OVERHEAD, RowFailure
from sie_frontend.serving.scheduler import RunQueue
from sie_frontend.watch.metrics import RunRecord

BUCKETS = (16, 32, 64, 128)


class Row(NamedTuple):
    """A number of a request, and its tokens."""

    request: str
    number: int
    tokens: int

    @property
    def cost(self) -> int:
        return self.tokens

    @property
    def shape_key(self) -> str | None:
        return None


@dataclass
class Device:
    """Computes rows, remembers every run and how many there were at once. `gate` holds all runs while it is clear."""

    poisoned: set[Row] = field(default_factory=set)
    runs: list[tuple[list[Row], tuple[str, ...]]] = field(default_factory=list)
    running: int = 0
    most: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, rows: Sequence[Row], outputs: tuple[str, ...]) -> list[object]:
        self.runs.append((list(rows), outputs))
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        await self.gate.wait()
        self.running -= 1
        if self.poisoned & set(rows):
            raise ValueError("poison")
        return [(row, outputs) for row in rows]


def queue(
    device: Device,
    *,
    run_tokens: int = 128,
    max_rows: int = 8,
    streams: int = 2,
    express: int = 0,
    ahead: int = 0,
    padding_cost: float | None = None,
) -> RunQueue[Row]:
    return RunQueue(
        device,
        widths=BUCKETS,
        run_tokens=run_tokens,
        max_rows=max_rows,
        streams=streams,
        express=express,
        ahead=ahead,
        padding_cost=padding_cost,
    )


def rows_of(request: str, lengths: Sequence[int]) -> list[Row]:
    return [Row(request, number, length) for number, length in enumerate(lengths)]


def check_runs(
    device: Device, *, run_tokens: int, max_rows: int, streams: int, padding_cost: float | None = None
) -> None:
    """What holds for every run, whatever was submitted."""
    assert device.most <= streams
    for rows, _ in device.runs:
        widths = [padded_width(length, BUCKETS) for _, _, length in rows]
        assert len(rows) <= max_rows
        # Padding costs less than its share of the tokens, or than a run of its own.
        price = 1 if padding_cost is None else min(1, padding_cost * max(widths))
        padding = price * (len(rows) * max(widths) - sum(widths))
        assert len(rows) == 1 or sum(widths) + padding <= run_tokens
        assert padding <= max(RUN_OVERHEAD, PADDING_SHARE * sum(widths))


@settings(max_examples=200)
@given(
    requests=st.lists(
        st.tuples(
            st.lists(st.integers(1, 128), min_size=1, max_size=20), st.sampled_from([("a",), ("b",), ("a", "b")])
        ),
        min_size=1,
        max_size=8,
    ),
    run_tokens=st.sampled_from([1, 16, 64, 128, 512]),
    max_rows=st.integers(1, 9),
    streams=st.integers(1, 4),
    express=st.integers(0, 2),
    ahead=st.integers(0, 2),
    padding_cost=st.sampled_from([None, 0.0016, 0.02]),
    yields=st.lists(st.integers(0, 3), min_size=8, max_size=8),
)
def test_every_row_is_computed_once_and_comes_back_in_order(
    requests: list[tuple[list[int], tuple[str, ...]]],
    run_tokens: int,
    max_rows: int,
    streams: int,
    express: int,
    ahead: int,
    padding_cost: float | None,
    yields: list[int],
) -> None:
    async def main() -> None:
        device = Device()
        device.gate.set()
        scheduler = queue(
            device,
            run_tokens=run_tokens,
            max_rows=max_rows,
            streams=streams,
            express=express,
            ahead=ahead,
            padding_cost=padding_cost,
        )

        async def submit(name: str, lengths: list[int], outputs: tuple[str, ...], wait: int) -> None:
            for _ in range(wait):
                await asyncio.sleep(0)
            rows = rows_of(name, lengths)
            outcome = await scheduler.submit(rows, outputs)
            assert outcome.results == [(row, outputs) for row in rows]
            assert outcome.queue_s >= 0
            assert outcome.compute_s >= 0

        await asyncio.gather(
            *(submit(f"r{i}", *request, yields[i]) for i, request in enumerate(requests)),
        )
        await scheduler.drain()
        computed = sorted(row for rows, _ in device.runs for row in rows)
        assert computed == sorted(row for i, (lengths, _) in enumerate(requests) for row in rows_of(f"r{i}", lengths))
        assert scheduler.pending_rows == 0
        at_once = streams + express + ahead
        check_runs(device, run_tokens=run_tokens, max_rows=max_rows, streams=at_once, padding_cost=padding_cost)
        for rows, outputs in device.runs:
            assert {requests[int(name[1:])][1] for name, _, _ in rows} == {outputs}

    asyncio.run(main())


def test_a_request_is_cut_longest_first() -> None:
    async def main() -> None:
        device = Device()
        device.gate.set()
        await queue(device, streams=1).submit(rows_of("r", [3, 128, 16, 100, 60, 17, 20, 5]), ("a",))
        assert [[length for _, _, length in rows] for rows, _ in device.runs] == [
            [128],
            [100],
            [60],
            [20, 17, 16],
            [5, 3],
        ]

    asyncio.run(main())


def test_rows_of_others_fill_the_room_that_is_left() -> None:
    async def main() -> None:
        device = Device()
        scheduler = queue(device, run_tokens=512, streams=1)
        tasks = [asyncio.create_task(scheduler.submit(rows_of(f"r{i}", [20]), ("a",))) for i in range(5)]
        await asyncio.sleep(0)
        device.gate.set()
        await asyncio.gather(*tasks)
        assert [len(rows) for rows, _ in device.runs] == [1, 4]  # the first went before the others were there

    asyncio.run(main())


def test_small_requests_spread_over_the_streams() -> None:
    async def main() -> None:
        device = Device()
        scheduler = queue(device, run_tokens=512, max_rows=64, streams=2)
        tasks = [asyncio.create_task(scheduler.submit(rows_of(f"r{i}", [16]), ("a",))) for i in range(32)]
        await asyncio.sleep(0)
        device.gate.set()
        await asyncio.gather(*tasks)
        # Two went alone. A third of all 32 is more than the quarter of a run that may always be taken.
        assert [len(rows) for rows, _ in device.runs] == [1, 1, 10, 10, 8, 2]

    asyncio.run(main())


def test_short_rows_do_not_ride_with_much_longer_ones() -> None:
    async def main() -> None:
        device = Device()
        scheduler = queue(device, run_tokens=512, streams=1)
        first = asyncio.create_task(scheduler.submit(rows_of("first", [1]), ("a",)))
        await asyncio.sleep(0)
        tasks = [asyncio.create_task(scheduler.submit(rows_of(n, [length]), ("a",))) for n, length in SIZES]
        await asyncio.sleep(0)
        device.gate.set()
        await asyncio.gather(first, *tasks)
        assert [{name for name, _, _ in rows} for rows, _ in device.runs] == [{"first"}, {"long"}, {"short"}, {"half"}]

    asyncio.run(main())


SIZES = (("long", 128), ("short", 3), ("half", 64))


def test_where_padding_costs_little_rows_of_many_lengths_share_a_run() -> None:
    async def main() -> None:
        device = Device()
        device.gate.set()
        # A position of padding in a row of 64 costs a tenth of a token: 48 of them less than a run of its own.
        await queue(device, streams=1, padding_cost=0.1 / 64).submit(rows_of("r", [64, 16, 16, 16, 16]), ("a",))
        assert [[length for _, _, length in rows] for rows, _ in device.runs] == [[64, 16, 16, 16], [16]]

    asyncio.run(main())


def test_other_outputs_never_share_a_run() -> None:
    async def main() -> None:
        device = Device()
        scheduler = queue(device, streams=1)
        tasks = [asyncio.create_task(scheduler.submit(rows_of(f"r{i}", [5, 5]), (f"{i % 2}",))) for i in range(4)]
        await asyncio.sleep(0)
        device.gate.set()
        await asyncio.gather(*tasks)
        for rows, outputs in device.runs:
            assert {f"{int(name[1:]) % 2}" for name, _, _ in rows} == {outputs[0]}

    asyncio.run(main())


def test_a_query_does_not_wait_behind_a_bulk_request() -> None:
    async def main() -> None:
        device = Device()
        scheduler = queue(device, run_tokens=128, streams=2)
        bulk = asyncio.create_task(scheduler.submit(rows_of("bulk", [128] * 100), ("a",)))
        await asyncio.sleep(0)
        query = asyncio.create_task(scheduler.submit(rows_of("query", [10]), ("a",)))
        await asyncio.sleep(0)
        assert not query.done()
        device.gate.set()
        await query
        # Two runs were under way when it arrived; at most one more per stream may have gone before it.
        place = next(i for i, (rows, _) in enumerate(device.runs) if rows[0][0] == "query")
        assert place <= 2 + 2
        assert not bulk.done()
        await bulk

    asyncio.run(main())


def test_a_bulk_request_is_not_starved_by_a_stream_of_queries() -> None:
    async def main() -> None:
        device = Device()
        device.gate.set()
        scheduler = queue(device, run_tokens=128, streams=1)
        bulk = asyncio.create_task(scheduler.submit(rows_of("bulk", [128] * 20), ("a",)))
        asked = 0

        async def ask() -> None:
            nonlocal asked
            while not bulk.done():
                asked += 1
                await scheduler.submit(rows_of(f"q{asked}", [128]), ("b",))

        askers = [asyncio.create_task(ask()) for _ in range(3)]
        await asyncio.wait_for(bulk, 60)
        await asyncio.gather(*askers)
        # Four compete for the stream: the bulk request gets about every fourth run, never fewer than every eighth.
        last = max(i for i, (rows, _) in enumerate(device.runs) if rows[0][0] == "bulk")
        assert last < 8 * 20

    asyncio.run(main())


def test_two_bulk_requests_share_alike() -> None:
    async def main() -> None:
        device = Device()
        scheduler = queue(device, run_tokens=128, streams=1)
        tasks = [asyncio.create_task(scheduler.submit(rows_of(name, [128] * 50), ("a",))) for name in ("one", "two")]
        await asyncio.sleep(0)
        device.gate.set()
        await asyncio.gather(*tasks)
        order = [rows[0][0] for rows, _ in device.runs]
        for end in range(10, 100, 10):
            assert abs(order[:end].count("one") - order[:end].count("two")) <= 2

    asyncio.run(main())


def test_leaving_early_withdraws_what_is_not_running() -> None:
    async def main() -> None:
        device = Device()
        scheduler = queue(device, run_tokens=128, streams=1)
        left = asyncio.create_task(scheduler.submit(rows_of("left", [128] * 5), ("a",)))
        stays = asyncio.create_task(scheduler.submit(rows_of("stays", [128]), ("a",)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        assert scheduler.pending_rows == 1
        device.gate.set()
        assert (await stays).results == [(("stays", 0, 128), ("a",))]
        await scheduler.drain()
        assert [row[0] for rows, _ in device.runs for row in rows] == ["left", "stays"]

    asyncio.run(main())


def test_a_failing_run_fails_its_own_requests_only() -> None:
    async def main() -> None:
        device = Device(poisoned={Row("bad", 1, 20)})
        scheduler = queue(device, run_tokens=64, streams=1)
        first = asyncio.create_task(scheduler.submit(rows_of("first", [64]), ("a",)))
        await asyncio.sleep(0)
        bad = asyncio.create_task(scheduler.submit(rows_of("bad", [128, 20, 10, 10, 10, 10, 10]), ("a",)))
        good = asyncio.create_task(scheduler.submit(rows_of("good", [64, 3]), ("a",)))
        await asyncio.sleep(0)
        device.gate.set()
        with pytest.raises(ValueError, match="poison"):
            await bad
        for name, task in (("first", first), ("good", good)):
            assert [row[0] for row, _ in (await task).results] == [name] * len(task.result().results)
        await scheduler.drain()
        assert scheduler.pending_rows == 0
        # What was still waiting of the failed request is not computed for nobody.
        assert sum(name == "bad" for rows, _ in device.runs for name, _, _ in rows) < 7

    asyncio.run(main())


def test_requests_that_share_a_failing_run_fail_together() -> None:
    async def main() -> None:
        device = Device(poisoned={Row("bad", 0, 20)})
        scheduler = queue(device, run_tokens=256, streams=1)
        first = asyncio.create_task(scheduler.submit(rows_of("first", [3]), ("x",)))
        await asyncio.sleep(0)
        pair = [asyncio.create_task(scheduler.submit(rows_of(name, [20]), ("a",))) for name in ("bad", "near")]
        await asyncio.sleep(0)
        device.gate.set()
        await first
        outcomes = await asyncio.gather(*pair, return_exceptions=True)
        assert [str(outcome) for outcome in outcomes] == ["poison", "poison"]

    asyncio.run(main())


def test_drain_waits_for_everything() -> None:
    async def main() -> None:
        device = Device()
        scheduler = queue(device, run_tokens=128, streams=2)
        task = asyncio.create_task(scheduler.submit(rows_of("r", [128] * 6), ("a",)))
        await asyncio.sleep(0)
        draining = asyncio.create_task(scheduler.drain())
        await asyncio.sleep(0.01)
        assert not draining.done()
        device.gate.set()
        await draining
        assert len(device.runs) == 6
        await task

    asyncio.run(main())


def test_runs_are_observed() -> None:
    async def main() -> None:
        records: list[RunRecord] = []
        device = Device()
        device.gate.set()
        scheduler: RunQueue[Row] = RunQueue(
            device,
            widths=BUCKETS,
            run_tokens=128,
            max_rows=8,
            streams=1,
            observe=records.append,
        )
        await scheduler.submit(rows_of("r", [40, 20, 3]), ("a",))
        assert [(r.rows, r.tokens, r.padded_tokens) for r in records] == [(1, 40, 64), (2, 23, 64)]
        assert all(record.seconds >= 0 for record in records)

    asyncio.run(main())


class Shaped(Row):
    """A row of another shape for each of its requests' letters."""

    @property
    def shape_key(self) -> str:
        return self.request


@pytest.mark.asyncio
async def test_rows_of_several_shapes_never_share_a_run() -> None:
    """One request has both; what comes back is in its order, and a failure names its number in the request."""
    device = Device()
    device.gate.set()
    scheduler: RunQueue[Row] = queue(device, run_tokens=1024)
    mixed = [Shaped("ab"[index % 2], index, 8) for index in range(6)]
    other = [Shaped("b", index, 8) for index in range(10, 13)]
    first, second = await asyncio.gather(scheduler.submit(mixed, ("x",)), scheduler.submit(other, ("x",)))
    assert [row for row, _ in first.results] == mixed
    assert [row for row, _ in second.results] == other
    assert {len({row.request for row in rows}) for rows, _ in device.runs} == {1}
    device.poisoned = {mixed[3]}
    divided: RunQueue[Row] = RunQueue(
        device, widths=BUCKETS, run_tokens=1024, max_rows=8, streams=2, divisible=lambda _: True
    )
    with pytest.raises(RowFailure) as caught:
        await divided.submit(mixed, ("x",))
    assert caught.value.row == 3
    assert divided.pending_rows == 0
