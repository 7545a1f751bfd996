"""When a supervised server is started again, and when that is given up."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from benchmarks.waiting import eventually
from embedded.client import diagnostics, group_members, infer, regions, results
from embedded.graphs import DOUBLING_CONFIG
from sie_triton.embedded.ports import free_port, port_problem
from sie_triton.embedded.server import ServerSpec
from sie_triton.embedded.supervisor import RestartPolicy, State, Supervisor, Transition


class Recorder:
    """The transitions of a supervisor, in order."""

    def __init__(self) -> None:
        self.seen: list[Transition] = []

    def __call__(self, transition: Transition) -> None:
        self.seen.append(transition)

    @property
    def states(self) -> list[State]:
        return [transition.state for transition in self.seen]


@pytest.mark.e2e
def test_a_dead_server_is_started_again_however_often_it_ends(repository: Path, tmp_path: Path) -> None:
    small = repository / "double" / "configs"
    small.mkdir()
    (small / "small.pbtxt").write_text(DOUBLING_CONFIG.replace("max_batch_size: 8", "max_batch_size: 3"))
    port = free_port()
    spec = ServerSpec(repository, tmp_path / "triton.log", http_port=port, grpc_port=0, config_name="small")
    recorder = Recorder()
    # Only deaths before a server was ready count for the end: there are more of the others here.
    policy = RestartPolicy(first_delay=0.05, max_delay=0.1, restarts=2)
    supervisor = Supervisor(spec, on_change=recorder, policy=policy)
    supervisor.start()
    try:
        supervisor.wait_ready(30)
        assert supervisor.url == f"http://127.0.0.1:{port}"
        first = supervisor.server
        assert infer(supervisor.url, "double", {"x": ("FP32", [3, 1], [1, 2, 3])}).status_code == 200
        too_many = infer(supervisor.url, "double", {"x": ("FP32", [4, 1], [1, 2, 3, 4])})
        assert too_many.status_code == 400
        assert "'3'" in too_many.text or " 3" in too_many.text
        assert first.grpc_port
        assert port_problem(first.grpc_port, "gRPC")

        for times, delay in enumerate((0.05, 0.1, 0.1), start=1):
            server = supervisor.server
            assert server.pid
            os.kill(server.pid, signal.SIGKILL)
            assert eventually(lambda times=times: recorder.states.count(State.READY) == times + 1)  # type: ignore[misc]
            assert supervisor.server.pid != server.pid
            assert group_members(server.pid) == []
            assert regions(server.shm_prefix) == []
            waiting = [transition for transition in recorder.seen if transition.state is State.WAITING][-1]
            assert waiting.delay == delay
            assert waiting.diagnostic
            assert "was killed by signal 9" in waiting.diagnostic.message
        assert recorder.states == [State.STARTING, State.READY, *[State.WAITING, State.STARTING, State.READY] * 3]
        assert results(infer(supervisor.url, "double", {"x": ("FP32", [1, 1], [1])}))["y"] == ([1, 1], [2.0])

        # What cannot even start again is given up.
        (repository / "double" / "config.pbtxt").unlink()
        assert supervisor.server.pid
        os.kill(supervisor.server.pid, signal.SIGKILL)
        assert eventually(lambda: supervisor.state is State.FAILED)
        (diagnostic,) = diagnostics(supervisor.wait_ready)
        assert diagnostic.code == "SIE710"
        assert "ended 2 times in a row before it was ready" in diagnostic.message
        assert "holds no model" in diagnostic.message
    finally:
        supervisor.stop(1)
    assert supervisor.state is State.FAILED
    assert regions(supervisor.server.shm_prefix) == []
    assert (tmp_path / "triton.log.2").exists()


@pytest.mark.e2e
def test_a_supervised_server_is_stopped(spec: ServerSpec) -> None:
    recorder = Recorder()
    supervisor = Supervisor(spec, on_change=recorder)
    supervisor.start()
    supervisor.wait_ready(30)
    supervisor.stop(0)
    assert recorder.states == [State.STARTING, State.READY, State.STOPPED]
    assert group_members(supervisor.server.pid or 0) == []
    supervisor.stop()


def test_a_server_that_never_starts_is_not_tried_again(tmp_path: Path) -> None:
    recorder = Recorder()
    supervisor = Supervisor(ServerSpec(tmp_path / "nowhere", tmp_path / "triton.log"), on_change=recorder)
    supervisor.start()
    (diagnostic,) = diagnostics(lambda: supervisor.wait_ready(10))
    assert diagnostic.code == "SIE706"
    supervisor.stop()
    assert recorder.states == [State.STARTING, State.FAILED]


LOCKS = "terminate called after throwing an instance of 'boost::interprocess::lock_exception'\n"


def abort_starts(spec: ServerSpec, times: int, words: str = LOCKS) -> tuple[Recorder, Supervisor]:
    """Start a server, and let it abort `times` times before it is ready, with `words` in its log."""
    recorder = Recorder()
    supervisor = Supervisor(spec, on_change=recorder, policy=RestartPolicy(first_delay=0.05, starts=3))
    ended: list[int] = []
    supervisor.start()
    while len(ended) < times and supervisor.state in (State.STARTING, State.WAITING):
        pid = supervisor.server.pid
        if pid and pid not in ended:
            with spec.log_path.open("a") as log:
                log.write(words)
            os.kill(pid, signal.SIGABRT)
            ended.append(pid)
        time.sleep(0.005)
    assert len(set(ended)) == times
    return recorder, supervisor


@pytest.mark.e2e
def test_a_start_that_a_lock_ended_is_tried_again(spec: ServerSpec) -> None:
    recorder, supervisor = abort_starts(spec, 2)
    try:
        supervisor.wait_ready(120)
        assert infer(supervisor.url, "double", {"x": ("FP32", [1, 1], [1])}).status_code == 200
    finally:
        supervisor.stop(1)
    again = [State.STARTING, State.WAITING]
    assert recorder.states == [*again, *again, State.STARTING, State.READY, State.STOPPED]
    told = recorder.seen[1].diagnostic
    assert told
    assert told.code == "SIE715"
    assert "start 1 of at most 3" in told.message
    assert "lock_exception" in Path(f"{spec.log_path}.2").read_text()


@pytest.mark.e2e
def test_starts_that_locks_end_are_not_tried_for_ever(spec: ServerSpec) -> None:
    recorder, supervisor = abort_starts(spec, 3)
    (diagnostic,) = diagnostics(lambda: supervisor.wait_ready(30))
    supervisor.stop(1)
    assert diagnostic.code == "SIE715"
    assert "in 3 attempts" in diagnostic.message
    assert recorder.states == [
        State.STARTING,
        State.WAITING,
        State.STARTING,
        State.WAITING,
        State.STARTING,
        State.FAILED,
    ]
    assert regions(supervisor.server.shm_prefix) == []


@pytest.mark.e2e
def test_another_abort_during_the_start_is_final(spec: ServerSpec) -> None:
    recorder, supervisor = abort_starts(spec, 1, "terminate called after throwing an instance of 'std::bad_alloc'\n")
    (diagnostic,) = diagnostics(lambda: supervisor.wait_ready(30))
    supervisor.stop(1)
    assert diagnostic.code == "SIE708"
    assert recorder.states == [State.STARTING, State.FAILED]
