"""How long requests wait, in runs, on a simulated machine of two cores: what the scheduler promises."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from sie_frontend.serving.runs import RUN_OVERHEAD
from sie_frontend.serving.scheduler import QUIET_S, SMALL_SHARE, Quiet, RunQueue

from frontend.simulation import FULL_RUN, POSITION_S, RUN_TOKENS, Length, Machine, percentile, queue_of, simulate, timed

QUERY = 23
ALONE = RUN_OVERHEAD + QUERY


@dataclass(frozen=True)
class Beside:
    """Latencies of the queries in full runs, and the bulk requests' tokens computed per position of time."""

    queries: list[float]
    bulk_rate: float

    @property
    def p50(self) -> float:
        return percentile(self.queries, 50)

    @property
    def p95(self) -> float:
        return percentile(self.queries, 95)


async def beside(
    *,
    express: int,
    ahead: int = 0,
    streams: int = 2,
    cores: int = 2,
    bulk_clients: int = 4,
    query_clients: int = 1,
    queries: int = 200,
    pause: float = 700.0,
) -> Beside:
    """Closed-loop bulk clients with 64 texts of mixed lengths, beside clients that ask single short texts."""
    rng = random.Random(5)
    machine = Machine(cores=cores, instances=streams + express)
    queue = queue_of(machine, streams=streams, express=express, ahead=ahead)
    loop = asyncio.get_running_loop()
    bulk_tokens = 0

    async def send_bulk() -> None:
        nonlocal bulk_tokens
        while True:
            rows = [min(256, max(4, round(rng.lognormvariate(4.17, 0.76)))) for _ in range(64)]
            await timed(queue, rows)
            bulk_tokens += sum(rows)

    latencies: list[float] = []

    async def ask() -> None:
        while len(latencies) < queries:
            await asyncio.sleep(rng.uniform(0, 2 * pause) * POSITION_S)
            latencies.append(await timed(queue, [QUERY]) / FULL_RUN)

    bulk = [asyncio.create_task(send_bulk()) for _ in range(bulk_clients)]
    await asyncio.sleep(3000 * POSITION_S)
    begun, bulk_tokens = loop.time(), 0
    await asyncio.gather(*(ask() for _ in range(query_clients)))
    rate = bulk_tokens * POSITION_S / (loop.time() - begun)
    for task in bulk:
        task.cancel()
    await asyncio.gather(*bulk, return_exceptions=True)
    await queue.drain()
    return Beside(latencies, rate)


def test_with_a_spare_instance_a_query_never_waits_for_a_bulk_run() -> None:
    found = simulate(beside(express=1))
    # Three runs share two cores for as long as it takes: half as long again as alone, and nothing is waited for.
    assert max(found.queries) * FULL_RUN <= 1.5 * ALONE + 1


@pytest.mark.parametrize("clients", [2, 4, 8, 16])
def test_many_queries_wait_for_small_runs_only(clients: int) -> None:
    found = simulate(beside(express=1, query_clients=clients, queries=600))
    # One express run may be under way, and the own one: a quarter of a run at most, at two thirds of the speed.
    two_small_runs = 2 * 1.5 * (RUN_OVERHEAD + SMALL_SHARE * RUN_TOKENS) / FULL_RUN
    assert found.p50 <= two_small_runs / 2
    assert percentile(found.queries, 99) <= 1.5 * two_small_runs


def test_without_one_a_query_waits_for_the_end_of_a_quarter_of_a_run() -> None:
    found = simulate(beside(express=0, queries=1000))
    shortened = (RUN_OVERHEAD + SMALL_SHARE * RUN_TOKENS) / FULL_RUN
    # A text of 256 tokens cannot be cut, but of two streams the first to end counts.
    assert found.p50 <= shortened
    assert found.p95 <= 2 * shortened


def test_runs_sent_ahead_do_not_make_queries_wait() -> None:
    """While queries come nothing is sent ahead: only the first of them may find a run waiting before its own."""
    found, without = simulate(beside(express=0, ahead=1, queries=1000)), simulate(beside(express=0, queries=1000))
    assert found.p50 <= 1.1 * without.p50
    assert found.p95 <= 1.1 * without.p95


