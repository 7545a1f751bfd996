"""The real server's beginning and end: what it says when it fails, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from benchmarks.waiting import eventually
from embedded.client import diagnostics, group_members, infer, regions, results
from embedded.graphs import DOUBLING_CONFIG, FLOAT, add_model, doubling, graph, onnx_config
from sie_triton.embedded.ports import listener, port_problem
from sie_triton.embedded.server import ServerSpec, TritonServer
from sie_triton.embedded.stuck import StartWatch

SCRATCH = "sie-triton-*"


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
    status = server.stop()
    assert diagnostic.code == "SIE708", diagnostic.message
    # Seldom it hangs in its own exit.
    assert (status, "ended with status 1" in diagnostic.message) == (1, True) or "hung as it" in diagnostic.message
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


@pytest.mark.e2e
@pytest.mark.parametrize("supervised", [False, True])
def test_a_start_that_failed_and_does_not_end_is_ended_and_tells_its_reasons(
    spec: ServerSpec, tmp_path: Path, supervised: bool
) -> None:
    """tritonserver hangs so in its own exit, seldom: nobody shall wait for it until a limit of minutes."""
    server = TritonServer(spec)
    server.start()
    try:
        # Stopped while it loads: as silent as one that hangs, with the last words of one that could not start.
        assert eventually(lambda: "loading: " in spec.log_path.read_text())
        os.kill(server.pid or 0, signal.SIGSTOP)
        with spec.log_path.open("a") as log:
            log.write("E1130 12:21:15.1 9 model_lifecycle.cc:642] \"failed to load 'double': it is broken\"\n")
            log.write("error: creating server: Internal - failed to load all models\n")
        assert server.never_ended() is None, "a moment is left to it"
        long_ago = spec.log_path.stat().st_mtime - 6
        os.utime(spec.log_path, (long_ago, long_ago))
        if supervised:
            cause = StartWatch(server, 20.0).look()
        else:
            (cause,) = diagnostics(server.wait_ready)
        assert cause and cause.code == "SIE708" and "hung as it ended" in cause.message
        assert "it is broken" in cause.message and str(spec.log_path) in str(cause.hint)
        assert eventually(lambda: server.poll() is not None, 10) and group_members(server.pid or 0) == []
    finally:
        server.stop(0)


@pytest.mark.e2e
@pytest.mark.parametrize("name", ["two words", "a, b", "it's (here) $HOME", "größer"])
def test_a_path_may_hold_what_a_shell_would_read(name: str, repository: Path, tmp_path: Path) -> None:
    spec = ServerSpec(repository.rename(tmp_path / name), tmp_path / "triton.log")
    server = TritonServer(spec)
    server.start()
    try:
        server.wait_ready(30)
        assert server.pid and server.stubs.look(server.pid) == []
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
from sie_triton.embedded.server import ServerSpec, TritonServer

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
    parent.communicate()
    assert eventually(lambda: not group_members(int(pid)))
    assert eventually(lambda: not regions(prefix))
    assert eventually(lambda: not list(temporary.glob(SCRATCH)))


@pytest.mark.e2e
def test_forced_stops_of_a_model_that_ends_slowly_leave_nothing_and_touch_nobody_else(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    add_model(repository, "patient", DOUBLING_CONFIG.replace('"onnxruntime"', '"python"'))
    (repository / "patient" / "1" / "model.py").write_bytes((Path(__file__).parent / "patient_model.py").read_bytes())
    (repository / "patient" / "slow").touch()
    other = TritonServer(ServerSpec(repository, tmp_path / "other.log"))
    other.start()
    other.wait_ready(60)
    theirs = regions(other.shm_prefix)
    try:
        for force in (False, True):
            server = TritonServer(ServerSpec(repository, tmp_path / "triton.log"))
            server.start()
            server.wait_ready(60)
            assert server.pid
            assert infer(server.url, "patient", {"x": ("FP32", [1, 1], [1])}).status_code == 200
            if force:
                os.kill(server.pid, signal.SIGKILL)
            server.stop(0.3)
            assert group_members(server.pid) == [] and regions(server.shm_prefix) == []
            assert regions(other.shm_prefix) == theirs
        assert infer(other.url, "patient", {"x": ("FP32", [1, 1], [1])}).status_code == 200
    finally:
        other.stop(0)
    assert regions(other.shm_prefix) == []


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
    server.stop()
