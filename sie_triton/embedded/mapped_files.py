"""Files that a process writes only to map them; standard library only."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sie_triton.embedded.once import FOLDER_VARIABLE

_BEING_MADE, _LOCKED = "new-mapped-", "mapped-"


@contextlib.contextmanager
def own_folder() -> Iterator[Path]:
    """A folder for the files of this process; what others left that were killed while they had one is removed."""
    if (place := os.environ.get(FOLDER_VARIABLE)) is not None:
        _remove_leavings(Path(place))
    made = Path(tempfile.mkdtemp(prefix=_BEING_MADE, dir=place))
    folder = made.with_name(made.name.replace(_BEING_MADE, _LOCKED, 1))
    lock = os.open(made, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made.rename(folder)
        yield folder
    finally:
        os.close(lock)
        for one in (made, folder):
            shutil.rmtree(one, ignore_errors=True)


def give_back_memory() -> None:
    """Give the system what the allocator would keep for later: weights that were held to be written."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _remove_leavings(place: Path) -> None:
    for folder in place.glob(f"{_LOCKED}*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)
