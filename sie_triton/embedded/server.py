"""One tritonserver on the loopback interface, as a child that cannot outlive us.

Model control is *explicit* with every model loaded at the start (or those that `ServerSpec.models` names, or none), so
that models can later be loaded and unloaded through `POST /v2/repository/models/NAME/load` and `/unload` without a
restart. Triton's load request may carry files to write. So a server that listens beyond the loopback interface wants a
secret with it, which the supervisor alone knows.

Unless `ServerSpec.gpu` is set, the GPUs are hidden from this server: its backends run on the CPU, and a configuration
that asks for `KIND_GPU` is refused as on any machine without one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sie_frontend.manifest import ManifestError, read_manifest

from sie_triton.backends.embedded import CONFIG_NAME
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.embedded import logs, run_limit, warden
from sie_triton.embedded.control import Control
from sie_triton.embedded.installation import Installation, find_installation
from sie_triton.embedded.launch import assemble_backends, child_environment, shell_safe_path
from sie_triton.embedded.once import FOLDER_VARIABLE
from sie_triton.embedded.ports import LOOPBACK, free_port, port_problem
from sie_triton.embedded.stubs import StubWatch

_WARDEN = Path(warden.__file__)
_SPAWN_SECONDS = 10.0
# A thread that loads a model answers none of its other connections meanwhile: there are more than connections.
_HTTP_THREADS = 64
_SECRET_HEADER = "x-sie-triton-control"
# Of each instance, for calls that a backend makes of other models, which none of ours does; by default 32.
_POOL_THREADS = 1
_POLL_SECONDS = 0.05
# tritonserver ends within milliseconds of the last line of its log.
_END_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """What to serve, and where.

    A port of 0 means any free one, chosen anew for each `TritonServer`; `grpc_port` of None means no gRPC.
    `config_name` selects `configs/NAME.pbtxt` of each model that has it. Without `models` all are loaded, or none with
    `on_demand`: the frontend loads them. `served` says, when a server starts again, which of them are served by then;
    nothing means all. `gpu` shows the machine's GPUs to the backends.
    `drain_seconds` is how long an ending server waits for requests in flight, and for clients that merely keep a
    connection open: stop those first. Without `exit_on_error` a server starts with those models that can be loaded.
    `run_limit_s` is how long a process may compute one run before it ends itself; 0 stands for ever.
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
    on_demand: bool = False
    served: Callable[[], Collection[str]] = tuple
    drain_seconds: int = 2
    exit_on_error: bool = True
    run_limit_s: float = 0.0
    log_verbose: int = 0


