"""Both towers of SigLIP, written, against transformers' own SigLIP on the same pixels and tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sie_frontend.rows import Array
from transformers import SiglipImageProcessorPil, SiglipModel

from .checkpoints import SIGLIP, SIGLIP_PREPROCESSOR, SIZE, write_siglip
from .test_image_text_graphs import plans, run, unit

RANDOM = np.random.default_rng(6)
LENGTH = 16


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SiglipModel]:
    folder = tmp_path_factory.mktemp("siglip")
    return folder, write_siglip(folder)


def seen(model: SiglipModel, levels: Array, folder: Path) -> Array:
    processor = SiglipImageProcessorPil.from_pretrained(folder)
    values = processor(list(levels), return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    with torch.inference_mode():
        return unit(model.get_image_features(pixel_values=values))


def read(model: SiglipModel, ids: Array) -> Array:
    with torch.inference_mode():
        return unit(model.get_text_features(input_ids=torch.from_numpy(ids)))


def pictures(count: int, size: int = SIZE) -> Array:
    return RANDOM.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def texts(model: SiglipModel, count: int, length: int = LENGTH) -> Array:
    ids = RANDOM.integers(3, model.config.text_config.vocab_size, (count, length))
    for row in range(count):
        ids[row, row + 2 :] = 1
    return ids


def test_pictures_alone_and_together(tiny: tuple[Path, SiglipModel]) -> None:
    folder, model = tiny
    plan, levels = plans(folder, 24, "SiglipAdapter")["image"], pictures(5)
    together = run(folder, plan, {"pixels": levels})
    np.testing.assert_allclose(together, seen(model, levels, folder), atol=1e-5, rtol=0)
    alone = [run(folder, plan, {"pixels": levels[row : row + 1]})[0] for row in range(len(levels))]
    np.testing.assert_allclose(together, alone, atol=1e-6, rtol=0)


def test_texts_alone_and_together(tiny: tuple[Path, SiglipModel]) -> None:
    folder, model = tiny
    plan, ids = plans(folder, 24, "SiglipAdapter")["text"], texts(model, 6)
    assert plan.inputs[0].dims == (LENGTH,)
    assert plan.buckets == (LENGTH,)
    together = run(folder, plan, {"input_ids": ids})
    np.testing.assert_allclose(together, read(model, ids), atol=1e-5, rtol=0)
    alone = [run(folder, plan, {"input_ids": ids[row : row + 1]})[0] for row in range(len(ids))]
    np.testing.assert_allclose(together, alone, atol=1e-6, rtol=0)


def test_half_precision_is_close(tiny: tuple[Path, SiglipModel]) -> None:
    folder, model = tiny
    made, levels, ids = plans(folder, 24, "SiglipAdapter"), pictures(4), texts(model, 4)
    for ours, theirs in (
        (run(folder, made["image"], {"pixels": levels}, "float16"), seen(model, levels, folder)),
        (run(folder, made["text"], {"input_ids": ids}, "float16"), read(model, ids)),
    ):
        assert (ours * theirs).sum(-1).min() > 0.999
        assert np.abs(ours - theirs).max() > 0, "it is not the float32 graph"


@pytest.mark.export
def test_the_real_architecture(tmp_path: Path) -> None:
    """`base-patch16-256` as Google has it, with fewer layers and random weights."""
    layers = {"num_hidden_layers": 4}
    model = write_siglip(
        tmp_path,
        config={**SIGLIP, "text_config": layers, "vision_config": {**layers, "image_size": 256}},
        preprocessor={**SIGLIP_PREPROCESSOR, "size": {"height": 256, "width": 256}},
        tokenizer={"model_max_length": 64},
        spread=1.0,
    )
    made = plans(tmp_path, 768, "SiglipAdapter")
    assert made["image"].row_tokens == 256
    assert made["text"].max_length == 64
    levels, ids = pictures(2, 256), texts(model, 3, 64)
    np.testing.assert_allclose(
        run(tmp_path, made["image"], {"pixels": levels}), seen(model, levels, tmp_path), atol=1e-5, rtol=0
    )
    np.testing.assert_allclose(run(tmp_path, made["text"], {"input_ids": ids}), read(model, ids), atol=1e-5, rtol=0)
