"""What the fault program found, as a table for `docs/operations.md`, and the aims that were missed."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sie_triton.embedded.installation import find_installation

LONGEST_S = 10.0
GROWTH = 0.05


def missed(result: Mapping[str, Any], *, short: bool) -> list[str]:
    """The aims that were missed, in words. What a short exercise holds at its end says nothing of what grows."""
    before, after = _memory(result)
    aims = {
        "wrong vectors": not result["wrong_vectors"],
        "failed calls": result["failed_calls"] == 0,
        "bad requests that were not refused": not result["bad_requests_not_refused"],
        f"a call of more than {LONGEST_S:g} s to a model that was not hit": _longest(result, "not_hit") <= LONGEST_S,
        f"memory that grew by more than {GROWTH:.0%}": short or after <= before * (1 + GROWTH),
        "processes or shared memory left after SIGTERM": not any(result["left_after_sigterm"]),
        "processes or shared memory left after kill -9 of the parent": not any(result["left_after_sigkill"]),
    }
    return [words for words, held in aims.items() if not held]


def as_table(result: Mapping[str, Any], clients: int) -> str:
    """The machine in a sentence, and a table in Markdown."""
    before, after = _memory(result)
    versions = ", ".join(f"{count:,} of `{name}`" for name, count in result["answers_by_version"].items())
    rows = {
        "clients, requests, bad ones among them": f"{clients}, {result['requests']:,}, {result['bad_requests']:,}",
        "what happened": ", ".join(f"{count} times {name}" for name, count in result["faults"].items()),
        "answers by version": versions,
        "wrong vectors": _counted(result["wrong_vectors"]),
        "failed calls": _counted(result["kinds_of_failures"]),
        "bad requests that were let through": _counted(result["bad_requests_not_refused"]),
        "longest call to a model that was not hit": f"{_longest(result, 'not_hit'):.1f} s",
        "longest call to a model that was hit": f"{_longest(result, 'hit'):.1f} s",
        "memory of all processes before and after": f"{before / 1e6:.0f} MB, {after / 1e6:.0f} MB "
        f"({after / before - 1:+.1%})",
        "processes and shared-memory regions left after SIGTERM": "{}, {}".format(*result["left_after_sigterm"]),
        "the same after `kill -9` of the parent": "{}, {}".format(*result["left_after_sigkill"]),
        "seconds, of faults and in all": f"{result['seconds_of_faults']:,}, {result['seconds']:,}",
        "aims that were missed": "; ".join(result["missed"]) or "none",
    }
    lines = [f"| {name} | {cell} |" for name, cell in rows.items()]
    return "\n".join([machine(), "", "| | |", "|---|---|", *lines])


def machine() -> str:
    """What it ran on."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return (
        f"{os.cpu_count()} cores ({_processor()}), {platform.system()} on {platform.machine()}, load average {load}; "
        f"tritonserver of nvidia-pytriton {find_installation().version}, ONNX Runtime {version('onnxruntime')}, "
        f"Python {platform.python_version()}."
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _memory(result: Mapping[str, Any]) -> tuple[int, int]:
    return sum(result["memory_before"].values()), sum(result["memory_after"].values())


def _longest(result: Mapping[str, Any], kind: str) -> float:
    return float(max((one[kind] for one in result["longest_call_s"].values()), default=0.0))


def _counted(kinds: Mapping[str, int]) -> str:
    found = "; ".join(f"{count} times {name}" for name, count in kinds.items() if count)
    return found or "0"
