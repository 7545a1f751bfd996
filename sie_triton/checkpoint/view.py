"""A checkpoint in the plain layout that loaders expect, beside the one that was published.

Some checkpoints keep the transformer in a folder (`0_Transformer`), others are a known architecture under the names of
their authors' own code. Both are shown to every loader, ours and those that the certificate rests on, as a folder with
`config.json`, weights and tokenizer at its root. Files that need no change are links; the published checkpoint is never
written to. Views last as long as this process.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sie_triton.checkpoint.files import INDEX, MODULES, ROUTER, Parts, parts_of, read_json, weight_files
from sie_triton.checkpoint.open_clip import fill_view, is_open_clip
from sie_triton.checkpoint.published import Beyond, Native, read_published
from sie_triton.checkpoint.tensors import read_header
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.interrupts import until_the_end
from sie_triton.room import shortage

Rename = Callable[[str], Sequence[str]]
"""A published tensor name to its native names: one, or several that share the tensor's first axis in equal parts."""

_COPY_BYTES = 1 << 20


def plain_folder(origin: Path, files: Sequence[str]) -> Path:
    """`origin` itself if it is plain, else the view of its `files`. Raises `DiagnosticError` SIE325 without room."""
    if is_open_clip(files):
        return make_view(origin, view_key(origin, files), lambda view: fill_view(view, origin, files))
    parts = parts_of(origin)
    layout = published_layout(origin, files)
    native = layout if isinstance(layout, Native) else None
    if not parts.home and native is None:
        return origin
    written = weight_files(files, parts) if native is not None and native.rename is not None else ()
    needed = sum((origin / name).stat().st_size for name in written)
    return make_view(origin, view_key(origin, files), lambda view: _fill(view, origin, files, parts, native), needed)


def make_view(origin: Path, key: str, fill: Callable[[Path], None], needed: int = 0) -> Path:
    """The folder that `fill` makes, once for each key, of `needed` bytes beside links. Raises `DiagnosticError` SIE325
    without room.
    """
    view = _root() / key / (origin.name or "checkpoint")
    hint = "free some space, or set TMPDIR to a larger disk"
    if not view.exists():
        if short := shortage(view, needed):
            message = f"there is no room to lay the checkpoint out for transformers: {short}"
            raise DiagnosticError([Diagnostic("SIE325", message, Where(origin), hint)])
        # Made under another name: a view that was cut short must not be taken for a whole one.
        unfinished = view.parent / ".unfinished"
        try:
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            fill(unfinished)
            unfinished.rename(view)
        except OSError as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            message = (
                f"the checkpoint cannot be laid out for transformers in `{view.parent}`: {error.strerror or error}"
            )
            raise DiagnosticError([Diagnostic("SIE325", message, Where(origin), hint)]) from error
    return view


def published_layout(origin: Path, files: Iterable[str]) -> Native | Beyond | None:
    """What the checkpoint is in transformers' terms, if it is a known architecture in its authors' own layout."""
    parts = parts_of(origin)
    config = read_json(origin / f"{parts.home}config.json")
    if not isinstance(config, dict):
        return None
    names = [
        name
        for file in weight_files(files, parts)
        if file.endswith(".safetensors")
        for name in read_header(origin / file).tensors
    ]
    return read_published(config, names)


@lru_cache
def _root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="sie-triton-view-"))
    return until_the_end(root)


def view_key(origin: Path, files: Iterable[str]) -> str:
    """A name that changes whenever a file of the checkpoint does."""
    states = [(name, (origin / name).stat()) for name in sorted(files)]
    lines = [f"{origin}\n", *(f"{name} {state.st_ino} {state.st_size} {state.st_mtime_ns}\n" for name, state in states)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def _fill(view: Path, origin: Path, files: Sequence[str], parts: Parts, native: Native | None) -> None:
    at_home = [name for name in files if name.startswith(parts.home)]
    weights = set(weight_files(files, parts))
    for name in sorted(files, key=lambda name: name.startswith(parts.home)):
        # What lies at home takes the root's place; of the same file at the root, loaders would read the one at home.
        shown = name.removeprefix(parts.home)
        if name not in at_home and f"{parts.home}{name}" in at_home:
            continue
        target = view / shown
        target.parent.mkdir(parents=True, exist_ok=True)
        if name == MODULES:
            target.write_text(json.dumps(_at_root(read_json(origin / name), parts), indent=2), encoding="utf-8")
        elif name == ROUTER and parts.home:
            target.write_text(json.dumps(_routed_to_root(read_json(origin / name), parts), indent=2), encoding="utf-8")
        elif native is not None and shown == "config.json":
            target.write_text(json.dumps(native.config, indent=2), encoding="utf-8")
        elif native is not None and native.rename is not None and name in weights:
            _write_weights(target, origin / name, native.rename)
        else:
            target.symlink_to((origin / name).resolve())


def _at_root(modules: Any, parts: Parts) -> Any:
    """`modules.json` with the transformer at the root."""
    if parts.home and isinstance(modules, list) and modules and isinstance(modules[0], dict):
        return [{**modules[0], "path": ""}, *modules[1:]]
    return modules


def _routed_to_root(router: Any, parts: Parts) -> Any:
    """`router_config.json` with the transformer of documents at the root, under the empty name that loaders know."""
    home = parts.home.rstrip("/")
    types = {"" if name == home else name: kind for name, kind in router["types"].items()}
    routes = {key: ["" if name == home else name for name in named] for key, named in router["structure"].items()}
    return {**router, "types": types, "structure": routes}


def _write_weights(target: Path, source: Path, rename: Rename) -> None:
    if target.name == INDEX:
        index = read_json(source)
        renamed = {new: file for name, file in index["weight_map"].items() for new in rename(name)}
        target.write_text(json.dumps({**index, "weight_map": renamed}), encoding="utf-8")
    else:
        rename_tensors(target, source, rename)


def rename_tensors(target: Path, source: Path, rename: Rename) -> None:
    """`source` with its tensors under other names, in one pass: parts of a first axis lie one behind the other, so
    that only the header changes. Raises OSError for the disk."""
    header = read_header(source)
    tensors: dict[str, Mapping[str, Any]] = {}
    for name, entry in header.tensors.items():
        names = rename(name)
        tensors.update(zip(names, _split(name, entry, len(names)), strict=True))
    text = json.dumps({"__metadata__": dict(header.metadata), **tensors}).encode()
    text += b" " * (-len(text) % 8)
    with source.open("rb") as read, target.open("wb") as write:
        write.write(len(text).to_bytes(8, "little") + text)
        read.seek(header.data_start)
        shutil.copyfileobj(read, write, _COPY_BYTES)


def _split(name: str, entry: Mapping[str, Any], count: int) -> list[Mapping[str, Any]]:
    rows, *rest = entry["shape"] or (1,)
    begin, end = entry["data_offsets"]
    if count == 1:
        return [entry]
    if rows % count or (end - begin) % count:
        message = f"`{name}` has {rows} rows, which are not {count} equal parts"
        raise DiagnosticError([Diagnostic("SIE338", message, hint="fetch the checkpoint again")])
    size = (end - begin) // count
    return [
        {**entry, "shape": [rows // count, *rest], "data_offsets": [begin + part * size, begin + (part + 1) * size]}
        for part in range(count)
    ]
