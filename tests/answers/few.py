"""Fewer items than a build asks about, so that a test is quick."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sie_triton.answers.items import ITEMS


def few(patch: pytest.MonkeyPatch, **counts: int) -> None:
    """As many items of a modality, by its name, whatever the size of a model."""
    for modality, count in counts.items():
        patch.setitem(ITEMS, modality, replace(ITEMS[modality], most=count, fewest=count))
