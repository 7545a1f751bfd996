"""What a tree of processes costs: memory as proportional set size, and CPU seconds. Linux only, through /proc."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")
_SAMPLE_SECONDS = 0.25


def descendants(root: int) -> list[int]:
    """`root` and every process below it that is alive now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of the tree so far, of children that have ended and were waited for too."""
    total = 0
    for pid in descendants(root):
        if fields := _stat(pid):
            total += sum(map(int, fields[11:15]))
    return total / _TICK


def pss_bytes(root: int) -> int:
    """Memory of the tree: every page counted once, divided among the processes that share it."""
    total = 0
    for pid in descendants(root):
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except (OSError, ProcessLookupError):
            continue  # it has ended
    return total


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from `state` on; None for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, ProcessLookupError):
        return None


@dataclass
class Peak:
    """The highest sample seen so far, in bytes."""

    pss: int = 0


@contextmanager
def watch_memory(root: int) -> Iterator[Peak]:
    """Sample the tree's memory four times a second until the block ends."""
    peak = Peak()
    stop = threading.Event()

    def sample() -> None:
        while True:
            peak.pss = max(peak.pss, pss_bytes(root))
            if stop.wait(_SAMPLE_SECONDS):
                return

    thread = threading.Thread(target=sample, name="memory", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
        peak.pss = max(peak.pss, pss_bytes(root))
