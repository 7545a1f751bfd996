"""Bombs beside good requests on the real server: `python -m image_text.hostile` does the same for longer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from e2e.processes import Serving

from .hostile import AIM_BOMBS_MB, AIM_REPEATS_MB, CLIENTS, Good, Memory, attack, large, mixed, photograph, repeated
from .served import Reference

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def good(clip_root: Path) -> Good:
    return Good(Reference(clip_root / "checkpoint"))


def test_bombs_hurt_neither_memory_nor_neighbours(clip_serving: Serving, good: Good) -> None:
    asyncio.run(attack(clip_serving.url, good, CLIENTS))  # every thread and buffer is there then
    memory = Memory(clip_serving.process.pid)
    outcome = asyncio.run(attack(clip_serving.url, good, 150))
    assert outcome.sent == 150
    assert not outcome.wrong
    assert outcome.good
    assert not outcome.spoiled
    assert memory.rise < AIM_BOMBS_MB


def test_a_bad_picture_among_good_ones(clip_serving: Serving, good: Good) -> None:
    assert not asyncio.run(mixed(clip_serving.url, good))


def test_nothing_is_kept_of_a_picture(clip_serving: Serving) -> None:
    """Of 300 kilobytes each: a tenth of what is sent would be 6 megabytes."""
    data = photograph(1180, 840)
    grown = asyncio.run(repeated(clip_serving.url, clip_serving.process.pid, data, 260, 60))
    assert grown < AIM_REPEATS_MB * 0.6


def test_health_is_told_while_large_pictures_are_read(clip_serving: Serving) -> None:
    _, looks = asyncio.run(large(clip_serving.url, photograph(4000, 3000), 4))
    assert len(looks) > 4
