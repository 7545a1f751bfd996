"""The tiny CLIP below float32, in a repository that has it in float32 too: one server has both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from answers.few import few

from sie_triton.embedded.openvino_engine import installed
from sie_triton.repository.processor import multiplies_bfloat16

from .builds import MODEL, build

there = pytest.mark.skipif(not installed(), reason="needs `openvino`, an extra")
HALVED, HALVED_NAME = "acme/clip-halved", "acme__clip-halved"
ITEMS = 60
# A processor that does not multiply bfloat16 serves OpenVINO's float32.
PRECISION = "bfloat16" if multiplies_bfloat16() else "float32"


def build_halved(root: Path, *more: str) -> None:
    """`HALVED`, by OpenVINO, out of `root/checkpoint` into `root/repository`, beside what lies there.

    What random weights put next to what is decided by the last digits: they may lose answers.
    """
    text = (root / "bundles" / "clip.yaml").read_text(encoding="utf-8").replace(MODEL, HALVED)
    with pytest.MonkeyPatch.context() as patch:
        few(patch, text=ITEMS, image=ITEMS)
        asked = ("--precision", PRECISION, "--engine", "openvino", "--accept", "nearest=0.3", *more)
        done = build(root, "--device", "cpu", *asked, bundle=text, model=HALVED)
    assert done.code == 0, done.stderr


def least_cosine(ours: Any, theirs: Any) -> float:
    """Of vectors of any length `[n, width]`, line by line."""
    ours, theirs = (side / np.linalg.norm(side, axis=-1, keepdims=True) for side in map(np.asarray, (ours, theirs)))
    return float((ours * theirs).sum(-1).min())
