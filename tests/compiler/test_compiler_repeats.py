"""The same inputs give the same bytes, wherever and whenever they are built."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from sie_triton.compiler.build import compile_models
from sie_triton.repository.publish import tree_digests

from .conftest import Tiny

YEAR = 365 * 24 * 3600.0


def a_year_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every clock of the `time` module is ahead; what reads the system's clock in C is not."""
    now, now_ns, local, utc = time.time, time.time_ns, time.localtime, time.gmtime
    monkeypatch.setattr(time, "time", lambda: now() + YEAR)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + int(YEAR * 1e9))
    monkeypatch.setattr(time, "localtime", lambda seconds=None: local(time.time() if seconds is None else seconds))
    monkeypatch.setattr(time, "gmtime", lambda seconds=None: utc(time.time() if seconds is None else seconds))


def test_a_build_on_another_day_from_another_place_has_the_same_bytes(
    tiny_model: Tiny, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file, the manifest included. Sources are copies with other times; the target is another folder."""
    sources = Tiny(
        Path(shutil.copytree(tiny_model.bundles, tmp_path / "a" / "bundles")),
        Path(shutil.copytree(tiny_model.checkpoint, tmp_path / "a" / "checkpoint")),
    )
    for path in (tmp_path / "a").rglob("*"):
        os.utime(path, (1e9, 1e9))
    a_year_later(monkeypatch)
    repository = tmp_path / "b" / "elsewhere"
    compile_models([sources.target()], sources.options(repository))
    assert tree_digests(repository) == tree_digests(built)