def test_a_query_to_one_model_ends_what_is_sent_ahead_to_another() -> None:
    """They share the cores."""

    async def main() -> list[int]:
        quiet, under_way = Quiet(), [0]

        async def run(rows: Sequence[Length], outputs: tuple[str, ...]) -> Sequence[Length]:
            under_way[0] += 1
            await asyncio.sleep(1)
            under_way[0] -= 1
            return rows

        def queue() -> RunQueue[Length]:
            return RunQueue(
                run, widths=range(1, 513), run_tokens=RUN_TOKENS, max_rows=64, streams=2, ahead=1, quiet=quiet
            )

        bulk = asyncio.create_task(queue().submit([Length(256)] * 200, ("dense",)))
        seen = []
        for pause in (0.5, 3.0, QUIET_S):
            await asyncio.sleep(pause)
            seen.append(under_way[0])
            if pause == 0.5:
                await queue().submit([Length(4)], ("dense",))
        bulk.cancel()
        return seen

    assert simulate(main()) == [3, 2, 3]


def test_bulk_keeps_its_speed_beside_queries() -> None:
    alone = simulate(beside(express=0, queries=3, pause=3 * QUIET_S / POSITION_S)).bulk_rate
    # The queries' own work is 43 of 700 positions of one of two cores.
    assert simulate(beside(express=1)).bulk_rate >= 0.93 * alone
    # Shorter runs start four times as often.
    assert simulate(beside(express=0)).bulk_rate >= 0.82 * alone


def test_runs_are_whole_again_when_no_queries_come() -> None:
    async def main() -> list[tuple[int, int]]:
        machine = Machine()
        queue = queue_of(machine)
        bulk = asyncio.create_task(timed(queue, [32] * 10_000))
        await asyncio.sleep(0.01)
        await timed(queue, [QUERY])
        await bulk
        return machine.run_lengths

    rows = [count for count, width in simulate(main()) if width == 32]
    assert rows[:2] == [16, 16]
    shortened = rows.index(16, 2) - 2
    assert set(rows[2 : 2 + shortened]) == {4}
    assert set(rows[2 + shortened :]) == {16}
    assert shortened == pytest.approx(2 * QUIET_S / POSITION_S / (RUN_OVERHEAD + SMALL_SHARE * RUN_TOKENS), rel=0.01)


# MiniLM's, 384 wide, when its graph is packed.
PACKED = 0.0016


@pytest.mark.parametrize("express", [0, 1])
@pytest.mark.parametrize("clients", [32, 128])
@pytest.mark.parametrize("padding_cost", [None, PACKED], ids=["padded", "packed"])
def test_many_queries_alone_share_runs(clients: int, express: int, padding_cost: float | None) -> None:
    async def main() -> tuple[list[float], float, int, list[tuple[int, int]]]:
        rng = random.Random(3)
        machine = Machine(instances=2 + express, padding_cost=padding_cost)
        queue = queue_of(machine, express=express)
        latencies: list[float] = []

        async def ask() -> None:
            for _ in range(20):
                latencies.append(await timed(queue, [round(rng.triangular(8, 42, 17))]))

        await asyncio.gather(*(ask() for _ in range(clients)))
        return latencies, asyncio.get_running_loop().time() / POSITION_S, machine.computed, machine.run_lengths

    latencies, took, tokens, runs = simulate(main())
    assert percentile(latencies, 99) <= 2.3 * percentile(latencies, 50)
    # Of what two cores can do: with 128 clients there are more rows of the same length to choose from.
    share = {32: 0.72, 128: 0.8} if padding_cost is None else {32: 0.83, 128: 0.9}
    assert tokens / took / 2 >= share[clients]
    assert sum(rows for rows, _ in runs) / len(runs) >= {32: 4, 128: 8}[clients]


def test_a_bulk_request_gets_its_share_beside_as_many_queries_as_the_machine_can_take() -> None:
    found = simulate(beside(express=1, bulk_clients=1, query_clients=32, queries=3000, pause=0.0))
    without = simulate(beside(express=0, bulk_clients=1, query_clients=32, queries=3000, pause=0.0))
    # One of 33 that never pause; of two cores.
    assert found.bulk_rate / 2 >= 1 / 33
    assert without.bulk_rate / 2 >= 1 / 33


def test_large_requests_wait_for_each_other_no_longer_than_they_must() -> None:
    async def main() -> dict[str, float]:
        queue = queue_of(Machine(instances=3), express=1)
        took: dict[str, float] = {}

        async def send(name: str, rows: list[int]) -> None:
            took[name] = await timed(queue, rows)

        await asyncio.gather(
            send("huge", [128] * 400), send("large", [128] * 8), send("other", [128] * 8), send("query", [QUERY])
        )
        return took

    took = simulate(main())
    # Three share two streams of four rows a run; the large ones need two runs each.
    assert took["query"] <= 1.5 * ALONE + FULL_RUN
    assert took["large"] <= 5 * FULL_RUN
    assert took["other"] <= 5 * FULL_RUN
    assert took["huge"] >= 50 * FULL_RUN
