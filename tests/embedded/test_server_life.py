"""The real server's beginning and end: what it says when it fails, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from embedded.client import eventually, group_members, infer, regions, results, stub_of
from embedded.graphs import DOUBLING_CONFIG, FLOAT, add_model, doubling, graph, onnx_config
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.embedded import warden
from sie_triton.embedded.installation import find_installation
from sie_triton.embedded.ports import free_port, listener, port_problem
from sie_triton.embedded.server import ServerSpec, TritonServer, _environment
from sie_triton.embedded.supervisor import RestartPolicy, State, Supervisor, Transition

SCRATCH = "sie-triton-*"


def diagnostics(action: Callable[[], object]) -> list[Diagnostic]:
    with pytest.raises(DiagnosticError) as caught:
        action()
    return list(caught.value.diagnostics)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    add_model(tmp_path / "repository", "double", DOUBLING_CONFIG, doubling())
    return tmp_path / "repository"


@pytest.fixture
def spec(repository: Path, tmp_path: Path) -> ServerSpec:
    return ServerSpec(repository, tmp_path / "triton.log")


def test_a_port_in_use_is_told_with_its_holder(spec: ServerSpec) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        busy = ServerSpec(spec.repository, spec.log_path, http_port=port)
        (diagnostic,) = diagnostics(TritonServer(busy).start)
        assert diagnostic.code == "SIE705"
        assert f"port {port} (HTTP)" in diagnostic.message
        assert f"process {os.getpid()} (`" in diagnostic.message
    assert listener(port) is None
    assert port_problem(port, "HTTP") is None


def test_a_privileged_port_is_told(spec: ServerSpec) -> None:
    if Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text().strip() == "0" or os.geteuid() == 0:
        pytest.skip("every port may be bound here")
    problem = port_problem(80, "HTTP")
    assert problem is not None
    assert "permission denied" in problem.message


@pytest.mark.parametrize("models", [(), ("double", "absent")])
def test_a_repository_without_the_models_is_told(tmp_path: Path, spec: ServerSpec, models: tuple[str, ...]) -> None:
    folder = spec.repository if models else tmp_path / "empty"
    folder.mkdir(exist_ok=True)
    (diagnostic,) = diagnostics(TritonServer(ServerSpec(folder, spec.log_path, models=models)).start)
    assert diagnostic.code == "SIE706"
    assert "has no model `absent`" in diagnostic.message or "holds no model" in diagnostic.message
    (diagnostic,) = diagnostics(TritonServer(ServerSpec(tmp_path / "nowhere", spec.log_path)).start)
    assert "is not a folder" in diagnostic.message


@pytest.mark.e2e
def test_models_that_cannot_be_served_are_refused_with_every_reason(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    two = graph(
        [("Add", ["x", "extra"], ["y"])],
        [("x", FLOAT, ("b", "n")), ("extra", FLOAT, ("b", "n"))],
        [("y", FLOAT, ("b", "n"))],
    )
    wide = '{ name: "y" data_type: TYPE_FP32 dims: [ 384 ] }'
    threads = 'parameters { key: "intra_op_thread_count" value { string_value: "all" } }'
    add_model(repository, "unlisted", DOUBLING_CONFIG, two)
    add_model(repository, "modern", DOUBLING_CONFIG, doubling(ir_version=11, opset=22))
    add_model(repository, "symbolic", onnx_config('{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }', wide), doubling())
    add_model(repository, "threads", DOUBLING_CONFIG + threads, doubling())
    add_model(repository, "garbage", DOUBLING_CONFIG, b"this is no model")
    add_model(repository, "absent", DOUBLING_CONFIG)
    add_model(repository, "gpu", DOUBLING_CONFIG.replace("KIND_CPU", "KIND_GPU"), doubling())
    add_model(repository, "good", DOUBLING_CONFIG, doubling())
    server = TritonServer(ServerSpec(repository, tmp_path / "triton.log"))
    server.start()
    (diagnostic,) = diagnostics(server.wait_ready)
    assert diagnostic.code == "SIE708"
    assert "ended with status 1" in diagnostic.message
    for words in (
        "the graph's inputs `extra` are not in the configuration",
        "IR version 11",
        "opset 22",
        "output `y` has shape [-1, 384] in the configuration (with the batch), [-1, -1] in the graph",
        "parameter `intra_op_thread_count` is `all`",
        "model.onnx` is cut short or is no ONNX model",
        "unable to find `",
        "KIND_GPU",
    ):
        assert words in diagnostic.message, diagnostic.message
    assert "'good'" not in diagnostic.message
    assert str(tmp_path / "triton.log") in str(diagnostic.hint)
    assert regions(server.shm_prefix) == []
    assert server.stop() == 1


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["two words", "a, b", "it's (here) $HOME", "größer"])
def test_a_path_may_hold_what_a_shell_would_read(name: str, repository: Path, tmp_path: Path) -> None:
    spec = ServerSpec(repository.rename(tmp_path / name), tmp_path / "triton.log")
    server = TritonServer(spec)
    server.start()
    try:
        server.wait_ready(30)
        assert server.crashed_models() == []
    finally:
        server.stop()
    assert not server.is_ready()


@pytest.mark.e2e
def test_stopping_leaves_nothing(spec: ServerSpec) -> None:
    server = TritonServer(spec)
    assert server.stop() is None
    server.start()
    (diagnostic,) = diagnostics(lambda: server.wait_ready(0))
    assert diagnostic.code == "SIE709"
    server.wait_ready()
    assert server.pid
    assert len(group_members(server.pid)) == 2
    assert len(regions(server.shm_prefix)) == 2  # the lock and one model instance's
    assert server.stop(0) == 128 + signal.SIGKILL
    assert group_members(server.pid) == []
    assert regions(server.shm_prefix) == []
    assert server.stop() == 128 + signal.SIGKILL
    with pytest.raises(RuntimeError):
        server.start()


PARENT = """
import sys, threading, time
from pathlib import Path
from sie_triton.embedded.server import ServerSpec, TritonServer, _environment

