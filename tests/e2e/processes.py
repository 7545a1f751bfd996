"""The command line as processes of its own, and a look at everything that it leaves."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import prepared

from benchmarks.waiting import eventually
from sie_triton.embedded.ports import free_port

COMMAND = [*prepared.COMMAND]
SHARED_MEMORY = Path("/dev/shm")
_PREFIX_OPTION = "shm-region-prefix-name="


def sie_triton(*arguments: str | Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run `sie-triton` to its end."""
    return prepared.run(arguments, os.environ, timeout)


def _field(pid: int, place: int) -> str:
    """A field of `/proc/PID/stat` behind the name; "" if the process is gone."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[place]
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    return _field(pid, 0) not in ("", "Z")


def command_line(pid: int) -> str:
    """The arguments of a process, separated by spaces."""
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def descendants(root: int) -> set[int]:
    """Every living process below `root`."""
    parents = {int(p.name): _field(int(p.name), 1) for p in Path("/proc").glob("[0-9]*")}
    found = {root}
    while grown := {pid for pid, parent in parents.items() if parent and int(parent) in found} - found:
        found |= grown
    return {pid for pid in found - {root} if alive(pid)}


class Serving:
    """One `sie-triton serve`. `command` is what starts the program, in the folder `cwd`."""

    def __init__(
        self,
        repository: Path | str,
        folder: Path,
        *arguments: str,
        command: Sequence[str] = COMMAND,
        cwd: Path | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        folder.mkdir(parents=True, exist_ok=True)
        self.output = folder / "output.txt"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [
                    *(*command, "serve", "-r", str(repository), "--port", str(self.port)),
                    *("--log-dir", str(folder / "log"), *arguments),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(folder)},
                start_new_session=True,
                cwd=cwd,
            )

    def said(self) -> str:
        """What it printed so far."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def is_ready(self) -> bool:
        """What `/readyz` says."""
        try:
            # Without `verify` every call would read all certificates.
            return httpx.get(f"{self.url}/readyz", timeout=5, verify=False).status_code == 200
        except httpx.TransportError:
            return False

    def wait_ready(self, seconds: float = 120) -> None:
        """Return when it is ready; fail when it ends or takes too long."""
        assert eventually(lambda: self.is_ready() or self.process.poll() is not None, seconds), self.said()
        assert self.process.poll() is None, self.said()

    @property
    def tritonserver(self) -> int:
        """The process id of the child that computes."""
        (pid,) = (p for p in descendants(self.process.pid) if "/bin/tritonserver" in command_line(p).split(" ")[0])
        return pid

    def stub(self, model: str) -> int:
        """A process that serves one Triton model."""
        return next(
            p
            for p in descendants(self.process.pid)
            if "triton_python_backend_stub" in command_line(p).split(" ")[0] and f"/{model}/" in command_line(p)
        )

    def regions(self) -> Callable[[], list[str]]:
        """A function that lists this server's shared-memory regions, also when it is gone."""
        arguments = command_line(self.tritonserver)
        prefix = arguments.partition(_PREFIX_OPTION)[2].split()[0]
        return lambda: [path.name for path in SHARED_MEMORY.glob(f"{prefix}*")]

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Ask it to end; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
