"""One `sie-triton serve` of the fault program: its processes, its shared memory, and what it holds."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.waiting import eventually

SHARED_MEMORY = Path("/dev/shm")
_PREFIX_OPTION = "shm-region-prefix-name="
_START_SECONDS = 180.0
_END_SECONDS = 40.0


class FaultsError(Exception):
    """The exercise itself cannot go on."""


class Server:
    """A server in a process group of its own. Whatever happens, `kill` leaves nothing of it."""

    def __init__(self, repository: Path, folder: Path, arguments: Sequence[str] = ()) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "serve.log"
        self._command = [sys.executable, "-m", "sie_triton", "serve", "-r", str(repository), "--port", str(self.port)]
        self._command += ["--log-dir", str(folder / "log"), *arguments]
        self._temporary = folder / "temporary"
        self._temporary.mkdir(exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._known: dict[int, str] = {}
        self._prefixes: set[str] = set()

    def start(self) -> None:
        """Start it and return when it is ready. Raises `FaultsError`."""
        environment = {**os.environ, "TMPDIR": str(self._temporary)}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        if not eventually(lambda: self._ended() or self.is_ready(), _START_SECONDS) or self._ended():
            raise FaultsError(f"the server does not become ready; it said:\n{self.said()}")

    def is_ready(self) -> bool:
        """What `/readyz` says."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return int(answer.status) == 200
        except (urllib.error.URLError, OSError):
            return False

    def status(self) -> dict[str, Any]:
        """What `/admin/status` says. Raises `OSError` where nobody answers."""
        with urllib.request.urlopen(f"{self.url}/admin/status", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def said(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-3000:]

    def _ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    @property
    def pid(self) -> int:
        """The process of the frontend and the supervisor."""
        if self._process is None:
            raise FaultsError("the server was not started")
        return self._process.pid

    def processes(self) -> dict[int, str]:
        """Every living process of the server and its command line; they are remembered for `orphans`."""
        parents = {int(p.name): _stat(int(p.name))[1:2] for p in Path("/proc").glob("[0-9]*")}
        found = {self.pid}
        while grown := {pid for pid, above in parents.items() if above and int(above[0]) in found} - found:
            found |= grown
        living = {pid: _command_line(pid) for pid in found if _stat(pid)[:1] not in ([], ["Z"])}
        for pid, command in living.items():
            self._known[pid] = command
            if _PREFIX_OPTION in command:
                self._prefixes.add(command.partition(_PREFIX_OPTION)[2].split()[0])
        return living

    def tritonserver(self) -> int | None:
        """The process id of tritonserver; None while there is none."""
        return next((pid for pid, command in self.processes().items() if "/bin/tritonserver " in command), None)

    def stubs(self, triton_model: str) -> list[int]:
        """The processes that compute one Triton model."""
        found = self.processes().items()
        return [pid for pid, said in found if "triton_python_backend_stub" in said and f"/{triton_model}/" in said]

    def memory(self) -> dict[str, int]:
        """Bytes that its processes hold, by kind; what several share is divided among them."""
        found = dict.fromkeys(("frontend", "tritonserver", "models"), 0)
        for pid, command in self.processes().items():
            stub = "triton_python_backend_stub" in command
            kind = "models" if stub else "tritonserver" if "/bin/tritonserver " in command else "frontend"
            found[kind] += _proportional_bytes(pid)
        return found

    def end(self, number: signal.Signals) -> tuple[int, int]:
        """Signal the parent, wait for everything to go; returns the processes and shared-memory regions left."""
        self.processes()
        if not self._ended():
            os.kill(self.pid, number)
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        eventually(lambda: not self.orphans() and not self.regions(), _END_SECONDS)
        return len(self.orphans()), len(self.regions())

    def orphans(self) -> list[int]:
        """Processes of this server that still live."""
        return [
            pid for pid, said in self._known.items() if _stat(pid)[:1] not in ([], ["Z"]) and _command_line(pid) == said
        ]

    def regions(self) -> list[str]:
        """Shared-memory regions of this server."""
        return [path.name for prefix in self._prefixes for path in SHARED_MEMORY.glob(f"{prefix}*")]

    def kill(self) -> None:
        """Leave nothing, as at the end of an exercise that went wrong. Idempotent."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self.processes()
            self._process.kill()
            eventually(lambda: not self.orphans(), 10.0)
            for pid in self.orphans():
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait()


def starve(pid: int, seconds: float) -> None:
    """Let a process get no more memory for a while: what it allocates beyond what it has fails."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        before = resource.prlimit(pid, resource.RLIMIT_AS)
        resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize(), before[1]))
        time.sleep(seconds)
        resource.prlimit(pid, resource.RLIMIT_AS, before)


def _stat(pid: int) -> list[str]:
    """The fields of `/proc/PID/stat` from the state on; none if the process is gone."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _command_line(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _proportional_bytes(pid: int) -> int:
    try:
        lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
