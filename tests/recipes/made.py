"""Checkpoints made once per test session and process; whoever changes one makes his own with `factory.make`."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

from .factory import make
from .family import MadeCheckpoint
from .oracle import Oracle


@lru_cache
def made(name: str) -> MadeCheckpoint:
    """The family's checkpoint and bundle, to be read only."""
    return make(name, _root() / name)


@lru_cache
def oracle(name: str) -> Oracle:
    """The reference of the family's bundle."""
    return Oracle(made(name).bundle_path)


@lru_cache
def _root() -> Path:
    root = Path(tempfile.mkdtemp(prefix="recipes-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root
