"""Page models as wide as the published ones, with one layer each and few words, against transformers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from frontend.pictures import noise
from PIL import Image
from sie_frontend.images.entry import TiledInput
from sie_frontend.images.preparing import preparer
from sie_frontend.rows import Array

from sie_triton.facts import Tiling
from sie_triton.planning.tensors import INPUT_IDS, PIXELS

from . import checkpoints, idefics3
from .checkpoints import write_colpali
from .idefics3 import write_colsmol
from .test_colpali_graphs import pictures, plans, prompt_of, run, seen
from .test_colsmol_graphs import ADAPTER, prepared
from .test_colsmol_graphs import seen as seen_tiles

pytestmark = pytest.mark.skipif(
    not os.environ.get("SIE_TRITON_ALL_RECIPES"), reason="a gigabyte of weights: set SIE_TRITON_ALL_RECIPES=1"
)
COLPALI = {
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 1,
        "num_attention_heads": 16,
        "image_size": 448,
        "patch_size": 14,
        "projection_dim": 2048,
        "vision_use_head": False,
    },
    "text_config": {
        "model_type": "gemma",
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 1,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
    },
    "projection_dim": 2048,
    "hidden_size": 2048,
}
COLSMOL = {
    "vision_config": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 1,
        "num_attention_heads": 12,
        "image_size": 512,
        "patch_size": 16,
    },
    "text_config": {
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 1,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
    },
    "scale_factor": 4,
}


def assert_near(ours: Array, theirs: Array) -> None:
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


def test_colpali(tmp_path: Path) -> None:
    """1024 patches of 448 by 448 pixels, and the prompt."""
    told = {**checkpoints.PREPROCESSOR, "image_seq_length": 1024, "size": {"height": 448, "width": 448}}
    model = write_colpali(tmp_path, config=COLPALI, preprocessor=told, width=128, spread=1.0)
    plan, levels = plans(tmp_path, 128)["image"], pictures(1, 448)
    ours = run(tmp_path, plan, {PIXELS: levels})
    assert ours.shape[1] == 1024 + len(prompt_of(plan))
    assert_near(ours, seen(model, levels, tmp_path, prompt_of(plan)))


def test_colsmol(tmp_path: Path) -> None:
    """A page of two by three tiles of 512, and itself as the seventh: 64 positions each."""
    sizes = {"max_image_size": {"longest_edge": 512}, "size": {"longest_edge": 1536}}
    model = write_colsmol(
        tmp_path, config=COLSMOL, preprocessor={**idefics3.PREPROCESSOR, **sizes}, width=128, spread=1.0
    )
    plan = plans(tmp_path, 128, ADAPTER)["image"]
    page = plan.encoder.page
    assert isinstance(page, Tiling)
    assert page.positions == 64
    entry = TiledInput(PIXELS, INPUT_IDS, 512, 1536, "lanczos", "", page.image_id, page.positions, dict(page.layouts))
    picture = Image.fromarray(noise(900, 560))
    row = preparer(entry).row(picture)
    assert row.shape_key == "2x3"
    ours = run(tmp_path, plan, {name: array[None] for name, array in row.arrays.items()})
    assert_near(ours, seen_tiles(model, prepared(tmp_path, picture, page.positions)))
