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
from collections.abc import Iterator
from pathlib import Path

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


def digest(texts: tuple[str, ...]) -> str:
    """SHA-256 of the texts."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


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
