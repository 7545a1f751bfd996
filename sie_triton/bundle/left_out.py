"""Models that are not shipped on purpose, and why not: `left_out.txt`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).with_name("left_out.txt")
"""`id | why` for each, written with docs/models.md; a third column names the flag with which it is tried."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Why a model is not shipped, as a clause. `flag`: the option of `build` with which it is tried, "" for none."""

    why: str
    flag: str = ""


def left_out(model_id: str) -> LeftOut | None:
    """Why a model is not shipped, whatever the case of its id; None where nothing is known against it."""
    return _table().get(model_id.casefold())


@cache
def _table() -> Mapping[str, LeftOut]:
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    rows = (line.split(" | ") for line in lines if not line.startswith("#"))
    return {name.casefold(): LeftOut(*rest) for name, *rest in rows}
