"""What open_clip does to a text before its tokenizer reads it. Needs ftfy, which open_clip calls."""

from __future__ import annotations

import html
import string
from importlib.util import find_spec

from sie_frontend.settings import SettingsError

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def check_ftfy() -> None:
    """Raises `SettingsError` where ftfy is not installed."""
    if find_spec("ftfy") is None:
        raise SettingsError(
            "a model of the repository reads texts as open_clip does, which needs ftfy; "
            "`pip install 'sie-triton-frontend[open-clip]'`, or ftfy alone"
        )


def canonical(text: str) -> str:
    """open_clip's `canonicalize`: repaired characters, no HTML entities, lower case, words and single blanks.

    `_` counts as a blank, and ASCII's punctuation goes. Entities are resolved twice, as open_clip has it.
    """
    import ftfy

    repaired = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return " ".join(repaired.replace("_", " ").translate(_PUNCTUATION).lower().split())
