"""The official clients' own virtual environment: made once beside the weights, reused by every later session."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PYTHON = "3.12"
REQUIREMENTS = ("sie-sdk==0.10.1", "openai")
_NAME = "official-0.10.1"
_INSTALL_SECONDS = 600


class Unavailable(Exception):
    """This machine cannot have the environment; the message says why."""


def official_interpreter() -> Path:
    """The interpreter that has the official clients, installed first where they are missing.

    Raises `Unavailable` without Python 3.12, or if pip cannot install.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sie-triton" / _NAME
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{_NAME}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        interpreter, complete = folder / "bin" / "python", folder / "complete"
        # The interpreter that it was made with may have gone since.
        if not (complete.exists() and complete.read_text() == " ".join(REQUIREMENTS) and _runs(interpreter)):
            _make(folder)
            complete.write_text(" ".join(REQUIREMENTS))
    return interpreter


def _make(folder: Path) -> None:
    base = next((candidate for candidate in _candidates() if _runs(candidate)), None)
    if base is None:
        raise Unavailable(f"the official clients need Python {PYTHON}, which is not here")
    _run([base, "-m", "venv", "--clear", folder])
    _run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", *REQUIREMENTS])


def _candidates() -> Iterator[Path]:
    yield Path(sys.executable)
    if found := shutil.which(f"python{PYTHON}"):
        yield Path(found)
    # pyenv's `python3.12` on PATH is a stub that only runs where that version is the chosen one.
    root = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    yield from sorted(root.glob(f"versions/{PYTHON}*/bin/python{PYTHON}"))


def _runs(interpreter: Path) -> bool:
    question = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
    try:
        done = subprocess.run([interpreter, "-I", "-c", question], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.stdout.strip() == PYTHON


def _run(command: list[str | Path]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"the official clients were not installed after {_INSTALL_SECONDS} s") from error
    if done.returncode:
        raise Unavailable(f"the official clients cannot be installed: {(done.stderr or done.stdout).strip()[-500:]}")
