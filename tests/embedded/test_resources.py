"""What a process may use, under limits as Docker, Kubernetes and systemd write them into control groups."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from sie_triton.resources import available_cores, available_memory, memory_sizes

GIB = 1 << 30
HERE = len(os.sched_getaffinity(0))
OWN = "sys/fs/cgroup"
POD = f"{OWN}/kubepods/pod1"
V1 = "9:cpu,cpuacct:/docker/abc\n8:memory:/docker/abc\n0::/"
NONE_V1 = str((1 << 63) - 4096)
"""What version 1 writes where there is no limit."""


def machine(folder: Path, groups: str, files: Mapping[str, str]) -> Path:
    """A root folder with the files that Linux would show there."""
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")
    return folder


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/", {f"{OWN}/cpu.max": "50000 100000"}, 1),
        ("0::/", {f"{OWN}/cpu.max": "max 100000"}, HERE),
        ("0::/", {}, HERE),
        ("0::/kubepods/pod1/c1", {f"{POD}/c1/cpu.max": "max 100000", f"{POD}/cpu.max": "100000 100000"}, 1),
        ("0::/kubepods/pod1/c1", {f"{OWN}/cpu.max": "20000 100000"}, 1),
        (V1, {f"{OWN}/cpu/docker/abc/cpu.cfs_quota_us": "-1", f"{OWN}/cpu/docker/abc/cpu.cfs_period_us": "1000"}, HERE),
        (V1, {f"{OWN}/cpu/cpu.cfs_quota_us": "1000", f"{OWN}/cpu/cpu.cfs_period_us": "1000"}, 1),
        ("0::/", {f"{OWN}/cpu.max": f"{100000 * (HERE + 1)} 100000"}, HERE),
        ("0::/", {f"{OWN}/cpu.max": "nonsense"}, HERE),
    ],
)
def test_a_quota_of_any_group_counts(tmp_path: Path, groups: str, files: Mapping[str, str], limit: int) -> None:
    assert available_cores(machine(tmp_path, groups, files)) == limit


@pytest.mark.parametrize(("quota", "cores"), [(10_000, 1), (100_000, 1), (150_000, 2), (200_000, 2)])
def test_a_share_of_a_core_counts_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: int, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert available_cores(machine(tmp_path, "0::/", {f"{OWN}/cpu.max": f"{quota} 100000"})) == cores


def test_memory_is_what_the_tightest_group_has_left(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None and not memory_sizes(tmp_path)
    machine(tmp_path, "0::/a/b", {"proc/meminfo": f"MemTotal: {64 << 20} kB\nMemAvailable:  {32 << 20} kB"})
    assert available_memory(tmp_path) == 32 * GIB and memory_sizes(tmp_path)["MemTotal"] == 64 * GIB
    machine(tmp_path, "0::/a/b", {f"{OWN}/a/b/memory.max": "max", f"{OWN}/a/b/memory.current": "12"})
    assert available_memory(tmp_path) == 32 * GIB
    group = {"memory.max": str(4 * GIB), "memory.current": str(3 * GIB), "memory.stat": f"anon 1\ninactive_file {GIB}"}
    machine(tmp_path, "0::/a/b", {f"{OWN}/a/{name}": text for name, text in group.items()})
    assert available_memory(tmp_path) == 2 * GIB  # what is held of files can be taken


def test_memory_in_version_1(tmp_path: Path) -> None:
    top, own = f"{OWN}/memory", f"{OWN}/memory/docker/abc"
    files = {f"{top}/memory.limit_in_bytes": NONE_V1, f"{top}/memory.usage_in_bytes": "1"}
    files |= {f"{own}/memory.limit_in_bytes": str(GIB), f"{own}/memory.usage_in_bytes": str(2 * GIB)}
    assert available_memory(machine(tmp_path, V1, files)) == 0


def test_this_machine() -> None:
    assert 1 <= available_cores() <= HERE
    assert 0 < (available_memory() or 0) <= memory_sizes()["MemTotal"]
