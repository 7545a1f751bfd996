"""Requests to a Triton server by its JSON protocol, a look at processes and shared memory, and at diagnostics."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from sie_triton.diagnostics import Diagnostic, DiagnosticError

SHARED_MEMORY = Path("/dev/shm")


@functools.cache
def _http() -> httpx.Client:
    """One for all calls, since making one reads certificates; it keeps no connection, for which an end would wait."""
    return httpx.Client(timeout=60, headers={"connection": "close"})


def infer(
    url: str, model: str, inputs: dict[str, tuple[str, list[int], list[Any]]], outputs: list[str] | None = None
) -> httpx.Response:
    """`inputs` is name -> (datatype, shape, flat data); without `outputs` all are asked for."""
    body: dict[str, Any] = {
        "inputs": [
            {"name": name, "datatype": datatype, "shape": shape, "data": data}
            for name, (datatype, shape, data) in inputs.items()
        ]
    }
    if outputs:
        body["outputs"] = [{"name": name} for name in outputs]
    return _http().post(f"{url}/v2/models/{model}/infer", json=body)


def results(response: httpx.Response) -> dict[str, tuple[list[int], list[Any]]]:
    """Output name -> (shape, flat data)."""
    assert response.status_code == 200, response.text
    return {output["name"]: (output["shape"], output["data"]) for output in response.json()["outputs"]}


def statistics(url: str, model: str) -> dict[str, Any]:
    """Triton's statistics of one model."""
    stats: dict[str, Any] = _http().get(f"{url}/v2/models/{model}/stats").json()["model_stats"][0]
    return stats


def group_members(leader: int) -> list[int]:
    """Living processes of the process group that `leader` led."""
    members = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state, _, group = (process / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(group) == leader and state != "Z":
            members.append(int(process.name))
    return members


def stub_of(leader: int, model: str) -> int:
    """The process that serves `model`."""
    for pid in group_members(leader):
        if f"/{model}/".encode() in Path(f"/proc/{pid}/cmdline").read_bytes() and pid != leader:
            return pid
    raise LookupError(model)


def regions(prefix: str) -> list[str]:
    """Shared-memory regions that begin with `prefix`."""
    return [region.name for region in SHARED_MEMORY.glob(f"{prefix}*")]


def diagnostics(action: Callable[[], object]) -> list[Diagnostic]:
    """Why `action` raised `DiagnosticError`; a failure if it did not."""
    with pytest.raises(DiagnosticError) as caught:
        action()
    return list(caught.value.diagnostics)
