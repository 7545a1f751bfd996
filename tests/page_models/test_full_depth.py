"""Page models as deep as the published ones, and narrow, in float16 as a GPU rounds it: what layers add up to."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
from frontend.pictures import noise
from PIL import Image
from sie_frontend.images.preparing import preparer
from sie_frontend.rows import Array

from sie_triton.half_precision.ranges import Ranges
from sie_triton.half_precision.rounded_onnx import open_rounded
from sie_triton.onnx_graphs.writer import GraphWriter
from sie_triton.planning.plan import TritonPlan

from . import checkpoints, idefics3
from .test_colpali_graphs import pictures, plans, prompt_of, seen
from .test_colsmol_graphs import ADAPTER, entry_of, prepared
from .test_colsmol_graphs import seen as seen_tiles

# Layers of the towers and of the language models of SmolVLM 256M and of PaliGemma 3B.
DEPTHS = {"colsmol": (12, 30), "colpali": (27, 18)}


def deep(config: dict[str, object], name: str) -> dict[str, object]:
    vision, text = DEPTHS[name]
    made = dict(config)
    for part, layers in (("vision_config", vision), ("text_config", text)):
        inner = config[part]
        assert isinstance(inner, dict)
        made[part] = {**inner, "num_hidden_layers": layers}
    return made


def rounded(folder: Path, plan: TritonPlan, feeds: dict[str, Array]) -> tuple[Array, Ranges]:
    """The float16 graph, rounded behind every operator, and how large its tensors became."""
    path = folder / plan.name / "1" / "model.float16.onnx"
    path.parent.mkdir(parents=True)
    GraphWriter(folder, lambda token: 0).write(plan, plan.graphs[0], path, "float16")
    ranges = Ranges("float16")
    (found,) = open_rounded(ranges, None, path, None)(feeds, ["multivector"])
    return found, ranges


def colsmol(folder: Path) -> tuple[TritonPlan, dict[str, Array], Array]:
    model = idefics3.write_colsmol(folder, config=deep(dict(idefics3.TINY), "colsmol"))
    plan, picture = plans(folder, idefics3.WIDTH, ADAPTER)["image"], Image.fromarray(noise(40, 18))
    row = preparer(entry_of(plan)).row(picture)
    feeds = {name: array[None] for name, array in row.arrays.items()}
    return plan, feeds, seen_tiles(model, prepared(folder, picture))


def colpali(folder: Path) -> tuple[TritonPlan, dict[str, Array], Array]:
    model = checkpoints.write_colpali(folder, config=deep(dict(checkpoints.TINY), "colpali"))
    plan, levels = plans(folder)["image"], pictures(1)
    return plan, {"pixels": levels}, seen(model, levels, folder, prompt_of(plan))


MAKERS = [colsmol, *([colpali] if os.environ.get("SIE_TRITON_ALL_RECIPES") else [])]


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_float16_at_the_depth_of_published_ones(make: object, tmp_path: Path) -> None:
    assert callable(make)
    plan, feeds, theirs = make(tmp_path)
    assert plan.precisions["cuda"] == "float16"
    found, ranges = rounded(tmp_path, plan, feeds)
    cosines = (found * theirs).sum(-1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(theirs, axis=-1)
    assert cosines.min() >= 0.999
    assert ranges.beyond() == []
    assert all(math.isfinite(peak.magnitude) for peak in ranges.peaks.values())
