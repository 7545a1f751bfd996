"""Builds of the checkpoints of this folder, and what a request may ask of their readers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compiler.command import Outcome, sie_triton

from .test_image_text_graphs import bundle_text

MODEL, NAME = "acme/clip", "acme__clip"


@dataclass(frozen=True)
class Asked:
    """A call's options, as a request gives them."""

    options: Mapping[str, Any] = field(default_factory=dict)
    instruction: str | None = None


def build(
    root: Path,
    *more: str | Path,
    bundle: str = "",
    dim: int = 20,
    adapter: str = "CLIPAdapter",
    model: str = MODEL,
) -> Outcome:
    """`root/checkpoint` into `root/repository`, by a bundle of its own, or by this one, which names the `model`."""
    (root / "bundles").mkdir(exist_ok=True)
    text = bundle or bundle_text(root / "checkpoint", dim, adapter)
    (root / "bundles" / f"{model.rpartition('/')[2]}.yaml").write_text(text, encoding="utf-8")
    return sie_triton("build", "--bundles", root / "bundles", "-m", model, "-r", root / "repository", *more)
