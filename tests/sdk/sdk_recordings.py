"""Reading `wire-samples`: what SIE's own SDK sent, what it was answered, and what it made of that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from sdk_server import Canned, Received

IGNORED_REQUEST_HEADERS = frozenset({"host", "user-agent", "connection"})


def recorded_request(folder: Path, name: str) -> Received:
    first, *lines = (folder / f"{name}.headers.txt").read_text().strip().splitlines()
    method, path, _ = first.split()
    body = folder / f"{name}.body.msgpack"
    headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}
    return Received(method, path, headers, body.read_bytes() if body.exists() else b"", 0)


def recorded_reply(folder: Path, name: str) -> Canned:
    first, *lines = (folder / f"{name}.headers.txt").read_text().strip().splitlines()
    body = next(path for path in folder.glob(f"{name}.body.*") if not path.name.endswith(".hex.txt"))
    headers = {key: value for key, _, value in (line.partition(": ") for line in lines)}
    return Canned(int(first.split()[1]), headers, body.read_bytes())


def recorded_outcomes(shared: Path) -> dict[str, dict[str, Any]]:
    outcomes: dict[str, dict[str, Any]] = json.loads((shared / "wire-samples" / "sdk_outcomes.json").read_text())
    return outcomes


def comparable(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in IGNORED_REQUEST_HEADERS}


def rendered(value: Any) -> Any:
    """The value as `sdk_outcomes.json` spells it."""
    if isinstance(value, np.ndarray):
        return (
            f"ndarray(dtype={value.dtype.str}, shape={value.shape}, writeable={value.flags.writeable}, "
            f"values={value.ravel().tolist()})"
        )
    if isinstance(value, dict):
        return {key: rendered(member) for key, member in value.items()}
    return [rendered(member) for member in value] if isinstance(value, list) else value
