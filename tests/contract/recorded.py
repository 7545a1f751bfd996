"""The recordings and facts of this folder, read once: what SIE 0.10.1 sent, answered, made of an answer, and accepts.

| File | Holds |
|---|---|
| `exchanges.json` | requests to a real server and its answers, byte for byte |
| `sdk_requests.json` | what SIE's and OpenAI's clients sent |
| `sdk_answers.json` | what SIE's client was answered, and what it returned or raised |
| `arrays.json` | vectors of a real server: MUVERA, and narrowed dtypes |
| `facts.json` | small facts, each under its own key |
| `bundles.json`, `resolved.json` | the public bundles as they are written, and as SIE resolves their profiles |
"""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent

# Longer bodies are compressed: nobody reads them in a difference.
_LONG = 2000


@dataclass(frozen=True)
class Request:
    """One request; the names of its headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """One answer, its headers as they were written."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Exchange:
    """One request and the real server's answer to it; header names are in lower case."""

    name: str
    method: str
    path: str
    request_headers: Mapping[str, str]
    request_body: bytes
    status: int
    response_headers: Mapping[str, str]
    response_body: bytes


class Refusal(NamedTuple):
    """What a refused request is told."""

    status: int
    code: str
    message: str


@cache
def exchanges() -> Mapping[str, Exchange]:
    """Every exchange with the real server, by its name."""
    return {
        name: Exchange(
            name,
            sent["method"],
            sent["path"],
            sent["headers"],
            body_of(sent["body"]),
            answered["status"],
            answered["headers"],
            body_of(answered["body"]),
        )
        for name, (sent, answered) in _read("exchanges").items()
    }


@cache
def sdk_requests() -> Mapping[str, Request]:
    """What the clients sent, by the name of the call; headers that name a machine or a library are left out."""
    return {
        name: Request(sent["method"], sent["path"], sent["headers"], body_of(sent["body"]))
        for name, sent in _read("sdk_requests")["requests"].items()
    }


def sdk_paths() -> Mapping[str, Mapping[Literal["sync", "async"], str]]:
    """The path that each kind of client asks for a model's id."""
    paths: dict[str, dict[Literal["sync", "async"], str]] = _read("sdk_requests")["paths"]
    return paths


@cache
def sdk_answers() -> Mapping[str, Answer]:
    """What SIE's client was answered, by the name of the outcome; two outcomes took no recorded answer."""
    return {
        name: Answer(entry["answer"]["status"], entry["answer"]["headers"], body_of(entry["answer"]["body"]))
        for name, entry in _read("sdk_answers").items()
        if entry["answer"] is not None
    }


def sdk_outcomes() -> Mapping[str, Mapping[str, Any]]:
    """What SIE's client made of it: what it returned, or the exception, its bases and its attributes."""
    return {name: entry["outcome"] for name, entry in _read("sdk_answers").items()}


@cache
def arrays() -> Mapping[str, NDArray[Any]]:
    """The real server's vectors."""
    return {
        name: np.frombuffer(b64decode(spelt["data"]), spelt["type"]).reshape(spelt["shape"])
        for name, spelt in _read("arrays").items()
    }


def muvera_cases() -> Mapping[str, Mapping[str, Any]]:
    """The configurations behind the MUVERA vectors, by the beginning of their names in `arrays`."""
    cases: dict[str, dict[str, Any]] = _read("facts")["muvera_cases"]
    return cases


def bundle_verdicts() -> Mapping[str, Mapping[str, Any] | None]:
    """What SIE reads of small variants of a bundle: outputs and dims; null for those that it refuses."""
    verdicts: dict[str, dict[str, Any] | None] = _read("facts")["bundle_verdicts"]
    return verdicts


def refusals() -> Mapping[str, Refusal]:
    """What a real server, asked beside us, refused; by the number of the request."""
    return {number: Refusal(*refusal) for number, refusal in _read("facts")["refusals"].items()}


def adapter_classes() -> frozenset[str]:
    """Every adapter class that the contract classifies."""
    return frozenset(_read("facts")["adapter_classes"])


def missing_text_messages() -> frozenset[str]:
    """What adapters say of an item without text."""
    return frozenset(_read("facts")["missing_text_messages"])


def option_keys() -> Mapping[Literal["loadtime", "runtime"], frozenset[str]]:
    """The adapter options that the public bundles of encoders and rerankers use."""
    return {side: frozenset(keys) for side, keys in _read("facts")["option_keys"].items()}


def promised_call() -> str:
    """The Python lines that must run as they are, but for the port."""
    lines: list[str] = _read("facts")["promised_call"]
    return "\n".join(lines) + "\n"


def resolved() -> Mapping[str, Mapping[str, Any]]:
    """SIE's own resolution of each public bundle that encodes or scores text."""
    models: dict[str, dict[str, Any]] = _read("resolved")
    return models


def body_of(spelt: str | Mapping[str, str]) -> bytes:
    """The bytes of a body; the reverse of `spelling`."""
    if isinstance(spelt, str):
        return spelt.encode()
    ((form, text),) = spelt.items()
    return zlib.decompress(b64decode(text)) if form == "zlib" else b64decode(text)


def spelling(body: bytes) -> str | Mapping[str, str]:
    """A body in JSON: UTF-8 as it is, other bytes in base64, long ones compressed."""
    if len(body) > _LONG:
        return {"zlib": b64encode(zlib.compress(body, 9)).decode()}
    try:
        return body.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(body).decode()}


@cache
def _read(name: str) -> Any:
    return json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
