"""Tensors of a checkpoint: safetensors headers, and small files read whole. Nothing is unpickled into objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where

PICKLE_REASON = "reading it unpickles, and unpickling executes whatever code the file holds"


@dataclass(frozen=True, slots=True)
class Header:
    """What a safetensors file says of itself: `tensors` by name (dtype, shape, offsets), and where they begin."""

    tensors: Mapping[str, Mapping[str, Any]]
    metadata: Mapping[str, str]
    data_start: int
    file_size: int
    """The size in bytes that the file must have."""


def read_header(path: Path) -> Header:
    """The header: its length (8 bytes, little endian), then JSON. Raises ValueError for what is no such header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= path.stat().st_size - 8:
            raise ValueError("no safetensors header")
        text = file.read(length)
    try:
        content = json.loads(text)
        tensors = {name: entry for name, entry in content.items() if name != "__metadata__"}
        size = 8 + length + max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
        return Header(tensors, dict(content.get("__metadata__") or {}), 8 + length, size)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
        raise ValueError("no safetensors header") from error


def load_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """The named tensors of a small file: `.safetensors`, or `.pt` written by `torch.save` of a state dict.

    bfloat16 comes back as float32, which holds every one of its values. A `.pt` is read with `weights_only=True`:
    torch then builds tensors and plain containers only and refuses every other object, so no code in the file runs.
    Raises `DiagnosticError` SIE308 for damaged files and SIE305 for other formats.
    """
    try:
        if path.suffix == ".safetensors":
            return _load_safetensors(path)
        if path.suffix == ".pt":
            return _load_torch(path)
    except DiagnosticError:
        raise
    except Exception as error:  # both readers raise whatever they like for a file that is not theirs
        raise DiagnosticError([damaged(path, str(error).splitlines()[0] if str(error) else "unreadable")]) from error
    message = f"`{path.name}` is refused: {PICKLE_REASON}"
    raise DiagnosticError([Diagnostic("SIE305", message, where=Where(path), hint="convert it to safetensors")])


def _load_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import deserialize  # of the `export` extra, like torch below

    types = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?"}
    types |= {f"{kind}{bits}": f"<{kind.lower()}{bits // 8}" for kind in "IU" for bits in (8, 16, 32, 64)}
    tensors = {}
    entries: list[tuple[str, dict[str, Any]]] = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    for name, entry in entries:
        array = np.frombuffer(entry["data"], dtype=types[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = array
    return tensors


def _load_torch(path: Path) -> dict[str, NDArray[Any]]:
    import torch  # only for the few heads that exist in no other format

    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DiagnosticError([damaged(path, "it holds no mapping of names to tensors")])
    return {
        str(name): (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()
        for name, value in state.items()
    }


def damaged(path: Path, reason: str) -> Diagnostic:
    """A file whose content is not what its name says."""
    return Diagnostic("SIE308", f"`{path.name}` is damaged: {reason}", Where(path), "delete it and get it again")
