"""Both towers of CLIP, written, against transformers' own CLIP on the same pixels and tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import one_thread
import pytest
import torch
from sie_frontend.rows import Array
from transformers import CLIPImageProcessorPil, CLIPModel

from sie_triton.bundle import parse_bundle
from sie_triton.facts import read_facts
from sie_triton.formats import Precision
from sie_triton.onnx_graphs.writer import GraphWriter
from sie_triton.planning.catalogue import verdict
from sie_triton.planning.families import ImageTextRecipe
from sie_triton.planning.plan import GraphOptions, TritonPlan
from sie_triton.planning.planner import make_plans

from .checkpoints import PREPROCESSOR, SIZE, TINY, write_clip

BUNDLE = """
sie_id: acme/clip
weights_path: {folder}
inputs: {{text: true, image: true}}
tasks: {{encode: {{dense: {{dim: {dim}}}}}}}
max_sequence_length: 77
profiles:
  default:
    max_batch_tokens: 16384
    compute_precision: float16
    adapter_path: sie_server.adapters:{adapter}
    adapter_options:
      runtime:
        normalize: true
"""
RANDOM = np.random.default_rng(5)


def bundle_text(folder: Path, dim: int = 20, adapter: str = "CLIPAdapter") -> str:
    return BUNDLE.format(folder=folder, dim=dim, adapter=adapter)


def plans(
    folder: Path, dim: int = 20, adapter: str = "CLIPAdapter", options: GraphOptions | None = None
) -> dict[str, TritonPlan]:
    bundle, mistakes = parse_bundle(bundle_text(folder, dim, adapter), folder)
    assert bundle is not None, mistakes
    profile = bundle.resolve("default")
    recipe = verdict(profile, bundle)
    assert isinstance(recipe, ImageTextRecipe)
    made = make_plans(bundle, [(profile, recipe)], read_facts(folder), options)
    return {plan.modality: plan for plan in made}


def run(folder: Path, plan: TritonPlan, feeds: Mapping[str, Array], precision: Precision = "float32") -> Array:
    path = folder / f"{plan.name}.{precision}.onnx"
    if not path.is_file():
        GraphWriter(folder, lambda token: 0).write(plan, plan.graphs[0], path, precision)
    session = one_thread.session(path)
    found: Array = session.run(["dense"], dict(feeds))[0]
    return found


def unit(found: Any) -> Array:
    vectors: torch.Tensor = torch.nn.functional.normalize(found.pooler_output, dim=-1)
    return vectors.numpy()


def pictures(count: int, size: int = SIZE) -> Array:
    return RANDOM.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def seen(model: CLIPModel, levels: Array, folder: Path) -> Array:
    """What transformers makes of pictures that have their size already."""
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    values = processor(list(levels), return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    with torch.inference_mode():
        return unit(model.get_image_features(pixel_values=values))


def tokens(model: CLIPModel, lengths: tuple[int, ...], inner_end: int | None = None) -> dict[str, Array]:
    """Texts between start and end, padded on the right with the end token, as CLIP's tokenizer does."""
    text = model.config.text_config
    end = text.vocab_size - 1
    ids = np.full((len(lengths), max(lengths)), end, np.int64)
    mask = np.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, : length - 1] = [end - 1, *RANDOM.integers(0, end - 1, length - 2)]
        mask[row, :length] = 1
        if inner_end is not None and length > inner_end:
            ids[row, inner_end] = end
    return {"input_ids": ids, "attention_mask": mask}


def read(model: CLIPModel, feeds: Mapping[str, Array]) -> Array:
    with torch.inference_mode():
        return unit(model.get_text_features(**{name: torch.from_numpy(array) for name, array in feeds.items()}))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CLIPModel]:
    folder = tmp_path_factory.mktemp("clip")
    return folder, write_clip(folder)


def test_pictures(tiny: tuple[Path, CLIPModel]) -> None:
    folder, model = tiny
    levels = pictures(5)
    ours = run(folder, plans(folder)["image"], {"pixels": levels})
    np.testing.assert_allclose(ours, seen(model, levels, folder), atol=1e-5, rtol=0)


