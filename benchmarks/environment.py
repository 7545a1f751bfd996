"""A peer's virtual environment: made once below the cache folder, exactly as its requirements say."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import Peer

_INSTALL_SECONDS = 1800


class Unavailable(Exception):
    """A peer cannot be measured here; the message is the word that the report has for it."""


@dataclass(frozen=True)
class Environment:
    """An interpreter with a peer's packages."""

    python: Path

    @property
    def scripts(self) -> Path:
        """Where the installed commands are."""
        return self.python.parent

    def versions(self) -> dict[str, str]:
        """What is installed, by name."""
        command = [str(self.python), "-c", _LIST_PACKAGES]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return dict(json.loads(done.stdout))

    @property
    def installed_bytes(self) -> int:
        """The disk space of the environment."""
        files = (path for path in self.python.parent.parent.rglob("*") if path.is_file() and not path.is_symlink())
        return sum(path.stat().st_size for path in files)


_LIST_PACKAGES = """\
import importlib.metadata as m, json
print(json.dumps({d.metadata["Name"].lower(): d.version for d in m.distributions()}))"""


def find_environment(peer: Peer, cache: Path, announce: Callable[[str], None]) -> Environment:
    """The environment of `peer`; our own interpreter for those that need nothing more. Raises `Unavailable`."""
    if not peer.requirements:
        return Environment(Path(sys.executable))
    base = _interpreter(peer.python)
    key = hashlib.sha256("\n".join([base, *peer.requirements]).encode()).hexdigest()[:10]
    folder = cache / f"{peer.module}-{key}"
    done = folder / "complete"
    if not done.exists():
        announce(f"{peer.name}: installing {', '.join(peer.requirements)}")
        # Half an environment from an interrupted run would look like a peer that does not work.
        shutil.rmtree(folder, ignore_errors=True)
        _call([base, "-m", "venv", str(folder)], f"`venv` of {base}")
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            _call([*pip, *peer.requirements], "pip")
        except Unavailable:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        done.touch()
    return Environment(folder / "bin" / "python")


def _interpreter(minor: str | None) -> str:
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if minor in (None, own):
        return sys.executable
    candidates = [shutil.which(f"python{minor}"), *map(str, Path.home().glob(f".pyenv/versions/{minor}.*/bin/python"))]
    for candidate in candidates:
        if candidate and _says(candidate) == minor:
            return candidate
    raise Unavailable(f"it needs Python {minor}, which is not on the path")


def _says(interpreter: str) -> str:
    command = [interpreter, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _call(command: list[str], what: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{what} did not finish within {_INSTALL_SECONDS} seconds") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise Unavailable(f"{what} failed: {(errors or ['no reason given'])[0].removeprefix('ERROR: ')}")
