"""A base model with an adapter merged into its weights, as a folder that every loader takes for a plain checkpoint.

So the written graphs, torch's exporter and the implementation that a build is compared with see the same weights. What
no adapter changes is linked or copied as it is; a changed tensor is float32, whatever it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sie_triton.checkpoint.files import ADAPTER, ADAPTER_WEIGHTS, read_json, weight_paths
from sie_triton.checkpoint.lora_merge import Array, Change, changes
from sie_triton.checkpoint.lora_settings import read_lora_settings
from sie_triton.checkpoint.tensors import load_tensors, read_header
from sie_triton.checkpoint.view import make_view, view_key

_COPY_BYTES = 1 << 20
_TYPES: Mapping[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def merged_folder(base: Path, files: Sequence[str], adapter: Path, adapter_files: Sequence[str]) -> Path:
    """The `files` of the plain folder `base` with the adapter merged, and the adapter's other files over them.

    Raises `DiagnosticError`: `SIE322` for what cannot be merged, `SIE325` without room.
    """
    found = _changes(base, adapter)
    key = view_key(base, files) + view_key(adapter, adapter_files)
    over = [name for name in adapter_files if name not in (ADAPTER, ADAPTER_WEIGHTS, "config.json")]

    def fill(view: Path) -> None:
        weights = {path.relative_to(base).as_posix(): path for path in weight_paths(base)}
        for name in {*files, *over}:
            source = (adapter if name in over else base) / name
            target = view / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if name in weights and not found.keys().isdisjoint(read_header(source).tensors):
                write_changed(target, source, found)
            else:
                target.symlink_to(source.resolve())

    # Only files with a changed tensor are written; those tensors in float32.
    touched = [path for path in weight_paths(base) if not found.keys().isdisjoint(read_header(path).tensors)]
    return make_view(base, key, fill, sum(path.stat().st_size for path in touched))


def _changes(base: Path, adapter: Path) -> dict[str, Change]:
    path = adapter / ADAPTER_WEIGHTS
    shapes = {
        name: tuple(entry["shape"])
        for file in weight_paths(base)
        for name, entry in read_header(file).tensors.items()
        if entry["dtype"] in _TYPES
    }
    config = read_json(base / "config.json")
    kind = str(config.get("model_type", "")) if isinstance(config, dict) else ""
    return changes(path, load_tensors(path), read_lora_settings(adapter), shapes, kind)


def write_changed(target: Path, source: Path, found: Mapping[str, Change]) -> None:
    """`source` with some of its tensors changed, one at a time. Raises `OSError` for the disk."""
    header = read_header(source)
    tensors: dict[str, Mapping[str, Any]] = {}
    place = 0
    for name, entry in header.tensors.items():
        begin, end = entry["data_offsets"]
        size = 4 * int(np.prod(entry["shape"], dtype=np.int64)) if name in found else end - begin
        kind = "F32" if name in found else entry["dtype"]
        tensors[name] = {"dtype": kind, "shape": entry["shape"], "data_offsets": [place, place + size]}
        place += size
    text = json.dumps({"__metadata__": dict(header.metadata), **tensors}).encode()
    text += b" " * (-len(text) % 8)
    with source.open("rb") as read, target.open("wb") as write:
        write.write(len(text).to_bytes(8, "little") + text)
        for name, entry in header.tensors.items():
            begin, end = entry["data_offsets"]
            read.seek(header.data_start + begin)
            if name in found:
                tensor = _array(read.read(end - begin), entry)
                write.write(np.ascontiguousarray(found[name].of(tensor), dtype="<f4").tobytes())
                continue
            for start in range(begin, end, _COPY_BYTES):
                write.write(read.read(min(_COPY_BYTES, end - start)))


def _array(data: bytes, entry: Mapping[str, Any]) -> Array:
    array = np.frombuffer(data, dtype=_TYPES[entry["dtype"]]).reshape(entry["shape"])
    widened: Array = (array.astype(np.uint32) << 16).view(np.float32) if entry["dtype"] == "BF16" else array
    return widened
