"""A checkpoint's files as plain data: JSON documents and the headers of safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where

# The longest header that the safetensors format allows.
MAX_HEADER_BYTES = 100_000_000


def read_json(path: Path) -> Any:
    """The document in `path`, None if there is no such file; raises `DiagnosticError` if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, str(error)) from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, empty if there is no such file; raises `DiagnosticError` for anything else."""
    document = read_json(path)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise unreadable(path, f"it holds {_kind(document)} where an object is expected")
    return document


def unreadable(path: Path, why: str) -> DiagnosticError:
    """A file of the checkpoint that is damaged, or not what its name promises."""
    return DiagnosticError(
        [Diagnostic("SIE308", f"cannot read `{path.name}`: {why}", Where(path), "fetch the checkpoint again")]
    )


def unsupported(path: Path, what: str) -> Diagnostic:
    """A pipeline that sentence-transformers runs and we do not compile."""
    return Diagnostic(
        "SIE331",
        f"the checkpoint's sentence-transformers pipeline has {what}",
        Where(path),
        "use another checkpoint, or a profile whose adapter does not follow `modules.json`",
    )


def _kind(value: object) -> str:
    return {"list": "a list", "str": "a text", "NoneType": "null"}.get(type(value).__name__, "a number")


def weight_shapes(files: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors in safetensors files, from their headers alone.

    A file starts with the header's length, eight bytes little-endian, and the header, JSON.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in files:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            try:
                header = json.loads(file.read(min(length, MAX_HEADER_BYTES)))
                found = {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise DiagnosticError(
                    [Diagnostic("SIE308", f"`{path.name}` is not a safetensors file: {error}", Where(path))]
                ) from None
        shapes.update(found)
    return shapes
