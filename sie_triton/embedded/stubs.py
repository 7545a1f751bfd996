"""The processes in which a tritonserver's Python backend computes: one stub for each instance of a model."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from sie_triton.embedded.last_resort import CAUSES

# tritonserver collects at once the processes that it ends itself: one that is a zombie for so long ended by itself.
CRASHED_S = 0.15
# tritonserver takes a stub that is silent for a second for dead, and aborts when it speaks again: it must not.
STOPPED_S = 0.6
# So long those of other instances may finish their runs. tritonserver never ends them once it has forgotten a run.
DISMISSED_S = 2.0
# How often the known stubs are looked at: nothing tells that one was stopped.
_LOOK_S = 0.25
# New ones are looked for when tritonserver has other threads than before or one is gone, and at least so often.
_SEARCH_S = 2.0
# What an idle stub's threads take in a second to look whether there is work, in ticks of 10 ms: more is work.
_IDLE_TICKS = 2
_WINDOW_S = 1.0


@dataclass(frozen=True, slots=True)
class Death:
    """A stub that ended by itself; `model` is None where no look saw it alive. `cause` reads on from "its process"."""

    pid: int
    model: str | None
    cause: str


@dataclass(slots=True)
class _Stub:
    model: str | None
    stopped: float | None = None
    zombie: float | None = None
    told: bool = False
    killed: str | None = None
    overdue: float = float("inf")
    counts: tuple[int, int] = (-1, 0)  # ticks of processor time, and reads of the disk, when the window began
    window: float = 0.0
    still: float = 0.0
    looked: float = 0.0

    def note_work(self, fields: list[str], now: float) -> None:
        """What the kernel counts of the process: it works, or stands still for longer than at the last look."""
        ticks, faults = int(fields[11]) + int(fields[12]), int(fields[9])
        # A machine that was frozen lets no process work: of a longer pause between two looks only so much counts.
        self.window += min(now - self.looked, _WINDOW_S)
        self.looked = now
        new = self.counts[0] < 0
        if new or fields[0] in "RD" or faults != self.counts[1] or ticks - self.counts[0] > _IDLE_TICKS:
            self.counts, self.window, self.still = (ticks, faults), 0.0, 0.0
        elif self.window >= _WINDOW_S:
            self.still += self.window
            self.counts, self.window = (ticks, faults), 0.0


class StubWatch:
    """Notices the stubs of one server that ended by themselves, and ends those that were stopped."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._stubs: dict[int, _Stub] = {}
        self._searched = float("-inf")
        self._threads = 0

    @property
    def alive(self) -> list[int]:
        """The stubs that the last look saw alive."""
        return [pid for pid, stub in self._stubs.items() if stub.zombie is None]

    @property
    def models(self) -> dict[int, str]:
        """The model of every stub that a look saw alive, by process id."""
        return {pid: stub.model for pid, stub in self._stubs.items() if stub.model}

    def living(self, model: str) -> int:
        """How many stubs of a model the last look saw alive."""
        return sum(stub.model == model and stub.zombie is None for stub in self._stubs.values())

    def unburied(self, pid: int) -> bool:
        """Whether the last look saw this stub as a zombie."""
        return pid in self._stubs and self._stubs[pid].zombie is not None

    def stood_still(self, pid: int) -> float:
        """For how many seconds this stub has neither computed nor read from a disk, as far as looks tell."""
        stub = self._stubs.get(pid)
        return stub.still if stub and stub.zombie is None else 0.0

    def end(self, pid: int, cause: str) -> None:
        """End a stub that does not do what it should; `cause` reads on from "its process"."""
        if pid in self._stubs and self._stubs[pid].killed is None:
            self._stubs[pid].killed = cause
            _kill(pid)

    def dismiss(self, model: str) -> None:
        """The present stubs of a model are being ended: nobody is to hear of it, and soon none may be left."""
        for stub in self._stubs.values():
            if stub.model == model and not stub.told:
                stub.told, stub.overdue = True, time.monotonic() + DISMISSED_S

    def look(self, server: int, now: float | None = None) -> list[Death]:
        """Look at the stubs of the process `server`; returns those that have ended, each once."""
        now = time.monotonic() if now is None else now
        threads = _thread_count(server)
        if threads != self._threads or now - self._searched >= _SEARCH_S:
            self._searched, self._threads = now, threads
            for pid in children(server):
                self._stubs.setdefault(pid, _Stub(None))
        return [death for pid in list(self._stubs) if (death := self._check(pid, server, now))]

    def pause(self, now: float) -> float:
        """After how many seconds to look again, unless one of those alive ends before."""
        due = [now + _LOOK_S]
        for stub in self._stubs.values():
            if stub.zombie is None:
                due.append(stub.overdue)
                due.append(math.inf if stub.stopped is None or stub.killed else stub.stopped + STOPPED_S)
            elif not stub.told:
                due.append(stub.zombie + CRASHED_S)
        return max(0.0, min(due) - now)

    def _check(self, pid: int, server: int, now: float) -> Death | None:
        stub = self._stubs[pid]
        fields = _stat(pid)
        if fields is None or int(fields[1]) != server:
            del self._stubs[pid]  # collected: tritonserver ended it
            self._threads = 0  # another may have come in its place
            return None
        if stub.model is None and fields[0] != "Z":
            stub.model = self._model_of(pid)
        if fields[0] == "Z":
            stub.zombie = now if stub.zombie is None else stub.zombie
            if stub.told or now - stub.zombie < CRASHED_S:
                return None
            stub.told = True
            return Death(pid, stub.model, stub.killed or _ending(fields))
        stub.note_work(fields, now)
        if now >= stub.overdue:
            stub.overdue = float("inf")
            _kill(pid)
        stub.stopped = (now if stub.stopped is None else stub.stopped) if fields[0] == "T" else None
        if stub.stopped is not None and now - stub.stopped >= STOPPED_S and stub.killed is None:
            stub.killed = f"was stopped for {now - stub.stopped:.1f} s and had to be ended"
            _kill(pid)
        return None

    def memory(self, server: int) -> dict[str, int]:
        """The bytes that the stubs of each model hold now, by model; memory that several share is divided among them.

        A stub that is ending counts as long as it holds anything.
        """
        found: dict[str, int] = {}
        for pid in children(server):
            model = self._model_of(pid)
            if model is not None:
                found[model] = found.get(model, 0) + _proportional_bytes(pid)
        return found

    def _model_of(self, pid: int) -> str | None:
        """The model that the stub `pid` serves, None if that cannot be told."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            arguments = (Path("/proc") / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
            return Path(arguments[1]).relative_to(self._repository).parts[0]
        return None


def _kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def _stat(pid: int) -> list[str] | None:
    """The fields of `/proc/PID/stat` from the state on; None if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().decode(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _thread_count(pid: int) -> int:
    """A number that changes with a process's threads; 0 once it is gone."""
    try:
        return Path(f"/proc/{pid}/task").stat().st_nlink
    except OSError:
        return 0


def _ending(fields: list[str]) -> str:
    """How a zombie ended, by the wait status that is the last field of its line."""
    status = int(fields[-1])
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        return f"was killed by {name}" + (
            ", as the kernel does where memory runs out" if number == signal.SIGKILL else ""
        )
    status = os.WEXITSTATUS(status)
    return CAUSES.get(status, f"ended with status {status}")


def _proportional_bytes(pid: int) -> int:
    """A process's proportional set size; 0 once it is gone."""
    try:
        lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def children(parent: int) -> set[int]:
    """The children of a process, zombies too. One that is being made may be missing until the next look."""
    found: set[int] = set()
    try:
        # Each thread lists what it forked: a few dozen files, where a machine may have thousands of processes.
        for thread in Path(f"/proc/{parent}/task").iterdir():
            found.update(map(int, (thread / "children").read_text().split()))
    except OSError:  # a thread has ended meanwhile, or the kernel keeps no such lists
        for process in Path("/proc").glob("[0-9]*"):
            fields = _stat(int(process.name))
            if fields is not None and int(fields[1]) == parent:
                found.add(int(process.name))
    return found
