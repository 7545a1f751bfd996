"""Checkpoints made once per test session, whichever of its processes asks; whoever changes one makes his own."""

from __future__ import annotations

from functools import lru_cache

from shared import made_once, run_folder

from .factory import FAMILIES, found, make
from .family import MadeCheckpoint
from .oracle import Oracle


@lru_cache
def made(name: str) -> MadeCheckpoint:
    """The family's checkpoint and bundle, to be read only."""
    folder = made_once(run_folder() / "recipes" / name, lambda folder: make(name, folder))
    return found(FAMILIES[name], folder)


@lru_cache
def oracle(name: str) -> Oracle:
    """The reference of the family's bundle."""
    return Oracle(made(name).bundle_path)
