"""The recorded exchanges of `wire-samples/golden`, and the catalogue of fake models that they were made with."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BODY_LINE = re.compile(r"^[<>] body(?:\(\d+\))?: (?P<literal>.*)$")


@dataclass(frozen=True)
class Exchange:
    """One request and the real server's answer to it; header names are in lower case."""

    name: str
    path: str
    request_headers: Mapping[str, str]
    request_body: bytes
    status: int
    response_headers: Mapping[str, str]
    response_body: bytes


@dataclass(frozen=True)
class FakeModel:
    """What the wire layer must know of a model: dims by output type, runtime options by profile, its tasks."""

    dims: Mapping[str, int]
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"default": {}})
    scores: bool = False


_ALL_DIMS = {"dense": 8, "sparse": 100, "multivector": 4}
_SPARSE = {"output_types": ["sparse"]}
_HALF = {"output_dtype": "float16"}

CATALOGUE: Mapping[str, FakeModel] = {
    "acme/fake-dense": FakeModel({"dense": 8}),
    "acme/fake-fail": FakeModel({"dense": 8}),
    "acme/fake-all": FakeModel(_ALL_DIMS, {"default": {}, "sparse": _SPARSE, "half": _HALF}, scores=True),
    "acme/fake-sparse": FakeModel({"sparse": 50}),
    "acme/fake-all:sparse": FakeModel(_ALL_DIMS, {"default": _SPARSE}, scores=True),
    "acme/fake-all:half": FakeModel(_ALL_DIMS, {"default": _HALF}, scores=True),
    "acme/only-variant:candle": FakeModel({"dense": 8}),
}

# Scores were recorded against another catalogue, of this one model.
SCORE_CATALOGUE: Mapping[str, FakeModel] = {"acme/fake-score": FakeModel({}, scores=True)}


def names(golden: Path) -> set[str]:
    """Every recording in the folder."""
    return {path.stem for path in golden.glob("*.txt") if not path.name.endswith(".resp.txt")}


def load(golden: Path, name: str) -> Exchange:
    """One recording. The text says which of the files beside it is the answer; a stale one may lie there too."""
    lines = (golden / f"{name}.txt").read_text().splitlines()
    path = lines[0].split(" ")[2]
    status = next(int(line[2:]) for line in lines if re.fullmatch(r"< \d{3}", line))
    response_headers = _headers(lines, "< ")
    request = golden / f"{name}.req.bin"
    return Exchange(
        name,
        path,
        _headers(lines, "> "),
        request.read_bytes() if request.exists() else _literal(lines, "> "),
        status,
        response_headers,
        _response(golden, name, lines, response_headers.get("content-type", "")),
    )


def _response(golden: Path, name: str, lines: list[str], content_type: str) -> bytes:
    suffix = "msgpack" if "msgpack" in content_type else "json" if "json" in content_type else "txt"
    path = golden / f"{name}.resp.{suffix}"
    return path.read_bytes() if path.exists() else _literal(lines, "< ")


def _headers(lines: list[str], mark: str) -> dict[str, str]:
    pairs = (line[2:].split(": ", 1) for line in lines[1:] if line.startswith(mark) and ": " in line)
    return {name: value for name, value in pairs if not re.match(r"body|hex", name)}


def _literal(lines: list[str], mark: str) -> bytes:
    for line in lines:
        if line.startswith(mark) and (match := _BODY_LINE.match(line)):
            value = ast.literal_eval(match["literal"])
            assert isinstance(value, bytes)
            return value
    return b""
