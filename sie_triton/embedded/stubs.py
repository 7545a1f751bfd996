"""The processes in which a tritonserver's Python backend computes: one stub for each instance of a model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path


class StubWatch:
    """Notices the stubs of one server that ended by themselves.

    tritonserver collects the processes that it ends itself, at once. One that is still a zombie at a second look has
    crashed. `models` holds the model of every stub that a look saw alive, by process id.
    """

    def __init__(self, repository: Path) -> None:
        self.models: dict[int, str] = {}
        self._repository = repository
        self._seen_dead: set[int] = set()

    def crashed_models(self, server: int) -> list[str]:
        """Look at the stubs of the process `server`. The models of those that have crashed, sorted.

        `unknown` stands for a stub that no look saw alive.
        """
        dead = set()
        for pid in _children(server):
            model, alive = self._look(pid)
            if not alive:
                dead.add(pid)
            elif model:
                self.models[pid] = model
        crashed = dead & self._seen_dead
        self._seen_dead = dead
        return sorted({self.models.get(pid, "unknown") for pid in crashed})

    def memory(self, server: int) -> dict[str, int]:
        """The bytes that the stubs of each model hold now, by model; memory that several share is divided among them.

        A stub that is ending counts as long as it holds anything.
        """
        found: dict[str, int] = {}
        for pid in _children(server):
            model, _ = self._look(pid)
            if model is not None:
                found[model] = found.get(model, 0) + _proportional_bytes(pid)
        return found

    def _look(self, pid: int) -> tuple[str | None, bool]:
        """The model that the stub `pid` serves, None if that cannot be told, and whether the stub lives."""
        process = Path("/proc") / str(pid)
        try:
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            return None, True  # collected between two looks
        with contextlib.suppress(IndexError, ValueError):
            return Path(arguments[1]).relative_to(self._repository).parts[0], state != "Z"
        return None, state != "Z"


def _proportional_bytes(pid: int) -> int:
    """A process's proportional set size; 0 once it is gone."""
    try:
        lines = (Path("/proc") / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def _children(parent: int) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent:
                yield int(process.name)
