"""What a call, or a bundle, may ask of pictures before they are scaled: which way they are turned, what alpha does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sie_frontend.contract.errors import invalid_input
from sie_frontend.images.decoding import AS_STORED, View

ORIENTATION: Final = "image_orientation"
ALPHA: Final = "image_alpha"
IMAGE_OPTIONS: Final = frozenset({ORIENTATION, ALPHA})
"""Runtime options of models that read images, whatever their adapter. A null is as good as absent."""

_TURNED: Final = {"stored": False, "exif": True}
_COMPOSED: Final = {"drop": False, "white": True}


def view_of(options: Mapping[str, Any]) -> View:
    """How the merged options of a call want pictures seen. Raises `WireError` (400) for a value that is not known."""
    if not IMAGE_OPTIONS & options.keys():
        return AS_STORED
    turned = _choice(options, ORIENTATION, _TURNED)
    return View(turned=turned, on_white=_choice(options, ALPHA, _COMPOSED))


def _choice(options: Mapping[str, Any], name: str, choices: Mapping[str, bool]) -> bool:
    value = options.get(name)
    if value is None:
        return False
    if not isinstance(value, str) or value not in choices:
        known = " or ".join(f"'{choice}'" for choice in choices)
        raise invalid_input(f"'options.{name}' must be {known}, got {value!r:.80}")
    return choices[value]
