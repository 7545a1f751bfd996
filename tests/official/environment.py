"""The official clients' own virtual environment."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from environments import Unavailable, environment, version_of

__all__ = ["Unavailable", "official_interpreter", "rerank_interpreter"]

PYTHON = "3.12"
REQUIREMENTS = ("sie-sdk==0.10.1", "openai", "cohere==7.3.1")
RERANK_REQUIREMENTS = ("litellm==1.110.2", "langchain-cohere==0.6.0", "langchain-community==0.4.2")


def official_interpreter() -> Path:
    """The interpreter that has the official clients, installed first where they are missing.

    Raises `Unavailable` without Python 3.12, or if pip cannot install.
    """
    return environment("official-0.10.1", official_base(), REQUIREMENTS)


def rerank_interpreter() -> Path:
    """The interpreter that has the clients which need many packages; raises as `official_interpreter` does."""
    return environment("rerank-clients", official_base(), RERANK_REQUIREMENTS)


def official_base() -> Path:
    """An interpreter for which the official clients exist. Raises `Unavailable` where there is none."""
    base = next((candidate for candidate in _candidates() if version_of(candidate) == PYTHON), None)
    if base is None:
        raise Unavailable(f"the official clients need Python {PYTHON}, which is not here")
    return base


def _candidates() -> Iterator[Path]:
    yield Path(sys.executable)
    if found := shutil.which(f"python{PYTHON}"):
        yield Path(found)
    # pyenv's `python3.12` on PATH is a stub that only runs where that version is the chosen one.
    root = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser()
    yield from sorted(root.glob(f"versions/{PYTHON}*/bin/python{PYTHON}"))
