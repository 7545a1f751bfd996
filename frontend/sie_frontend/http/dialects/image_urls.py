"""Images in the place of texts: `data:` URLs (RFC 2397), as the clients of other embedding servers send them."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final
from urllib.parse import unquote

# What an image's URL begins with; one of any other type is a text. `data:;` has no type, which senders leave out.
_BEGINNING: Final = re.compile(r"data:(image/|;)", re.IGNORECASE)
_HEAD: Final = re.compile(r"data:[^,]{0,256};base64\Z", re.IGNORECASE)


def is_image_url(text: str) -> bool:
    """Whether a text means an image. Base64 alone does not: it might as well be a word."""
    return _BEGINNING.match(text) is not None


def image_of(url: str) -> bytes:
    """The encoded image that the URL holds. Raises `ValueError`, whose text says what is wrong."""
    head, comma, payload = url.partition(",")
    if not comma or _HEAD.match(head) is None:
        raise ValueError("an image's URL has the form `data:image/png;base64,DATA`")
    try:
        return base64.b64decode(unquote(payload) if "%" in payload else payload, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"an image's URL holds no base64: {error}") from error
