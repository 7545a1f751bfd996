"""The model card, `README.md`: its tags, and what sentence-transformers writes there about the training.

A card is prose: what is missing or unreadable is ignored and never an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CARD_NAME = "README.md"
# Cards carry tables of examples; what is looked for stands long before this.
_MAX_BYTES = 2 << 20
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
_JSON = re.compile(r"^[ \t]*```json[ \t]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """`tags` of the front matter, in lower case; `matryoshka` the widths that its loss was trained for, descending."""

    tags: frozenset[str] = frozenset()
    matryoshka: tuple[int, ...] = ()


def read_card(folder: Path) -> ModelCard:
    """The card of a checkpoint; an empty one where there is none."""
    try:
        with (folder / CARD_NAME).open("rb") as file:
            text = file.read(_MAX_BYTES).decode("utf-8", errors="replace").replace("\r\n", "\n")
    except OSError:
        return ModelCard()
    return ModelCard(_tags(text), _matryoshka(text))


def whole_widths(value: object) -> tuple[int, ...] | None:
    """A list of positive whole numbers, descending and each once; None for anything else."""
    if not isinstance(value, list) or not all(type(width) is int and width > 0 for width in value):
        return None
    return tuple(sorted(set(value), reverse=True))


def _tags(text: str) -> frozenset[str]:
    front = _FRONT.match(text)
    try:
        document = yaml.safe_load(front[1]) if front else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return frozenset()
    tags = document.get("tags") if isinstance(document, dict) else None
    return frozenset(str(tag).lower() for tag in tags) if isinstance(tags, list) else frozenset()


def _matryoshka(text: str) -> tuple[int, ...]:
    """`matryoshka_dims` among the parameters of a loss, which sentence-transformers writes as a block of JSON."""
    for parameters in _json_blocks(text):
        if widths := whole_widths(parameters.get("matryoshka_dims")):
            return widths
    return ()


def _json_blocks(text: str) -> Iterator[dict[str, Any]]:
    for block in _JSON.finditer(text):
        try:
            document = json.loads(block[1])
        except (ValueError, RecursionError):
            continue
        if isinstance(document, dict):
            yield document
