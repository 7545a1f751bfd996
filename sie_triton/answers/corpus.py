"""Texts that every machine with a Python has: its own documentation, sentence by sentence.

Nothing is downloaded. The same release of Python gives the same texts, and their digest is told beside what was
measured on them.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import random
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

TOLD = "sentences of Python's documentation"
FEWEST_WORDS = 6
LONGEST = 200
_OTHERS = frozenset({"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3"})
_SENTENCE = re.compile(r"(?<=[.!?:])\s+(?=[A-Z*\"`(])")


def documentation(count: int) -> tuple[str, ...]:
    """`count` different sentences, or as many as there are, in an order that is the same every time."""
    found: dict[str, None] = {}
    for text in _sentences():
        found.setdefault(text)
        if len(found) >= count:
            break
    texts = list(found)
    random.Random(0).shuffle(texts)
    return tuple(texts)


class Digest:
    """SHA-256 of items, one after the other, as a list in JSON."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._between = "["

    def seen(self, item: Any) -> Any:
        """The item, which counts from now on."""
        self._hash.update(f"{self._between}{json.dumps(item)}".encode())
        self._between = ", "
        return item

    def told(self) -> str:
        """The digest of all that were seen."""
        whole = self._hash.copy()
        whole.update(b"]" if self._between == ", " else b"[]")
        return whole.hexdigest()


def digest(items: Iterable[Any]) -> str:
    """SHA-256 of all of them."""
    found = Digest()
    for item in items:
        found.seen(item)
    return found.told()


def _sentences() -> Iterator[str]:
    for paragraph in _paragraphs():
        plain = " ".join(paragraph.split())
        for sentence in _SENTENCE.split(plain):
            if len(sentence.split()) >= FEWEST_WORDS:
                yield sentence[:LONGEST]


def _paragraphs() -> Iterator[str]:
    # Some distributions leave it out.
    if importlib.util.find_spec("pydoc_data") is not None:
        from pydoc_data.topics import topics

        for name in sorted(topics):
            yield from topics[name].split("\n\n")
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        if not _OTHERS & set(path.relative_to(root).parts):
            yield from _docstrings(path)


def _docstrings(path: Path) -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from (ast.get_docstring(node) or "").split("\n\n")
