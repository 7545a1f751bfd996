"""What one process of a test session makes and all of them use."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def session_folder(factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of the whole session, whichever of its processes asks."""
    own = factory.getbasetemp()
    return own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, made by the first process that asks; the others wait for it. What failed is made again."""
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / ".made"
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(folder)
            done.touch()
    return folder
