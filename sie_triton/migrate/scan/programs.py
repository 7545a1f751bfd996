"""The programs of a folder: Python files, and the code of notebooks, each parsed and never run."""

from __future__ import annotations

import ast
import json
import re
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Folders that hold other people's code or none.
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "venv", "build", "dist"})
_LARGEST = 5_000_000
# IPython's own lines: they say nothing about models, and Python does not parse them.
_MAGIC = re.compile(r"^(\s*)(?:[%!?].*|.*\?{1,2}\s*$|\w+\s*=\s*[%!].*)$")


@dataclass(frozen=True)
class Program:
    """One parsed file. `cells` has the first line of each code cell of a notebook, with the cell's number."""

    path: Path
    module: str
    tree: ast.Module
    cells: tuple[tuple[int, int], ...] = field(default=())

    def place(self, line: int) -> str:
        """`FILE:LINE`, or `FILE:cell N:LINE` with the line within the cell."""
        for first, number in reversed(self.cells):
            if line >= first:
                return f"{self.path}:cell {number}:{line - first + 1}"
        return f"{self.path}:{line}"


@dataclass(frozen=True, slots=True)
class Unread:
    """A file that was not read, and why."""

    path: Path
    reason: str


def read_programs(root: Path) -> Iterator[Program | Unread]:
    """Every `*.py` and `*.ipynb` under a folder in the order of their paths, or the one file that `root` is.

    Folders that begin with a dot, virtual environments and caches are left out; links to folders are not followed.
    """
    for path in [root] if root.is_file() else _files(root):
        try:
            yield _read(path, _module_name(path, root))
        except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:
            said = str(error) or type(error).__name__
            yield Unread(path, said if isinstance(error, OSError) else f"does not parse: {said}")


def _files(folder: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for path in entries:
        if path.is_dir() and not path.is_symlink():
            environment = (path / "pyvenv.cfg").exists()
            if not (path.name.startswith(".") or path.name in _SKIPPED or environment):
                yield from _files(path)
        elif path.suffix in (".py", ".ipynb") and path.is_file():
            yield path


def _module_name(path: Path, root: Path) -> str:
    relative = path.relative_to(root) if path != root else Path(path.name)
    parts = relative.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _read(path: Path, module: str) -> Program:
    if path.stat().st_size > _LARGEST:
        raise OSError(f"larger than {_LARGEST // 1_000_000} MB")
    if path.suffix == ".py":
        with tokenize.open(path) as file:  # in the encoding that the file declares
            return Program(path, module, _parse(file.read()))
    source, cells = _notebook(path.read_text(encoding="utf-8"))
    return Program(path, module, _parse(source), cells)


def _parse(source: str) -> ast.Module:
    with warnings.catch_warnings():
        # `"\d"` and the like are their author's affair.
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _notebook(text: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    content = json.loads(text)
    cells = content.get("cells") if isinstance(content, dict) else None
    if not isinstance(cells, list):
        raise ValueError("no notebook of version 4: it has no list of cells")
    lines: list[str] = []
    starts = []
    for number, cell in enumerate(cells, 1):
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        source = cell.get("source", "")
        code = "".join(source) if isinstance(source, list) else str(source)
        starts.append((len(lines) + 1, number))
        lines += _plain(code)
    return "\n".join(lines) + "\n", tuple(starts)


def _plain(code: str) -> list[str]:
    """The lines of a cell without what only IPython reads; a cell in another language is blank."""
    lines = code.splitlines() or [""]
    if lines[0].startswith("%%") and not lines[0].startswith(("%%time", "%%capture")):
        return [""] * len(lines)
    kept = [_MAGIC.sub(r"\1pass", line) for line in lines]
    try:
        _parse("\n".join(lines))
    except SyntaxError:
        return kept
    return lines  # a string may hold a line that looks like a magic
