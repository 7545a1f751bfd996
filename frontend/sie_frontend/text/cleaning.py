"""What open_clip does to a text before its tokenizer reads it. Needs ftfy, which open_clip calls."""

from __future__ import annotations

import html
import string
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

from sie_frontend.contract.errors import invalid_input
from sie_frontend.settings import SettingsError

MAX_CHARACTERS: Final = 65_536
"""Of one text. A model that cleans its texts reads some dozens of tokens."""

MAX_REQUEST_CHARACTERS: Final = 1_048_576
"""Of all texts of a request together."""

# ftfy takes every line by itself: two megabytes of lines of one letter take it 43 seconds, and of one line 11 at most.
_LINE_CHARACTERS: Final = 32
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def check_ftfy() -> None:
    """Raises `SettingsError` where ftfy is not installed."""
    if find_spec("ftfy") is None:
        raise SettingsError(
            "a model of the repository reads texts as open_clip does, which needs ftfy; "
            "`pip install 'sie-triton-frontend[open-clip]'`, or ftfy alone"
        )


def check_cleanable(texts: Sequence[str], places: Sequence[str]) -> None:
    """Refuse what would take long to clean. Raises `WireError` (400) that names the text."""
    total = 0
    for index, text in enumerate(texts):
        if len(text) > MAX_CHARACTERS:
            place = places[index] if places else f"items[{index}]"
            raise invalid_input(
                f"Field '{place}' must hold at most {MAX_CHARACTERS} characters for a model that cleans its texts"
            )
        total += len(text) + _LINE_CHARACTERS * text.count("\n")
    if total > MAX_REQUEST_CHARACTERS:
        raise invalid_input(
            f"The texts of one request must hold at most {MAX_REQUEST_CHARACTERS} characters for a model that cleans "
            f"its texts, a line counted as {_LINE_CHARACTERS} more; split the request"
        )


def canonical(text: str) -> str:
    """open_clip's `canonicalize`: repaired characters, no HTML entities, lower case, words and single blanks.

    `_` counts as a blank, and ASCII's punctuation goes. Entities are resolved twice, as open_clip has it.
    """
    import ftfy

    repaired = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return " ".join(repaired.replace("_", " ").translate(_PUNCTUATION).lower().split())
