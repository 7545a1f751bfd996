"""Several runs at once in the one process of a model, on the real tritonserver."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from onnx import helper

from benchmarks.waiting import eventually
from embedded.client import group_members, infer, results, statistics, stub_of
from embedded.graphs import BOOL, INT64, add_model, graph, onnx_config
from embedded.started import started
from sie_triton.embedded.run_limit import RunLimit
from sie_triton.embedded.server import ServerSpec, TritonServer
from sie_triton.embedded.streams import Streams

LONG = 250_000  # iterations of an empty loop: most of a second on a machine with nothing else to do
IDS = '{ name: "x" data_type: TYPE_INT64 dims: [ 1 ] }'


def _counting() -> object:
    """`y = 2 x` after a loop of x rounds; a run with an x below -4 fails."""
    value, flag = helper.make_tensor_value_info, BOOL
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["on"]), helper.make_node("Add", ["sum", "step"], ["more"])],
        "body",
        [value("round", INT64, []), value("going", flag, []), value("sum", INT64, [])],
        [value("on", flag, []), value("more", INT64, [])],
    )
    return graph(
        [
            ("ReduceMax", ["x"], ["rounds"], {"keepdims": 0}),
            ("Loop", ["rounds", "", "step"], ["counted"], {"body": body}),
            ("Min", ["x", "last"], ["place"]),
            ("Gather", ["table", "place"], ["zero"]),
            ("Mul", ["counted", "zero"], ["nothing"]),
            ("Add", ["x", "x"], ["twice"]),
            ("Add", ["twice", "nothing"], ["y"]),
        ],
        [("x", INT64, ("b", 1))],
        [("y", INT64, ("b", 1))],
        {"step": np.asarray(1), "last": np.asarray([[3]]), "table": np.asarray([0, 0, 0, 0])},
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("streams")
    config = onnx_config(IDS, IDS.replace('"x"', '"y"'), "dynamic_batching { }")
    streams = 'parameters { key: "streams" value { string_value: "2" } }'
    alone = 'parameters { key: "alone_threads" value { string_value: "2" } }'
    for name in ("counting", "leaving"):
        add_model(folder / "repository", name, config.replace("count: 1", "count: 2"), _counting())
        named = folder / "repository" / name / "configs" / "embedded.pbtxt"
        named.parent.mkdir()
        named.write_text(config + streams + (alone if name == "leaving" else ""))
    with started(ServerSpec(folder / "repository", folder / "triton.log")) as running:
        yield running
        with ThreadPoolExecutor(1) as threads:  # what is under way when the server is told to end is answered
            late = begin_long(running, threads)
            running.stop(10)
            assert results(late.result())["y"] == ([1, 1], [2 * LONG])


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def ask(server: TritonServer, x: int, model: str = "counting") -> httpx.Response:
    return infer(server.url, model, {"x": ("INT64", [1, 1], [x])})


def executions(server: TritonServer, model: str = "counting") -> int:
    return int(statistics(server.url, model)["execution_count"])


def pending(server: TritonServer) -> int:
    """Requests that wait in tritonserver's queue."""
    lines = httpx.get(server.metrics_url, timeout=60).text.splitlines()
    (line,) = (one for one in lines if one.startswith('nv_inference_pending_request_count{model="counting"'))
    return int(line.split()[-1])


def begin_long(
    server: TritonServer, pool: ThreadPoolExecutor, model: str = "counting", x: int = LONG
) -> Future[httpx.Response]:
    """A run that a stream has begun."""
    before = executions(server, model)
    long = pool.submit(ask, server, x, model)
    assert eventually(lambda: executions(server, model) > before)
    return long


def two_threads_compute(pid: int) -> bool:
    """Whether two threads of a process take processor time."""

    def spent() -> dict[str, int]:
        fields = {task.name: (task / "stat").read_text().rpartition(")")[2].split() for task in tasks}
        return {name: int(found[11]) + int(found[12]) for name, found in fields.items()}

    tasks = list(Path(f"/proc/{pid}/task").iterdir())
    before = spent()
    time.sleep(0.05)
    return sum(spent()[name] > ticks for name, ticks in before.items()) >= 2


def test_a_model_is_one_process_whatever_its_streams(server: TritonServer) -> None:
    assert server.pid is not None
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in group_members(server.pid)]
    assert sum(b"/counting/" in command for command in commands) == 1


def test_a_short_run_does_not_wait_for_a_long_one(server: TritonServer, pool: ThreadPoolExecutor) -> None:
    """On a machine that is busy a run may end before anybody could ask again, so it is made longer until one does."""

    def overtaken(length: int) -> bool:
        long = begin_long(server, pool, x=length)
        assert results(ask(server, 3))["y"] == ([1, 1], [6])
        under_way = not long.done()
        assert results(long.result())["y"] == ([1, 1], [2 * length])
        return under_way

    assert any(overtaken(LONG * times) for times in (1, 4, 16))


