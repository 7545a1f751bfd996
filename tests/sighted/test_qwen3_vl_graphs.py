"""The graph of Qwen3-VL, written, against transformers' own class on the same words and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import one_thread
import onnxruntime
import pytest
import torch
from PIL import Image
from sie_frontend.mixed.entry import Patching
from sie_frontend.mixed.patches import cut_into_patches
from sie_frontend.mixed.rows import MixedRow, expanded, fills
from sie_frontend.rows import Array, stack
from transformers import Qwen2VLImageProcessorPil

from sie_triton.bundle import parse_bundle
from sie_triton.diagnostics import DiagnosticError
from sie_triton.facts import Pixels, Sighted, read_facts
from sie_triton.formats import Precision
from sie_triton.onnx_graphs.declined import Declined
from sie_triton.onnx_graphs.writer import GraphWriter
from sie_triton.planning.catalogue import verdict
from sie_triton.planning.families import MixedRecipe
from sie_triton.planning.families import mixed as family
from sie_triton.planning.plan import TritonPlan
from sie_triton.planning.planner import make_plans

from .checkpoints import PREPROCESSOR, TEMPLATE, bundle_text, write_qwen3_vl

RANDOM = np.random.default_rng(5)
BOUNDS = (4096, 12288)
PATCHING = Patching(16, 2, *BOUNDS, "bicubic", 6, grouped=True)
# A square, strips both ways, one that is scaled down, several of one item; and none.
ITEMS: tuple[tuple[tuple[int, int], ...], ...] = (
    *((), ((64, 64),), ((300, 30),), ((20, 90),), ((500, 400),)),
    *(((64, 64), (100, 33)), ((33, 100), (64, 64), (40, 41)), ((64, 64), (110, 110), (60, 60))),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("seer")
    write_qwen3_vl(made)
    return made


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    from transformers import Qwen3VLForConditionalGeneration

    return Qwen3VLForConditionalGeneration.from_pretrained(folder).eval()


def plan_of(folder: Path, adapter: str = "Embedding") -> TritonPlan:
    bundle, mistakes = parse_bundle(bundle_text(folder, adapter=adapter), folder)
    assert bundle is not None, mistakes
    profile = bundle.resolve("default")
    recipe = verdict(profile, bundle)
    assert isinstance(recipe, MixedRecipe)
    (plan,) = make_plans(bundle, [(profile, recipe)], read_facts(folder))
    return plan


def session_of(
    folder: Path, plan: TritonPlan, ids: dict[str, int] | None = None, precision: Precision = "float32"
) -> onnxruntime.InferenceSession:
    path = folder / f"{plan.graphs[0].outputs[0].name}.{precision}.onnx"
    GraphWriter(folder, (ids or {}).__getitem__).write(plan, plan.graphs[0], path, precision)
    return one_thread.session(path)


@pytest.fixture(scope="module")
def session(folder: Path) -> onnxruntime.InferenceSession:
    return session_of(folder, plan_of(folder))


def row_of(config: Any, sizes: Sequence[tuple[int, int]], words: int = 4) -> tuple[MixedRow, list[Image.Image]]:
    given = [Image.fromarray(RANDOM.integers(0, 256, (high, wide, 3), dtype=np.uint8)) for wide, high in sizes]
    pictures = tuple(cut_into_patches(one, PATCHING) for one in given)
    around = (config.vision_start_token_id, config.image_token_id, config.vision_end_token_id)
    ids = [*range(40, 40 + words), *(token for _ in given for token in around), *range(60, 60 + words)]
    squares = [len(one.levels) // 4 for one in pictures]
    return MixedRow(expanded(ids, config.image_token_id, squares), pictures, PATCHING, config.image_token_id), given


def told(model: Any, row: MixedRow, pictures: Sequence[Image.Image]) -> Any:
    """transformers' call of one item, with its own processor and its own positions; `model` is whole or the body."""
    ids = torch.tensor(row.ids)[None]
    given = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    if pictures:
        bounds = dict(zip(("shortest_edge", "longest_edge"), BOUNDS, strict=True))
        halves = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        processor = Qwen2VLImageProcessorPil(size=bounds, patch_size=16, merge_size=2, **halves)
        given |= processor(list(pictures), return_tensors="pt")
        given["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
    with torch.inference_mode():
        return model(**given)


def unit_last(states: Any) -> Array:
    vector: Array = states.last_hidden_state[0, -1].numpy()
    made: Array = vector / np.linalg.norm(vector)
    return made


@pytest.mark.parametrize("sizes", ITEMS, ids=str)
def test_every_item_has_transformers_vector(
    session: onnxruntime.InferenceSession, theirs: Any, sizes: tuple[tuple[int, int], ...]
) -> None:
    row, pictures = row_of(theirs.config, sizes)
    (found,) = session.run(["dense"], stack([row], row.cost, fills(0, PATCHING)))[0]
    np.testing.assert_allclose(found, unit_last(told(theirs.model, row, pictures)), atol=1e-5, rtol=0)


def test_alone_is_batched(session: onnxruntime.InferenceSession, theirs: Any) -> None:
    for sizes in ((), ((64, 64), (100, 33))):
        rows = [row_of(theirs.config, sizes, words)[0] for words in (2, 9, 5)]
        width = max(row.cost for row in rows) + 7
        together = session.run(["dense"], stack(rows, width, fills(0, PATCHING)))[0]
        alone = np.concatenate([session.run(["dense"], stack([row], row.cost, fills(0, PATCHING)))[0] for row in rows])
        np.testing.assert_allclose(together, alone, atol=1e-6, rtol=0)
        assert np.abs(alone[0] - alone[1]).max() > 0.01


@pytest.mark.parametrize(
    "name",
    ["position_ids", "patches", "patch_positions", "patch_images", "image_places", "table_rows", "table_weights"],
)
def test_whatever_the_caller_computes_counts(session: onnxruntime.InferenceSession, theirs: Any, name: str) -> None:
    """A mistake in any of it is another vector, by far more than the tolerance."""
    row, pictures = row_of(theirs.config, ((110, 110), (64, 64), (60, 60)))  # the two small ones share a group
    batch = stack([row], row.cost, fills(0, PATCHING))
    right = unit_last(told(theirs.model, row, pictures))
    if name == "patch_images":
        batch[name] = np.zeros_like(batch[name])
    else:
        batch[name] = np.ascontiguousarray(batch[name][:, ::-1])
    assert np.abs(session.run(["dense"], batch)[0][0] - right).max() > 1e-3


def test_a_reranker_is_sure_as_transformers_is(folder: Path, theirs: Any) -> None:
    answers = {"yes": 100, "no": 7}
    session = session_of(folder, plan_of(folder, "Reranker"), answers)
    for sizes in ITEMS[:2]:
        row, pictures = row_of(theirs.config, sizes)
        logits = told(theirs, row, pictures).logits[0, -1]
        sure = torch.sigmoid(logits[answers["yes"]] - logits[answers["no"]]).item()
        (found,) = session.run(["score"], stack([row], row.cost, fills(0, PATCHING)))[0]
        np.testing.assert_allclose(found, [sure], atol=1e-5, rtol=0)


def test_half_precision_stays_near(folder: Path, theirs: Any) -> None:
    session = session_of(folder, plan_of(folder), precision="float16")
    row, pictures = row_of(theirs.config, ITEMS[5])
    (found,) = session.run(["dense"], stack([row], row.cost, fills(0, PATCHING)))[0]
    assert float(found @ unit_last(told(theirs.model, row, pictures))) > 0.999


def test_the_plan_says_what_goes_in(folder: Path) -> None:
    plan = plan_of(folder)
    assert plan.name == "acme__seer"
    assert [(tensor.name, tensor.datatype, tensor.dims) for tensor in plan.inputs] == [
        ("input_ids", "INT64", (-1,)),
        ("attention_mask", "INT64", (-1,)),
        ("position_ids", "INT64", (-1, 3)),
        ("patches", "UINT8", (-1, 768)),
        ("patch_positions", "INT64", (-1, 2)),
        ("patch_images", "INT64", (-1,)),
        ("image_groups", "INT64", (-1, -1)),
        ("image_places", "INT64", (-1,)),
        ("table_rows", "INT64", (-1, 4)),
        ("table_weights", "FP32", (-1, 4)),
    ]
    halves = (0.5, 0.5, 0.5)
    pixels = Pixels(0, "squash", "bicubic", 0.00392156862745098, halves, halves)
    assert plan.encoder.sighted == Sighted(pixels, 16, 2, 256 * 784, 1280 * 784, table_side=6)
    assert plan.max_length == 700


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"patch_size": 0}, "`patch_size` is 0"),
        ({"image_processor_type": "OtherImageProcessor"}, "by `OtherImageProcessor`"),
        ({"do_resize": False}, "with `do_resize: False`"),
        ({"resample": 9}, "with `resample` 9"),
        ({"image_std": [1, 0, 1]}, "`image_std`"),
        ({"new_step": 1}, "`new_step`"),
        ({"do_center_crop": True}, "`do_center_crop`"),
    ],
)
def test_pictures_that_are_prepared_otherwise_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    write_qwen3_vl(tmp_path, preprocessor={**PREPROCESSOR, **changes})
    with pytest.raises(DiagnosticError) as error:
        plan_of(tmp_path)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{{ part.text }}", "{{ part.text | trim }}", "does not copy its parts unchanged"),
        ("<|image_pad|>", "<|image_pad|>{{ loop.index }}", "does not copy its parts unchanged"),
        ("{{ message.role }}", "{{ part.text }}{{ message.role }}", "cannot be rendered|not write the system's text"),
        ("{% for message in messages %}", "{% for message in messages[1:] %}", "not write the system's text"),
        ("{% endfor %}<|im_end|>", "{% endif %}<|im_end|>", "is not valid"),
    ],
)
def test_a_template_that_does_more_than_copy_is_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    write_qwen3_vl(tmp_path, template=TEMPLATE.replace(old, new))
    with pytest.raises(DiagnosticError, match=said):
        plan_of(tmp_path)


def test_other_architectures_and_widths_are_named(folder: Path, tmp_path: Path) -> None:
    bundle, _ = parse_bundle(bundle_text(folder, width=25), folder)
    assert bundle is not None
    profile = bundle.resolve("default")
    with pytest.raises(DiagnosticError, match="declares 25 dense dimensions, the checkpoint gives 24"):
        make_plans(bundle, [(profile, family.ADAPTERS["Qwen3VLEmbeddingAdapter"])], read_facts(folder))
    write_qwen3_vl(tmp_path, patch_size=8)
    with pytest.raises(Declined, match="`patch_size` is 8"):
        session_of(tmp_path, plan_of(tmp_path))
