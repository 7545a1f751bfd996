"""Pieces of sentences that rules of several files say."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """The end of a sentence about an unknown word; "" where none of the known ones is close."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean `{close[0]}`?" if close else ""


def quoted(names: Iterable[str]) -> str:
    """The names in their order, or `none`."""
    return ", ".join(f"`{name}`" for name in names) or "none"
