"""The official clients' own virtual environments."""

from __future__ import annotations

from pathlib import Path

from environments import Unavailable, environment, interpreter

__all__ = ["Unavailable", "image_interpreter", "official_base", "official_interpreter", "rerank_interpreter"]

PYTHON = "3.12"


def official_interpreter() -> Path:
    """The interpreter that has the official clients, installed first where they are missing.

    Raises `Unavailable` without Python 3.12, or if pip cannot install.
    """
    return environment("official-0.10.1", official_base())


def rerank_interpreter() -> Path:
    """The interpreter that has the clients which need many packages; raises as `official_interpreter` does."""
    return environment("rerank-clients", official_base())


def image_interpreter() -> Path:
    """The interpreter that has the classes of LlamaIndex and LangChain; raises as `official_interpreter` does."""
    return environment("image-clients", official_base())


def official_base() -> Path:
    """An interpreter for which the official clients exist. Raises `Unavailable` where there is none."""
    base = interpreter(PYTHON)
    if base is None:
        raise Unavailable(f"the official clients need Python {PYTHON}, which is not here")
    return base
