"""The reference that a build is compared with: its cases, their rows and outputs, read from plain arrays.

The file says who answered and to what, so that it can be carried to a machine where nobody can be asked. It is written
by the compiler; a server reads it before it serves a model that came while it ran.
"""

from __future__ import annotations

import hashlib
import io
import json
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sie_frontend.rows import Array, Row

REFERENCE_NAME = "reference.npz"
# What numpy, zipfile and zlib raise for an archive that is another's, was cut short or has a wrong byte.
_DAMAGED = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, NotImplementedError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


class UnreadableReference(ValueError):
    """The file is no reference; the message says why."""


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to compare on: a document, a query, or a query with a document.

    Both are what a reader is given, such as a text; JSON must be able to say it.
    """

    document: Any
    query: Any = None


@dataclass(frozen=True, slots=True)
class Question:
    """What the witness was asked about: the checkpoint's identity, and a digest of the plan it was asked for."""

    checkpoint: str
    plan: str


@dataclass(frozen=True, slots=True)
class Account:
    """What a witness said besides its outputs, in the terms of `Testimony`; `skipped` are the cases themselves."""

    question: Question
    compared: tuple[str, ...]
    not_compared: tuple[str, ...]
    departures: tuple[str, ...]
    skipped: tuple[Case, ...]
    vocabulary: int | None


@dataclass(frozen=True, slots=True)
class StoredReference:
    """What `reference.npz` holds: cases, what their rows are recognised by, and an array per case and output tensor.

    `account`: what makes it worth something elsewhere; None if only the arrays were kept.
    """

    origin: str
    cases: tuple[Case, ...]
    fingerprints: tuple[Array, ...]
    outputs: dict[str, tuple[Array, ...]]
    account: Account | None = None


def read_reference(path: Path) -> StoredReference:
    """What a file of the compiler's holds. Raises `UnreadableReference`."""
    try:
        # numpy leaves a file open that is no archive.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return _reference(dict(file))
    except _DAMAGED as error:
        raise UnreadableReference(f"{type(error).__name__}: {error}") from error


def _reference(arrays: dict[str, Array]) -> StoredReference:
    header = json.loads(arrays["header"].tobytes())
    outputs = {}
    for key, flat in arrays.items():
        if key.startswith("out:"):
            shapes = arrays["shape:" + key[4:]]
            pieces = np.split(flat, np.cumsum(np.prod(shapes, axis=1))[:-1])
            outputs[key[4:]] = tuple(p.reshape(s) for p, s in zip(pieces, shapes, strict=True))
    ids = np.split(arrays["ids"], np.cumsum(arrays["lengths"])[:-1])
    account = _account(header["account"]) if "account" in header else None
    cases = _cases(header["cases"])
    if any(len(arrays) != len(cases) for arrays in (ids, *outputs.values())):
        raise ValueError("it has not as many arrays as cases")
    return StoredReference(header["origin"], cases, tuple(ids), outputs, account)


def _account(said: dict[str, Any]) -> Account:
    return Account(
        question=Question(**said["question"]),
        compared=tuple(said["compared"]),
        not_compared=tuple(said["not_compared"]),
        departures=tuple(said["departures"]),
        skipped=_cases(said["skipped"]),
        vocabulary=said["vocabulary"],
    )


def _cases(listed: Sequence[Sequence[Any]]) -> tuple[Case, ...]:
    return tuple(Case(*case) for case in listed)


def fingerprint(row: Row) -> Array:
    """What a row is recognised by: its first input, for text the token ids; flat. Of pixels the SHA-256."""
    first = next(iter(row.arrays.values()))
    if first.dtype == np.uint8:
        return np.frombuffer(hashlib.sha256(first.tobytes()).digest(), np.uint8)
    return first.ravel()