def test_what_cannot_be_computed_yet_waits_in_tritons_queue_and_is_merged(
    server: TritonServer, pool: ThreadPoolExecutor
) -> None:
    first, before = begin_long(server, pool, x=2 * LONG), executions(server)
    second = pool.submit(ask, server, 2 * LONG)
    assert server.pid is not None
    assert eventually(partial(two_threads_compute, stub_of(server.pid, "counting")))
    waiting = [pool.submit(ask, server, x) for x in (1, 2, 3)]

    def over() -> bool:
        return first.done() or second.done()

    assert eventually(lambda: pending(server) == 3 or executions(server) > before or over())
    counted = executions(server)
    merged = 3 if over() else 1  # a machine that is too busy does not send three requests in a second
    # The second holds tritonserver up until a stream is free, and is counted then.
    assert counted == before or over()
    assert [results(one.result())["y"][1] for one in waiting] == [[2], [4], [6]]
    assert results(first.result())["y"] == results(second.result())["y"] == ([1, 1], [4 * LONG])
    assert executions(server) <= before + 1 + merged


def test_a_run_that_fails_answers_its_own_request_only(server: TritonServer, pool: ThreadPoolExecutor) -> None:
    long = begin_long(server, pool)
    bad = ask(server, -100)
    assert bad.status_code == 500 and "model `counting` failed on `x` int64[1, 1]" in bad.json()["error"]
    assert results(ask(server, 2))["y"] == ([1, 1], [4])
    assert results(long.result())["y"] == ([1, 1], [2 * LONG])


def test_what_is_under_way_is_answered_before_a_model_leaves(server: TritonServer, pool: ThreadPoolExecutor) -> None:
    runs = [begin_long(server, pool, "leaving", 2 * LONG), pool.submit(ask, server, 2 * LONG, "leaving")]
    time.sleep(0.5)  # the second has reached the server by then
    assert httpx.post(f"{server.url}/v2/repository/models/leaving/unload", timeout=30).status_code == 200
    assert [results(one.result())["y"] for one in runs] == [([1, 1], [4 * LONG])] * 2
    assert eventually(lambda: ask(server, 1, "leaving").status_code == 404)
    assert httpx.post(f"{server.url}/v2/repository/models/leaving/load", timeout=30).status_code == 200
    assert results(ask(server, 1, "leaving"))["y"] == ([1, 1], [2])


def test_triton_counts_each_request_and_execution_once(server: TritonServer) -> None:
    """It counts when a run is taken over: one that fails afterwards is among the successes, and durations end there."""
    before = statistics(server.url, "counting")
    for x in (1, -100, 2):
        ask(server, x)
    after = statistics(server.url, "counting")
    assert after["execution_count"] - before["execution_count"] == 3
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"] == 3


def test_whoever_submits_waits_for_a_free_stream() -> None:
    streams, gates = Streams(2, "p"), [threading.Event() for _ in range(3)]
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        gates[number].wait()

    streams.submit(lambda: work(0))
    second = threading.Thread(target=streams.submit, args=(lambda: work(1),))
    second.start()
    assert eventually(lambda: len(begun) == 2)
    second.join(0.1)
    assert second.is_alive() and streams.busy == 2
    gates[0].set()
    second.join(60)
    assert not second.is_alive()
    gates[1].set()
    gates[2].set()
    streams.submit(lambda: work(2))
    streams.close()
    assert begun == [0, 1, 2] and streams.busy == 0


def test_a_stream_survives_what_its_work_raises() -> None:
    streams, done = Streams(2, "p"), list[int]()

    def work(number: int) -> None:
        done.append(number)
        raise KeyboardInterrupt(number) if number % 2 else ValueError(number)

    for number in range(6):
        streams.submit(partial(work, number))
    streams.close()
    assert sorted(done) == list(range(6)) and streams.busy == 0


def test_streams_that_cannot_begin_are_told_and_leave_no_thread() -> None:
    numbers = itertools.count()

    def begin() -> None:
        if next(numbers) == 1:
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        Streams(3, "unbegun", begin)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("unbegun")]


def test_of_many_runs_the_longest_is_watched() -> None:
    given_up = threading.Event()
    limit = RunLimit("p", 0.4, lambda _: given_up.set())
    over = threading.Event()

    def run() -> None:
        with limit.run():
            over.wait(60)

    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(8):
        with limit.run():
            time.sleep(0.02)
    assert given_up.wait(60)
    over.set()
    thread.join()
