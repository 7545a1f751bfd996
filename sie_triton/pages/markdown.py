"""Markdown as the generated pages write it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a `|` within a cell is escaped, a line break becomes a space."""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def code(text: object) -> str:
    """Text as code, or nothing for nothing."""
    return f"`{text}`" if str(text) else ""


def listed(words: Iterable[object]) -> str:
    """Words as code, separated by commas."""
    return ", ".join(code(word) for word in words)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
