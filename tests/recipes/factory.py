"""Tiny checkpoints of every architecture family that SIE's text bundles name, made on the spot and always the same.

`make(family, folder)` writes one checkpoint and the bundle that serves it; `FAMILIES` are the families by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .dense_families import DENSE_FAMILIES
from .family import Family, MadeCheckpoint
from .late_interaction_families import LATE_INTERACTION_FAMILIES
from .score_families import SCORE_FAMILIES
from .sparse_families import SPARSE_FAMILIES

FAMILIES: Mapping[str, Family] = {
    family.name: family for family in (*DENSE_FAMILIES, *SPARSE_FAMILIES, *LATE_INTERACTION_FAMILIES, *SCORE_FAMILIES)
}


def make(family: Family | str, folder: Path) -> MadeCheckpoint:
    """Write `folder/<slug>/` and `folder/<slug>.yaml`; the weights depend on the slug and on nothing else."""
    family = FAMILIES[family] if isinstance(family, str) else family
    made = found(family, folder)
    made.folder.mkdir(parents=True)
    family.build(made.folder)
    made.bundle_path.write_text(family.bundle(made.folder), encoding="utf-8")
    return made


def found(family: Family, folder: Path) -> MadeCheckpoint:
    """What `make` writes to the folder."""
    slug = family.sie_id.rpartition("/")[2]
    return MadeCheckpoint(folder.resolve() / slug, folder.resolve() / f"{slug}.yaml", family.sie_id)
