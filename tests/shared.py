"""What one process of a test session makes and all of them use."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

_RUN_FOLDER = "SIE_TRITON_TESTS_FOLDER"
_INCIDENTS = "incidents.txt"


def session_folder(factory: pytest.TempPathFactory) -> Path:
    """The temporary folder of the whole session, whichever of its processes asks."""
    own = factory.getbasetemp()
    return own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own


def run_folder() -> Path:
    """A folder of this run, also for what is made while tests are collected; gone when its first process ends."""
    if _RUN_FOLDER not in os.environ:
        root = tempfile.mkdtemp(prefix="sie-triton-tests-")
        atexit.register(_remove, root, os.getpid())
        os.environ[_RUN_FOLDER] = root
    return Path(os.environ[_RUN_FOLDER])


def _remove(root: str, maker: int) -> None:
    # A fork of the process that made it ends too.
    if os.getpid() == maker:
        shutil.rmtree(root, ignore_errors=True)


def made_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """`folder`, made by the first process that asks; the others wait for it. What failed is made again."""
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / ".made"
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(folder)
            done.touch()
    return folder


def note_incident(log: Path, message: str) -> None:
    """Something that a server had to recover from, which is told at the end of the run with the end of its `log`."""
    end = "".join(f"    {line[:300]}\n" for line in log.read_text(errors="replace").splitlines()[-15:])
    test = os.environ.get("PYTEST_CURRENT_TEST", "no test")
    with (run_folder() / _INCIDENTS).open("a") as notes:
        notes.write(f"{time.strftime('%H:%M:%S')} in {test}: {message}\n{end}")


def incidents() -> str:
    """What `note_incident` was told in this run, whichever process was; empty where nothing happened."""
    path = run_folder() / _INCIDENTS
    return path.read_text() if path.exists() else ""
