"""The reference that a build is compared with, as it is written. `sie_frontend.reference` reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from sie_frontend.reference import Case, StoredReference
from sie_frontend.rows import Array


def write_reference(path: Path, reference: StoredReference) -> None:
    """Store a reference as plain arrays: ragged ones flattened beside their shapes. No pickling."""
    header: dict[str, Any] = {"origin": reference.origin, "cases": _listed(reference.cases)}
    if account := reference.account:
        header["account"] = {**asdict(account), "skipped": _listed(account.skipped)}
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


def _listed(cases: Sequence[Case]) -> list[list[Any]]:
    return [[case.document, case.query] for case in cases]
