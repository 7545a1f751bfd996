"""Where our caches are, and whether a disk has room for what is about to be written, where its size is known before."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def cache_folder() -> Path:
    """Where our caches are: `$XDG_CACHE_HOME/sie-triton`, or the same below `~/.cache`. It may not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sie-triton"


def free_bytes(folder: Path) -> int:
    """What the disk of a folder has left; the folder need not be there yet."""
    place = folder.expanduser().absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def shortage(folder: Path, needed: float) -> str | None:
    """What is short, with the folder and both sizes; None where `needed` bytes fit."""
    free = free_bytes(folder)
    if needed <= free:
        return None
    return f"`{folder}` needs {needed / 1e6:,.0f} MB and has {free / 1e6:,.0f} MB left"