def test_every_level_stands_for_what_the_processor_makes_of_it(tiny: tuple[Path, CLIPModel]) -> None:
    from sie_triton.onnx_graphs.pixels import level_values

    folder, _ = tiny
    levels = np.zeros((SIZE, SIZE, 3), np.uint8)
    levels.reshape(-1, 3)[:256] = np.arange(256, dtype=np.uint8)[:, None]
    values = CLIPImageProcessorPil.from_pretrained(folder)(levels, return_tensors="np")["pixel_values"][0]
    pixels = plans(folder)["image"].encoder.pixels
    assert pixels is not None
    np.testing.assert_array_equal(level_values(pixels), values.reshape(3, -1)[:, :256])


def test_pictures_alone_and_together(tiny: tuple[Path, CLIPModel]) -> None:
    folder, _ = tiny
    plan, levels = plans(folder)["image"], pictures(6)
    together = run(folder, plan, {"pixels": levels})
    alone = [run(folder, plan, {"pixels": levels[row : row + 1]})[0] for row in range(len(levels))]
    np.testing.assert_allclose(together, alone, atol=1e-6, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(together, axis=-1), 1, atol=1e-6)


@pytest.mark.parametrize("legacy_end", [False, True], ids=["named", "legacy"])
@pytest.mark.parametrize("inner_end", [None, 3], ids=["plain", "end within"])
def test_texts(legacy_end: bool, inner_end: int | None, tmp_path: Path) -> None:
    model = write_clip(tmp_path, legacy_end=legacy_end)
    feeds = tokens(model, (2, 9, 40, 77), inner_end)
    ours = run(tmp_path, plans(tmp_path)["text"], feeds)
    np.testing.assert_allclose(ours, read(model, feeds), atol=1e-5, rtol=0)


def test_texts_alone_and_together(tiny: tuple[Path, CLIPModel]) -> None:
    folder, model = tiny
    lengths = (2, 11, 30, 77)
    feeds, plan = tokens(model, lengths), plans(folder)["text"]
    together = run(folder, plan, feeds)
    for row, length in enumerate(lengths):
        alone = {name: array[row : row + 1, :length] for name, array in feeds.items()}
        np.testing.assert_allclose(run(folder, plan, alone)[0], together[row], atol=1e-6, rtol=0)
        np.testing.assert_allclose(read(model, alone)[0], together[row], atol=1e-5, rtol=0)


def test_another_activation(tmp_path: Path) -> None:
    """LAION's CLIP has `gelu`, and a wrong activation is plausible and wrong."""
    towers = {part: {**TINY[part], "hidden_act": "gelu"} for part in ("text_config", "vision_config")}
    model = write_clip(tmp_path, config={**TINY, **towers})
    levels, feeds, made = pictures(3), tokens(model, (5, 9)), plans(tmp_path)
    np.testing.assert_allclose(
        run(tmp_path, made["image"], {"pixels": levels}), seen(model, levels, tmp_path), atol=1e-5, rtol=0
    )
    np.testing.assert_allclose(run(tmp_path, made["text"], feeds), read(model, feeds), atol=1e-5, rtol=0)


def test_half_precision_is_close(tiny: tuple[Path, CLIPModel]) -> None:
    folder, model = tiny
    levels, feeds, made = pictures(4), tokens(model, (5, 9, 60)), plans(folder)
    for ours, theirs in (
        (run(folder, made["image"], {"pixels": levels}, "float16"), seen(model, levels, folder)),
        (run(folder, made["text"], feeds, "float16"), read(model, feeds)),
    ):
        assert ours.dtype == np.float32
        assert (ours * theirs).sum(-1).min() > 0.999
        assert np.abs(ours - theirs).max() > 0, "it is not the float32 graph"


@pytest.mark.export
def test_the_real_architecture(tmp_path: Path) -> None:
    """ViT-B/32 as OpenAI has it, with fewer layers and random weights."""
    layers = {"num_hidden_layers": 4}
    sized = {"height": 224, "width": 224}
    model = write_clip(
        tmp_path,
        config={"projection_dim": 512, "text_config": layers, "vision_config": layers},
        preprocessor={**PREPROCESSOR, "size": {"shortest_edge": 224}, "crop_size": sized},
        spread=1.0,
    )
    made = plans(tmp_path, dim=512)
    assert made["image"].row_tokens == 50
    levels, feeds = pictures(3, 224), tokens(model, (4, 20, 77))
    np.testing.assert_allclose(
        run(tmp_path, made["image"], {"pixels": levels}), seen(model, levels, tmp_path), atol=1e-5, rtol=0
    )
    np.testing.assert_allclose(run(tmp_path, made["text"], feeds), read(model, feeds), atol=1e-5, rtol=0)
