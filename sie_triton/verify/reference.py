"""The reference that a build is compared with: its cases, their rows and outputs, stored as plain arrays."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sie_frontend.rows import Array, Row

REFERENCE_NAME = "reference.npz"


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to compare on: a document, a query, or a query with a document.

    Both are what a reader is given, such as a text; JSON must be able to say it.
    """

    document: Any
    query: Any = None


@dataclass(frozen=True, slots=True)
class StoredReference:
    """What `reference.npz` holds: cases, what their rows are recognised by, and an array per case and output tensor."""

    origin: str
    cases: tuple[Case, ...]
    fingerprints: tuple[Array, ...]
    outputs: dict[str, tuple[Array, ...]]


def write_reference(path: Path, reference: StoredReference) -> None:
    """Store a reference as plain arrays: ragged ones flattened beside their shapes. No pickling."""
    header = {"origin": reference.origin, "cases": [[case.document, case.query] for case in reference.cases]}
    arrays: dict[str, Array] = {
        "header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
        "ids": np.concatenate(reference.fingerprints),
        "lengths": np.asarray([len(ids) for ids in reference.fingerprints]),
    }
    for name, rows in reference.outputs.items():
        arrays[f"out:{name}"] = np.concatenate([row.ravel() for row in rows])
        arrays[f"shape:{name}"] = np.asarray([row.shape for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def read_reference(path: Path) -> StoredReference:
    """The inverse of `write_reference`."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes())
    outputs = {}
    for key, flat in arrays.items():
        if key.startswith("out:"):
            shapes = arrays["shape:" + key[4:]]
            pieces = np.split(flat, np.cumsum(np.prod(shapes, axis=1))[:-1])
            outputs[key[4:]] = tuple(p.reshape(s) for p, s in zip(pieces, shapes, strict=True))
    ids = np.split(arrays["ids"], np.cumsum(arrays["lengths"])[:-1])
    return StoredReference(header["origin"], tuple(Case(*case) for case in header["cases"]), tuple(ids), outputs)


def fingerprint(row: Row) -> Array:
    """What a row is recognised by: its first input, for text the token ids; flat."""
    return next(iter(row.arrays.values())).ravel()
