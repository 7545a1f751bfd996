"""The ranges that the three distributions have of other packages."""

from __future__ import annotations

import sys
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = ("pyproject.toml", "frontend/pyproject.toml", "sdk/pyproject.toml")


def ranges() -> dict[str, list[Requirement]]:
    """Every requirement, those of the extras too, by its canonical name. `onnxruntime-gpu` counts as `onnxruntime`.

    An extra that is made of other extras names the distribution itself, which is no requirement.
    """
    found: dict[str, list[Requirement]] = {}
    for project in PROJECTS:
        table = tomllib.loads((ROOT / project).read_text(encoding="utf-8"))["project"]
        extras = chain.from_iterable(table.get("optional-dependencies", {}).values())
        for requirement in map(Requirement, chain(table["dependencies"], extras)):
            if requirement.name == table["name"]:
                continue
            found.setdefault(canonicalize_name(requirement.name.removesuffix("-gpu")), []).append(requirement)
    return found