def serve():
    server = TritonServer(ServerSpec(Path(sys.argv[1]), Path(sys.argv[2])))
    server.start()
    server.wait_ready()
    print(server.pid, server.shm_prefix, server.http_port, flush=True)

thread = threading.Thread(target=serve)  # a thread that ends: the server must not end with it
thread.start()
thread.join()
print("thread ended", flush=True)
time.sleep(600)
"""


@pytest.mark.e2e
def test_a_killed_parent_takes_everything_with_it(spec: ServerSpec, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(spec.repository), str(spec.log_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert parent.stdout
    pid, prefix, port = parent.stdout.readline().split()
    assert parent.stdout.readline() == "thread ended\n"
    url = f"http://127.0.0.1:{port}"
    assert results(infer(url, "double", {"x": ("FP32", [1, 1], [1])}))["y"] == ([1, 1], [2.0])
    assert len(list(temporary.glob(SCRATCH))) == 1
    parent.kill()
    parent.wait()
    assert eventually(lambda: not group_members(int(pid)))
    assert eventually(lambda: not regions(prefix))
    assert eventually(lambda: not list(temporary.glob(SCRATCH)))


@pytest.mark.e2e
def test_a_killed_warden_takes_the_server_with_it(
    spec: ServerSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server = TritonServer(spec)
    server.start()
    server.wait_ready()
    assert len(list(tmp_path.glob(SCRATCH))) == 1
    assert server.pid
    guard = int(Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[1])
    assert b"warden.py" in Path(f"/proc/{guard}/cmdline").read_bytes()
    os.kill(guard, signal.SIGKILL)
    assert eventually(lambda: server.poll() is not None)
    assert eventually(lambda: not group_members(server.pid or 0))
    assert regions(server.shm_prefix) == []
    assert list(tmp_path.glob(SCRATCH)) == []


def test_regions_of_the_dead_are_swept_and_those_of_the_living_kept() -> None:
    prefix = f"{warden.PREFIX}test{os.getpid()}"
    dead, living = f"{prefix}dead", f"{prefix}living"
    holder = subprocess.Popen(
        [sys.executable, "-c", f"import runpy, sys, time; m = runpy.run_path({warden.__file__!r});"
         f"m['mark']({living!r}); print('held', flush=True); time.sleep(600)"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        for name in (f"{dead}.lock", f"{dead}region", f"{living}region"):
            (warden.SHARED_MEMORY / name).touch()
        warden.sweep()
        assert regions(dead) == []
        assert sorted(regions(living)) == [f"{living}.lock", f"{living}region"]
    finally:
        holder.kill()
        holder.communicate()
    warden.sweep()
    assert regions(living) == [f"{living}region"] or regions(living) == []
    warden.remove_regions(prefix)


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
def test_a_dead_server_or_model_is_started_again_until_it_is_too_much(repository: Path, tmp_path: Path) -> None:
    small = repository / "double" / "configs"
    small.mkdir()
    (small / "small.pbtxt").write_text(DOUBLING_CONFIG.replace("max_batch_size: 8", "max_batch_size: 3"))
    port = free_port()
    spec = ServerSpec(repository, tmp_path / "triton.log", http_port=port, grpc_port=0, config_name="small")
    recorder = Recorder()
    policy = RestartPolicy(first_delay=0.05, limit=2, window=300)
    supervisor = Supervisor(spec, on_change=recorder, policy=policy)
    supervisor.start()
    try:
        supervisor.wait_ready(30)
        assert supervisor.url == f"http://127.0.0.1:{port}"
        first = supervisor.server
        assert first.pid
        assert infer(supervisor.url, "double", {"x": ("FP32", [3, 1], [1, 2, 3])}).status_code == 200
        too_many = infer(supervisor.url, "double", {"x": ("FP32", [4, 1], [1, 2, 3, 4])})
        assert too_many.status_code == 400
        assert "'3'" in too_many.text or " 3" in too_many.text
        assert first.grpc_port
        assert port_problem(first.grpc_port, "gRPC")

        os.kill(first.pid, signal.SIGKILL)
        assert eventually(lambda: recorder.states.count(State.READY) == 2)
        second = supervisor.server
        assert second.pid
        assert second.pid != first.pid
        assert group_members(first.pid) == []
        assert regions(first.shm_prefix) == []
        assert results(infer(supervisor.url, "double", {"x": ("FP32", [1, 1], [1])}))["y"] == ([1, 1], [2.0])
        assert recorder.states == [State.STARTING, State.READY, State.WAITING, State.STARTING, State.READY]
        waiting = recorder.seen[2]
        assert waiting.delay == 0.05
        assert waiting.diagnostic
        assert "was killed by signal 9" in waiting.diagnostic.message

        # The server itself would go on and answer this model's requests with errors. One look must have seen it alive.
        assert eventually(lambda: bool(second._stubs))
        os.kill(stub_of(second.pid, "double"), signal.SIGKILL)
        assert eventually(lambda: recorder.states.count(State.READY) == 3)
        waiting = recorder.seen[5]
        assert waiting.delay == 0.1
        assert waiting.diagnostic
        assert waiting.diagnostic.code == "SIE711"
        assert "model `double`" in waiting.diagnostic.message

        assert supervisor.server.pid
        os.kill(supervisor.server.pid, signal.SIGKILL)
        assert eventually(lambda: supervisor.state is State.FAILED)
        (diagnostic,) = diagnostics(supervisor.wait_ready)
        assert diagnostic.code == "SIE710"
        assert "ended 3 times within 300 s" in diagnostic.message
        assert "Started HTTPService" in diagnostic.message
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


def test_a_plan_that_cannot_run_is_told(tmp_path: Path) -> None:
    """The warden's own answer where tritonserver cannot even be executed."""
    prefix = f"{warden.PREFIX}plan{os.getpid()}"
    plan = {"command": [str(tmp_path / "absent")], "prefix": prefix, "scratch": "/nowhere", "grace": 1}
    run = subprocess.Popen(
        [sys.executable, "-I", "-S", warden.__file__, json.dumps(plan)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with run:
        assert run.wait(10) == 127
        assert run.stderr
        assert f"cannot run `{tmp_path / 'absent'}`" in run.stderr.read()
    assert regions(prefix) == []


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.arena_max=2", "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_the_server_asks_for_huge_pages_unless_told_otherwise(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given is None:
        monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    else:
        monkeypatch.setenv("GLIBC_TUNABLES", given)
    assert _environment(find_installation(), gpu=False)["GLIBC_TUNABLES"] == expected
