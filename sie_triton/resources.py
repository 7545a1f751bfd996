"""What this process may use of its machine: cores and memory, fewer where a container or a service is limited.

Limits are those of Linux's control groups, of both versions: the process's own, and those of every group around it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

_ROOT = Path("/")


def available_cores(root: Path = _ROOT) -> int:
    """The cores that this process may use, not those of the host; a share of one counts as one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min([cores, *_quotas(root)])))


def available_memory(root: Path = _ROOT) -> int | None:
    """Bytes that can be taken without anybody being killed; None where nothing says so."""
    found = [*_rooms(root)]
    if "MemAvailable" in (sizes := memory_sizes(root)):
        found.append(sizes["MemAvailable"])
    return max(0, min(found)) if found else None


def memory_sizes(root: Path = _ROOT) -> Mapping[str, int]:
    """What `/proc/meminfo` says, in bytes; nothing where there is none."""
    lines = (line.split() for line in _text(root / "proc" / "meminfo").splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[2:] == ["kB"]}


def _quotas(root: Path) -> Iterator[float]:
    """Cores' worth of time that each group may take."""
    for group in _groups(root, "cpu"):
        words = _text(group / "cpu.max").split() or [
            _text(group / "cpu.cfs_quota_us").strip(),
            _text(group / "cpu.cfs_period_us").strip(),
        ]
        # Without a limit it is `max` in version 2, and -1 in version 1.
        if len(words) == 2 and all(word.isdigit() and int(word) for word in words):
            yield int(words[0]) / int(words[1])


def _rooms(root: Path) -> Iterator[int]:
    """Bytes that each group may still take. What the kernel holds of files it gives back when they are wanted."""
    for group in _groups(root, "memory"):
        for limit, used, kept in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            sizes = [_text(group / name).strip() for name in (limit, used)]
            if all(size.isdigit() for size in sizes):
                stat = dict(line.split() for line in _text(group / "memory.stat").splitlines())
                yield int(sizes[0]) - int(sizes[1]) + int(stat.get(kept, 0))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's groups, its own first; those that cannot be seen from a container are not there."""
    mounted = root / "sys" / "fs" / "cgroup"
    for line in _text(root / "proc" / "self" / "cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number != "0" and controller not in controllers.split(","):
            continue
        top = mounted if number == "0" else mounted / controller
        own = top / path.lstrip("/")
        yield from (own, *(parent for parent in own.parents if parent.is_relative_to(top)))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
