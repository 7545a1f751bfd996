"""Virtual environments of their own for tests: made once beside the weights, reused by every later session."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

_INSTALL_SECONDS = 600


class Unavailable(Exception):
    """This machine cannot have the environment; the message says why."""


def environment(name: str, base: Path, requirements: Sequence[str]) -> Path:
    """The interpreter of the environment `name` that holds `requirements`, made from `base` where it is missing.

    Raises `Unavailable` if pip cannot install them.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sie-triton" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        interpreter, complete = folder / "bin" / "python", folder / "complete"
        wanted = " ".join((version_of(base), *requirements))
        # The interpreter that it was made with may have gone since.
        if not (complete.exists() and complete.read_text() == wanted and version_of(interpreter)):
            _run(name, [base, "-m", "venv", "--clear", folder])
            _run(name, [interpreter, "-m", "pip", "install", "--quiet", *requirements])
            complete.write_text(wanted)
    return interpreter


def version_of(interpreter: Path) -> str:
    """Major and minor version of an interpreter, "" where it does not run."""
    question = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
    try:
        done = subprocess.run([interpreter, "-I", "-c", question], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _run(name: str, command: list[str | Path]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"the environment `{name}` was not installed after {_INSTALL_SECONDS} s") from error
    if done.returncode:
        raise Unavailable(
            f"the environment `{name}` cannot be installed: {(done.stderr or done.stdout).strip()[-500:]}"
        )
