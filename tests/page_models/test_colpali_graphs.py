"""Both graphs of ColPali, written, against transformers' own class on the same pixels and tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import one_thread
import pytest
import torch
from sie_frontend.rows import Array
from transformers import ColPaliForRetrieval, SiglipImageProcessorPil

from sie_triton.bundle import parse_bundle
from sie_triton.facts import read_facts
from sie_triton.formats import Precision
from sie_triton.onnx_graphs.writer import GraphWriter
from sie_triton.planning.catalogue import verdict
from sie_triton.planning.families import PageRecipe
from sie_triton.planning.plan import TritonPlan
from sie_triton.planning.planner import make_plans

from .checkpoints import SIZE, WIDTH, write_colpali

BUNDLE = """
sie_id: {sie_id}
weights_path: {folder}
inputs: {{text: true, image: true}}
tasks: {{encode: {{multivector: {{dim: {dim}}}}}}}
max_sequence_length: 64
profiles:
  default:
    max_batch_tokens: 8192
    compute_precision: bfloat16
    adapter_path: sie_server.adapters:{adapter}
    adapter_options:
      loadtime:
        muvera_config: {{num_repetitions: 4, num_simhash_projections: 2, final_projection_dim: 64}}
        token_dim: {dim}
  muvera:
    extends: default
    adapter_options:
      runtime:
        output_types: [dense]
        muvera: {{}}
"""
RANDOM = np.random.default_rng(5)


def bundle_text(folder: Path, dim: int = WIDTH, adapter: str = "ColPaliAdapter", sie_id: str = "acme/pages") -> str:
    return BUNDLE.format(folder=folder, dim=dim, adapter=adapter, sie_id=sie_id)


def plans(folder: Path, dim: int = WIDTH, adapter: str = "ColPaliAdapter") -> dict[str, TritonPlan]:
    bundle, mistakes = parse_bundle(bundle_text(folder, dim, adapter), folder)
    assert bundle is not None, mistakes
    profile = bundle.resolve("default")
    recipe = verdict(profile, bundle)
    assert isinstance(recipe, PageRecipe)
    return {plan.modality: plan for plan in make_plans(bundle, [(profile, recipe)], read_facts(folder))}


def run(folder: Path, plan: TritonPlan, feeds: Mapping[str, Array], precision: Precision = "float32") -> Array:
    path = folder / f"{plan.name}.{precision}.onnx"
    if not path.is_file():
        GraphWriter(folder, lambda token: 0).write(plan, plan.graphs[0], path, precision)
    session = one_thread.session(path)
    found: Array = session.run(["multivector"], dict(feeds))[0]
    return found


def prompt_of(plan: TritonPlan) -> list[int]:
    page = plan.encoder.page
    assert isinstance(page, tuple)
    return list(page)


def pictures(count: int, size: int = SIZE) -> Array:
    return RANDOM.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def seen(model: ColPaliForRetrieval, levels: Array, folder: Path, ids: list[int]) -> Array:
    """What transformers makes of pictures that have their size already; `ids` stand behind each."""
    processor = SiglipImageProcessorPil.from_pretrained(folder)
    values = processor(list(levels), return_tensors="pt", input_data_format="channels_last")["pixel_values"]
    vlm = model.config.vlm_config
    patches = (vlm.vision_config.image_size // vlm.vision_config.patch_size) ** 2
    row = torch.tensor([[vlm.image_token_index] * patches + ids]).expand(len(levels), -1)
    return embedded(model, row, torch.ones_like(row), pixel_values=values)


def embedded(model: ColPaliForRetrieval, ids: torch.Tensor, mask: torch.Tensor, **more: torch.Tensor) -> Array:
    """With the types that the processor gives: all is prefix, and looks both ways."""
    types = torch.zeros_like(ids)
    with torch.inference_mode():
        found = model(input_ids=ids, attention_mask=mask, token_type_ids=types, use_cache=False, **more)
    vectors: Array = found.embeddings.numpy()
    return vectors


def texts(model: ColPaliForRetrieval, lengths: tuple[int, ...]) -> dict[str, Array]:
    """Random tokens, padded on the right."""
    ids = RANDOM.integers(5, 261, (len(lengths), max(lengths)))
    mask = (np.arange(max(lengths))[None] < np.array(lengths)[:, None]).astype(np.int64)
    return {"input_ids": ids * mask, "attention_mask": mask}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ColPaliForRetrieval]:
    folder = tmp_path_factory.mktemp("colpali")
    return folder, write_colpali(folder)


def test_pages(tiny: tuple[Path, ColPaliForRetrieval]) -> None:
    folder, model = tiny
    plan, levels = plans(folder)["image"], pictures(3)
    prompt = prompt_of(plan)
    assert prompt[0] == 2
    assert plan.buckets == (16 + len(prompt),)
    ours = run(folder, plan, {"pixels": levels})
    assert ours.shape == (3, *plan.buckets, WIDTH)
    np.testing.assert_allclose(ours, seen(model, levels, folder, prompt), atol=1e-5, rtol=0)
    np.testing.assert_allclose(run(folder, plan, {"pixels": levels[1:2]}), ours[1:2], atol=1e-6, rtol=0)


def test_texts(tiny: tuple[Path, ColPaliForRetrieval]) -> None:
    """Alone as beside longer ones; each looks at all of its own tokens and at no padding."""
    folder, model = tiny
    plan, feeds = plans(folder)["text"], texts(model, (3, 17, 30))
    ours = run(folder, plan, feeds)
    theirs = embedded(model, *(torch.from_numpy(feeds[name]) for name in ("input_ids", "attention_mask")))
    for row, length in enumerate((3, 17, 30)):
        np.testing.assert_allclose(ours[row, :length], theirs[row, :length], atol=1e-5, rtol=0)
        alone = run(folder, plan, {name: array[row : row + 1, :length] for name, array in feeds.items()})
        np.testing.assert_allclose(alone[0], ours[row, :length], atol=1e-5, rtol=0)


def test_a_checkpoint_of_an_older_release(tmp_path: Path) -> None:
    """That is what the hub has."""
    model = write_colpali(tmp_path, older=True)
    plan, levels = plans(tmp_path)["image"], pictures(1)
    ours = run(tmp_path, plan, {"pixels": levels})
    np.testing.assert_allclose(ours, seen(model, levels, tmp_path, prompt_of(plan)), atol=1e-5)


def test_a_page_is_read_with_its_prompt(tiny: tuple[Path, ColPaliForRetrieval]) -> None:
    """Without it, with another, or with a level changed, another vector comes out."""
    folder, model = tiny
    plan, levels = plans(folder)["image"], pictures(1)
    prompt = prompt_of(plan)
    ours = run(folder, plan, {"pixels": levels})
    other = levels.copy()
    other[0, 0, 0, 0] ^= 1
    for ids, shown in (([], levels), ([*prompt[:-1], 7], levels), (prompt, other), (prompt, levels[:, ::-1])):
        theirs = seen(model, shown, folder, ids)
        assert np.abs(ours[:, :16] - theirs[:, :16]).max() > 1e-5
