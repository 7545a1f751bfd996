"""One tritonserver on the loopback interface, as a child that cannot outlive us.

Model control is *explicit* with every model loaded at the start (or those that `ServerSpec.models` names), so that
a frontend can later load and unload models through `POST /v2/repository/models/NAME/load` and `/unload` without a
restart. Triton's load request may carry files to write; that is one more reason why nothing listens beyond the
loopback interface.

Unless `ServerSpec.gpu` is set, the GPUs are hidden from this server: its backends run on the CPU, and a configuration
that asks for `KIND_GPU` is refused as on any machine without one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.embedded import logs, warden
from sie_triton.embedded.installation import Installation, find_installation
from sie_triton.embedded.once import FOLDER_VARIABLE
from sie_triton.embedded.ports import LOOPBACK, free_port, port_problem

_BACKENDS = Path(__file__).parent / "backends"
_WARDEN = Path(warden.__file__)
# What a stub loads as a backend. From Python 3.12 on the stub's interpreter ignores PYTHONPATH, so the folders where
# this process finds its packages are written down.
_SHIM = """\
import sys

sys.path[:0] = [entry for entry in {path!r} if entry not in sys.path]
from sie_triton.embedded.backends.{backend}.model import TritonPythonModel
"""
_SPAWN_SECONDS = 10.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """What to serve, and where.

    A port of 0 means any free one, chosen anew for each `TritonServer`; `grpc_port` of None means no gRPC.
    `config_name` selects `configs/NAME.pbtxt` of each model that has it. Without `models` all are loaded. `gpu` shows
    the machine's GPUs to the backends.
    `drain_seconds` is how long an ending server waits for requests in flight, and for clients that merely keep a
    connection open: stop those first.
    """

    repository: Path
    log_path: Path
    host: str = LOOPBACK
    http_port: int = 0
    metrics_port: int = 0
    grpc_port: int | None = None
    config_name: str | None = None
    gpu: bool = False
    models: tuple[str, ...] = ()
    http_threads: int = 8
    drain_seconds: int = 2
    log_verbose: int = 0


class TritonServer:
    """A tritonserver from `start` to `stop`; not restartable, make another.

    Not thread-safe, except that any thread may ask for `pid`, `poll()` and the ports.
    """

    def __init__(self, spec: ServerSpec, *, orphan_grace: float = 5.0) -> None:
        self.spec = spec
        self.http_port = spec.http_port or free_port()
        self.metrics_port = spec.metrics_port or free_port()
        self.grpc_port = None if spec.grpc_port is None else (spec.grpc_port or free_port())
        self.shm_prefix = f"{warden.PREFIX}{uuid.uuid4().hex[:12]}"
        self._orphan_grace = orphan_grace
        self._warden: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._scratch: Path | None = None
        self._served = spec.repository
        self._stubs: dict[int, str] = {}
        self._seen_dead: set[int] = set()

    @property
    def url(self) -> str:
        """`http://HOST:PORT` of Triton's HTTP API."""
        return f"http://{LOOPBACK}:{self.http_port}"

    @property
    def metrics_url(self) -> str:
        """Where the Prometheus metrics are."""
        return f"http://{LOOPBACK}:{self.metrics_port}/metrics"

    @property
    def pid(self) -> int | None:
        """Process id of tritonserver itself; None before `start`."""
        return self._pid

    def start(self) -> None:
        """Start tritonserver and return at once; `wait_ready` tells when it serves.

        Raises `DiagnosticError`: `SIE701` to `SIE704` (see `find_installation`), `SIE705` (a port), `SIE706`
        (no repository), `SIE707` (the process could not be started).
        """
        if self._warden is not None:
            raise RuntimeError("a TritonServer starts once; make another")
        installation = find_installation()
        self._check_repository()
        self._check_ports()
        logs.rotate(self.spec.log_path)
        self._scratch = scratch = Path(tempfile.mkdtemp(prefix="sie-triton-"))
        _assemble_backends(installation, scratch)
        self._served = _without_a_shells_signs(self.spec.repository.resolve(), scratch)
        plan = {
            "command": self._command(installation, scratch),
            "prefix": self.shm_prefix,
            "scratch": str(scratch),
            "grace": self._orphan_grace,
        }
        with self.spec.log_path.open("ab") as log:
            self._warden = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_WARDEN), json.dumps(plan)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_environment(installation, gpu=self.spec.gpu) | {FOLDER_VARIABLE: str(scratch)},
                start_new_session=True,
            )
        self._pid = self._read_pid(self._warden)

    def wait_ready(self, timeout: float = 120.0) -> None:
        """Return once every model is ready.

        Raises `DiagnosticError`: `SIE708` if tritonserver ends first, with the log's reasons; `SIE709` if it is
        not ready after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not self.is_ready():
            if (status := self.poll()) is not None:
                raise DiagnosticError([self.failure(status)])
            if time.monotonic() >= deadline:
                raise DiagnosticError(
                    [
                        Diagnostic(
                            "SIE709",
                            f"tritonserver is not ready after {timeout:g} s; its last lines are:\n"
                            f"{logs.tail(self.spec.log_path, 5)}",
                            hint=f"the whole log is `{self.spec.log_path}`; a larger timeout may be enough",
                        )
                    ]
                )
            time.sleep(_POLL_SECONDS)

    def is_ready(self, timeout: float = 2.0) -> bool:
        """Whether `/v2/health/ready` says so now."""
        connection = http.client.HTTPConnection(LOOPBACK, self.http_port, timeout=timeout)
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def poll(self) -> int | None:
        """Exit status of tritonserver (128 + N for signal N), None while it runs."""
        if self._warden is None:
            return None
        status = self._warden.poll()
        if status is not None and status < 0:
            self._bury()
            return 128 - status
        return status

    def crashed_models(self) -> list[str]:
        """Models of which a process ended by itself, for instance for want of memory, since `start`.

        tritonserver goes on to call such a model ready and answers its requests with errors for ever. It collects
        the processes that it ends itself, at once; one that is still unburied at a second call has crashed.
        """
        dead = set()
        for pid in _children(self._pid) if self._pid else ():
            model, alive = _stub(pid, self._served)
            if not alive:
                dead.add(pid)
            elif model:
                self._stubs[pid] = model
        crashed = dead & self._seen_dead
        self._seen_dead = dead
        return sorted({self._stubs.get(pid, "unknown") for pid in crashed})

    def lost_its_locks(self) -> bool:
        """Whether tritonserver aborted because a lock in the memory that it shares with its stubs failed.

        A fault of its Python backend that comes and goes with the machine's load: a second start mostly succeeds.
        """
        status = self.poll()
        return status is not None and status > 128 and logs.shows_lock_exception(self.spec.log_path)

    def failure(self, status: int) -> Diagnostic:
        """`SIE708`: why tritonserver ended with `status`, in the words of its log."""
        reasons = "\n".join(f"  - {reason}" for reason in logs.reasons(self.spec.log_path))
        ending = f"was killed by signal {status - 128}" if status > 128 else f"ended with status {status}"
        return Diagnostic(
            "SIE708", f"tritonserver {ending}:\n{reasons}", hint=f"the whole log is `{self.spec.log_path}`"
        )

    def stop(self, grace: float = 10.0) -> int | None:
        """End tritonserver: SIGTERM, after `grace` seconds SIGKILL to its whole group. Idempotent.

        Returns the exit status, None if it was never started. Nothing of it is left when this returns.
        """
        if self._warden is None:
            return None
        with contextlib.suppress(OSError, ValueError):  # it may have ended already
            stdin = _open(self._warden.stdin)
            stdin.write(f"stop {grace}\n".encode())
            stdin.close()
        self._warden.wait()
        return self.poll()

    def _check_repository(self) -> None:
        repository = self.spec.repository
        if not repository.is_dir():
            raise DiagnosticError(
                [Diagnostic("SIE706", f"`{repository}` is not a folder", hint="build a model repository there first")]
            )
        models = {config.parent.name for config in repository.glob("*/config.pbtxt")}
        missing = [name for name in self.spec.models if name not in models]
        if missing or not models:
            what = f"has no model {', '.join(f'`{name}`' for name in missing)}" if missing else "holds no model"
            hint = f"it holds {', '.join(sorted(models))}" if models else "build a model repository there first"
            raise DiagnosticError([Diagnostic("SIE706", f"repository `{repository}` {what}", hint=hint)])

    def _check_ports(self) -> None:
        ports = {"HTTP": self.http_port, "metrics": self.metrics_port, "gRPC": self.grpc_port}
        problems = [port_problem(port, purpose) for purpose, port in ports.items() if port is not None]
        if found := [problem for problem in problems if problem]:
            raise DiagnosticError(found)

    def _command(self, installation: Installation, backends: Path) -> list[str]:
        spec = self.spec
        command = [
            str(installation.binary),
            f"--model-repository={self._served}",
            f"--backend-directory={backends}",
            "--disable-auto-complete-config",
            "--exit-on-error=true",
            f"--exit-timeout-secs={spec.drain_seconds}",
            "--strict-readiness=true",
            *self._model_control(),
            f"--http-address={spec.host}",
            f"--http-port={self.http_port}",
            f"--http-thread-count={spec.http_threads}",
            f"--metrics-address={spec.host}",
            f"--metrics-port={self.metrics_port}",
            "--allow-gpu-metrics=false",
            "--pinned-memory-pool-byte-size=0",
            f"--log-verbose={spec.log_verbose}",
            f"--backend-config=python,shm-region-prefix-name={self.shm_prefix}",
        ]
        if self.grpc_port is None:
            command.append("--allow-grpc=false")
        else:
            command += [f"--grpc-address={LOOPBACK}", f"--grpc-port={self.grpc_port}"]
        if spec.config_name:
            command.append(f"--model-config-name={spec.config_name}")
        return command

    def _model_control(self) -> list[str]:
        """On loopback a frontend may load and unload; whoever else can reach the port must not."""
        if self.spec.host != LOOPBACK and not self.spec.models:
            return ["--model-control-mode=none"]
        return ["--model-control-mode=explicit", *(f"--load-model={name}" for name in self.spec.models or ("*",))]

    def _read_pid(self, process: subprocess.Popen[bytes]) -> int:
        stdout = _open(process.stdout)
        ready, _, _ = select.select([stdout], [], [], _SPAWN_SECONDS)
        line = stdout.readline() if ready else b""
        stdout.close()
        if not line.strip():
            process.kill()
            process.wait()
            raise DiagnosticError(
                [
                    Diagnostic(
                        "SIE707",
                        f"tritonserver could not be started: {logs.tail(self.spec.log_path, 3) or 'no answer'}",
                        hint=f"the whole log is `{self.spec.log_path}`",
                    )
                ]
            )
        return int(line)

    def _bury(self) -> None:
        """The warden itself was killed: do its last duties."""
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
        warden.remove_regions(self.shm_prefix)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)


def _assemble_backends(installation: Installation, folder: Path) -> None:
    """Lay out `folder` as tritonserver wants a backend directory: Triton's `python`, our `onnxruntime` and `pytorch`.

    Copies, 3 MB in all: tritonserver refuses a library whose real path is elsewhere.
    """
    packages = [entry for entry in sys.path if entry and Path(entry).is_absolute()]
    python = folder / "python"
    shutil.copytree(installation.python_backend, python, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(installation.stub, python)
    for model in _BACKENDS.glob("*/model.py"):
        backend = folder / model.parent.name
        backend.mkdir()
        (backend / "model.py").write_text(_SHIM.format(path=packages, backend=backend.name))


def _without_a_shells_signs(repository: Path, scratch: Path) -> Path:
    """A path to the repository that a shell leaves as it is.

    tritonserver starts its stubs through a shell and quotes nothing: at a space in the path every stub dies, and the
    server waits for them for ever.
    """
    if re.fullmatch(r"[\w./:+@%-]+", str(repository), re.ASCII):
        return repository
    link = scratch / "repository"
    link.symlink_to(repository)
    return link


def _environment(installation: Installation, *, gpu: bool) -> dict[str, str]:
    """The child's environment: the stubs must find this interpreter and its library."""
    environment = dict(os.environ)
    libraries = [str(installation.libraries)]
    if installation.libpython:
        libraries.append(str(installation.libpython))
    environment["LD_LIBRARY_PATH"] = _path_list(libraries, os.environ.get("LD_LIBRARY_PATH"))
    environment["PATH"] = _path_list([str(Path(sys.executable).parent)], os.environ.get("PATH"))
    if not gpu:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    # ONNX Runtime would write an id of this machine below HOME and look up the host that collects its telemetry.
    environment["ORT_DISABLE_TELEMETRY"] = "1"
    # numpy's BLAS would start a thread a core in each stub; the stubs never call it.
    environment["OPENBLAS_NUM_THREADS"] = "1"
    # Weights on huge pages where the system gives them to those who ask: one text takes 9 % less time, a full run 3 %.
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if "glibc.malloc.hugetlb" not in tunables:
        environment["GLIBC_TUNABLES"] = ":".join(filter(None, (tunables, "glibc.malloc.hugetlb=1")))
    return environment


def _children(parent: int) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                yield int(process.name)


def _stub(pid: int, repository: Path) -> tuple[str | None, bool]:
    """The model that child `pid` serves, None if that cannot be told, and whether the child lives."""
    process = Path("/proc") / str(pid)
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None, True  # collected between two looks
    with contextlib.suppress(IndexError, ValueError):
        return Path(arguments[1]).relative_to(repository).parts[0], state != "Z"
    return None, state != "Z"


def _path_list(first: list[str], rest: str | None) -> str:
    return os.pathsep.join([*first, rest] if rest else first)


def _open(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("the warden was started without a pipe")
    return stream
