"""Images in the place of texts: `data:` URLs (RFC 2397), as the clients of other embedding servers send them."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final
from urllib.parse import unquote

# What an image's URL begins with; one of any other type is a text. `data:;` has no type, which senders leave out.
_BEGINNING: Final = re.compile(r"[\t\n\f\r ]*data:(image/|;)", re.IGNORECASE)
_HEAD: Final = re.compile(r"data:[^,]{0,256}; *base64 *\Z", re.IGNORECASE)
# What base64 for file names and URLs has in the place of two letters (RFC 4648, section 5).
_OTHER_LETTERS: Final = str.maketrans("-_", "+/")


def is_image_url(text: str) -> bool:
    """Whether a text means an image. Base64 alone does not: it might as well be a word."""
    return _BEGINNING.match(text) is not None


def image_of(url: str) -> bytes:
    """The encoded image that the URL holds. Raises `ValueError`, whose text says what is wrong.

    As browsers read it, white space does not count, as where lines are wrapped, and the padding may be missing.
    """
    head, comma, payload = url.strip().partition(",")
    if not comma or _HEAD.match(head) is None:
        raise ValueError("an image's URL has the form `data:image/png;base64,DATA`")
    payload = "".join((unquote(payload) if "%" in payload else payload).split()).translate(_OTHER_LETTERS)
    try:
        return base64.b64decode(payload + "=" * (-len(payload) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"an image's URL holds no base64: {error}") from error
