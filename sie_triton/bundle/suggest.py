"""Near misses: what a user may have meant by a word we do not know."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

MOST_SUGGESTIONS = 3
LEAST_RATIO = 0.6
LEAST_PART = 3


def did_you_mean(word: str, known: Iterable[str], *, by: Callable[[str], str] = str) -> str | None:
    """``did you mean `x`, `y`?`` for the at most 3 known words within ratio 0.6, whatever their case; None for none.

    Where none is that near, the shortest that contain the word, if that has three letters.
    `by` is the part of a known word that is compared.
    """
    spellings: dict[str, list[str]] = {}
    for candidate in known:
        spellings.setdefault(by(candidate).casefold(), []).append(candidate)
    near = difflib.get_close_matches(word.casefold(), spellings, n=MOST_SUGGESTIONS, cutoff=LEAST_RATIO)
    if not near and len(word) >= LEAST_PART:
        near = sorted((known for known in spellings if word.casefold() in known), key=len)
    words = [spelling for folded in near for spelling in spellings[folded]][:MOST_SUGGESTIONS]
    return f"did you mean {', '.join(f'`{w}`' for w in words)}?" if words else None