class TritonServer:
    """A tritonserver from `start` to `stop`; to start again, make another.

    Not thread-safe, except that any thread may ask for `pid`, `poll()` and the ports.
    """

    def __init__(self, spec: ServerSpec, *, orphan_grace: float = 5.0) -> None:
        self.spec = spec
        asked = (spec.http_port, spec.metrics_port, spec.grpc_port)
        self.http_port = spec.http_port or free_port(*asked)
        self.metrics_port = spec.metrics_port or free_port(*asked, self.http_port)
        self.grpc_port = None
        if spec.grpc_port is not None:
            self.grpc_port = spec.grpc_port or free_port(self.http_port, self.metrics_port)
        self.shm_prefix = f"{warden.PREFIX}{uuid.uuid4().hex[:12]}"
        self._orphan_grace = orphan_grace
        self._secret = None if spec.host == LOOPBACK else secrets.token_hex(16)
        self._warden: subprocess.Popen[bytes] | None = None
        self._pid: int | None = None
        self._scratch: Path | None = None
        self._served = spec.repository
        self.stubs = StubWatch(self._served)

    @property
    def url(self) -> str:
        """`http://HOST:PORT` of Triton's HTTP API."""
        return f"http://{LOOPBACK}:{self.http_port}"

    @property
    def metrics_url(self) -> str:
        """Where the Prometheus metrics are."""
        return f"http://{LOOPBACK}:{self.metrics_port}/metrics"

    @property
    def control(self) -> Control:
        """Loads and unloads the models of this server."""
        return Control(LOOPBACK, self.http_port, {_SECRET_HEADER: self._secret} if self._secret else None)

    @property
    def pid(self) -> int | None:
        """Process id of tritonserver itself; None before `start`."""
        return self._pid

    @property
    def guardian(self) -> int | None:
        """Process id of what ends when tritonserver has ended and is cleaned up after; None before `start`."""
        return None if self._warden is None else self._warden.pid

    def start(self) -> None:
        """Start tritonserver and return at once; call `wait_ready` to wait until it serves.

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
        assemble_backends(installation, scratch)
        self._served = shell_safe_path(self.spec.repository.resolve(), scratch)
        self.stubs = StubWatch(self._served)
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
                env={
                    **child_environment(installation, gpu=self.spec.gpu),
                    FOLDER_VARIABLE: str(scratch),
                    run_limit.VARIABLE: str(self.spec.run_limit_s),
                },
                start_new_session=True,
            )
        self._pid = self._read_pid(self._warden)

    def wait_ready(self, timeout: float = 120.0) -> None:
        """Return once every model is ready.

        Raises `DiagnosticError`: `SIE708` if tritonserver ends first, or should have, with the log's reasons;
        `SIE709` if it is not ready after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not self.is_ready():
            if (status := self.poll()) is not None:
                raise DiagnosticError([self.failure(status)])
            if cause := self.never_ended():
                raise DiagnosticError([cause])
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

    def model_memory(self) -> dict[str, int]:
        """Bytes that each loaded model's processes hold now, by model. Any thread may ask."""
        return self.stubs.memory(self._pid) if self._pid else {}

    def lost_its_locks(self) -> bool:
        """Whether tritonserver aborted because a lock in the memory that it shares with its stubs failed.

        This is a fault of its Python backend that depends on the machine's load: a second start usually succeeds.
        """
        status = self.poll()
        return status is not None and status > 128 and logs.shows_lock_exception(self.spec.log_path)

    def failure(self, status: int) -> Diagnostic:
        """`SIE708`: why tritonserver ended with `status`, in the words of its log."""
        return self._failure(f"was killed by signal {status - 128}" if status > 128 else f"ended with status {status}")

    def never_ended(self) -> Diagnostic | None:
        """`SIE708` of a start that failed, as the log says, but whose process hangs in its own exit: it is killed.

        Seldom, on a busy machine; without this its reasons would be told when the time to wait is over.
        """
        if logs.silent_for(self.spec.log_path) < _END_SECONDS or not logs.shows_given_up(self.spec.log_path):
            return None
        self.kill()
        return self._failure("could not start, and hung as it ended")

    def _failure(self, ending: str) -> Diagnostic:
        log = self.spec.log_path
        reasons = "\n".join(f"  - {reason}" for reason in logs.reasons(log))
        return Diagnostic("SIE708", f"tritonserver {ending}:\n{reasons}", hint=f"the whole log is `{log}`")

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

    def kill(self) -> None:
        """Kill what runs of it; `stop` then finds it ended, and its warden removes what it had."""
        if self._pid is not None and self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)

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
            f"--exit-on-error={'true' if spec.exit_on_error else 'false'}",
            f"--exit-timeout-secs={spec.drain_seconds}",
            # A model that is being loaded, or could not be, makes nothing else unready. The server answers nothing
            # before those that it loads at its start are there.
            "--strict-readiness=false",
            *self._model_control(),
            f"--http-address={spec.host}",
            f"--http-port={self.http_port}",
            f"--http-thread-count={_HTTP_THREADS}",
            f"--metrics-address={spec.host}",
            f"--metrics-port={self.metrics_port}",
            "--allow-gpu-metrics=false",
            "--pinned-memory-pool-byte-size=0",
            f"--log-verbose={spec.log_verbose}",
            f"--backend-config=python,shm-region-prefix-name={self.shm_prefix}",
            f"--backend-config=python,thread-pool-size={_POOL_THREADS}",
        ]
        if self.grpc_port is None:
            command.append("--allow-grpc=false")
        else:
            command += [f"--grpc-address={LOOPBACK}", f"--grpc-port={self.grpc_port}"]
        if name := spec.config_name or (None if spec.gpu else CONFIG_NAME):
            command.append(f"--model-config-name={name}")
        return command

    def _model_control(self) -> list[str]:
        """On loopback a frontend may load and unload models; beyond it, whoever has the secret."""
        loaded = self.spec.models or (() if self.spec.on_demand else self._wanted())
        options = ["--model-control-mode=explicit", *(f"--load-model={name}" for name in loaded)]
        if self._secret:
            options.append(f"--http-restricted-api=model-repository:{_SECRET_HEADER}={self._secret}")
        return options

    def _wanted(self) -> Collection[str]:
        """What is loaded at the start: what is served already, or all but what is merely kept to go back to.

        What was published and refused would end this server.
        """
        folder = self.spec.repository
        served = [name for name in self.spec.served() if (folder / name / "config.pbtxt").is_file()]
        return served or _current_models(folder)

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
        """Clean up in place of a warden that was killed."""
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signal.SIGKILL)
        warden.remove_regions(self.shm_prefix)
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)


def _current_models(repository: Path) -> tuple[str, ...]:
    """All models, but of a repository of ours nothing that was replaced and is merely kept."""
    try:
        manifest = read_manifest(repository)
    except ManifestError:
        return ("*",)
    return tuple(manifest.served().triton_models) if manifest.previous else ("*",)


def _open(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("the warden was started without a pipe")
    return stream
