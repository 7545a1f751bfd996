"""Every kind of output has a family here that computes it, so that each is exported, witnessed, served and read.

Those for images are tests/image_text's and tests/page_models'.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import get_args

from sie_frontend.outputs.table import Head

from sie_triton.bundle import expand, load_bundle
from sie_triton.cli.targets import shipped_bundles
from sie_triton.compiler.options import select
from sie_triton.planning.families import HeadModule
from sie_triton.planning.planner import make_plans

from .factory import FAMILIES


@cache
def plans(folder: Path) -> tuple[object, ...]:
    """Of every family's bundle, without its checkpoint."""
    found: list[object] = []
    for known in FAMILIES.values():
        path = folder / f"{known.name}.yaml"
        family = replace(known, max_length=known.max_length or 48)
        path.write_text(family.bundle(folder / family.name), encoding="utf-8")
        found += _heads(path)
    seeing = ("openai__clip-vit-base-patch32.yaml", "vidore__colpali-v1.3-hf.yaml")
    return (*found, *(head for name in seeing for head in _heads(shipped_bundles() / name)))


def _heads(path: Path) -> Iterator[object]:
    bundle, _ = load_bundle(path)
    assert bundle is not None
    for plan in make_plans(bundle, select(bundle, expand(bundle)).profiles, None):
        yield from plan.heads
        yield from (head for served in plan.served for head in served.heads.values())


def test_every_head_is_computed_by_a_family(tmp_path: Path) -> None:
    assert {type(head) for head in plans(tmp_path)} >= set(get_args(HeadModule))


def test_every_manifest_entry_is_read_of_a_family(tmp_path: Path) -> None:
    assert {type(head) for head in plans(tmp_path)} >= set(get_args(Head))
