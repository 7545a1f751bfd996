"""Both graphs of ColSmol, written, against transformers' Idefics3 and a linear layer, on its own processor's tiles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from frontend.pictures import noise
from PIL import Image
from sie_frontend.images.entry import TiledInput
from sie_frontend.images.preparing import preparer
from sie_frontend.rows import Array
from transformers import AutoTokenizer, Idefics3ImageProcessorPil, Idefics3Processor

from sie_triton.facts import Tiling
from sie_triton.onnx_graphs.declined import Declined
from sie_triton.planning.plan import TritonPlan
from sie_triton.planning.tensors import INPUT_IDS, PIXELS

from .idefics3 import IMAGE, LONGEST, PREPROCESSOR, TILE, TINY, WIDTH, Made, write_colsmol
from .test_colpali_graphs import plans, run

ADAPTER = "ColSmolAdapter"
PROMPT = f"<|im_start|>User:{IMAGE}Describe the image.<end_of_utterance>\nAssistant:"
SIZES = ((40, 40), (40, 18), (18, 40), (48, 30), (1, 60), (3, 5))
POSITIONS = 4


def entry_of(plan: TritonPlan) -> TiledInput:
    page = plan.encoder.page
    assert isinstance(page, Tiling)
    layouts = dict(page.layouts)
    return TiledInput(PIXELS, INPUT_IDS, TILE, LONGEST, "lanczos", "", page.image_id, page.positions, layouts)


def prepared(folder: Path, picture: Image.Image, positions: int = POSITIONS) -> dict[str, torch.Tensor]:
    images = Idefics3ImageProcessorPil.from_pretrained(folder)
    processor = Idefics3Processor(images, AutoTokenizer.from_pretrained(folder), image_seq_len=positions)
    given = processor(text=[PROMPT], images=[[picture]], return_tensors="pt", input_data_format="channels_last")
    return dict(given)


def seen(model: Made, given: dict[str, torch.Tensor]) -> Array:
    with torch.inference_mode():
        found: Array = model(**given).numpy()
    return found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made]:
    folder = tmp_path_factory.mktemp("colsmol")
    return folder, write_colsmol(folder)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pages(tiny: tuple[Path, Made], size: tuple[int, int]) -> None:
    """Alone as beside another of its grid; every tile, marker and new line is where the processor has it."""
    folder, model = tiny
    plan = plans(folder, WIDTH, ADAPTER)["image"]
    pictures = [Image.fromarray(noise(*size)), Image.fromarray(255 - noise(*size))]
    rows = [preparer(entry_of(plan)).row(picture) for picture in pictures]
    feeds = {name: np.stack([row.arrays[name] for row in rows]) for name in rows[0].arrays}
    shown = int((feeds["input_ids"][0] == entry_of(plan).image_id).sum())
    assert shown == feeds["pixels"].shape[1] * POSITIONS
    ours = run(folder, plan, feeds)
    assert ours.shape == (2, rows[0].cost, WIDTH)
    for number, picture in enumerate(pictures):
        given = prepared(folder, picture)
        assert feeds["input_ids"][number].tolist() == given["input_ids"][0].tolist()
        np.testing.assert_allclose(ours[number], seen(model, given)[0], atol=1e-5, rtol=0)
    alone = run(folder, plan, {name: array[:1] for name, array in feeds.items()})
    np.testing.assert_allclose(alone[0], ours[0], atol=1e-6, rtol=0)


def test_what_stands_where_counts(tiny: tuple[Path, Made]) -> None:
    """Tiles in another order, a prompt left out, a level changed: other vectors come out."""
    folder, model = tiny
    plan = plans(folder, WIDTH, ADAPTER)["image"]
    picture = Image.fromarray(noise(40, 30))
    row = preparer(entry_of(plan)).row(picture)
    ours = run(folder, plan, {name: array[None] for name, array in row.arrays.items()})[0]
    given = prepared(folder, picture)
    swapped, shorter, other = dict(given), dict(given), dict(given)
    swapped["pixel_values"] = given["pixel_values"][:, [1, 0, *range(2, given["pixel_values"].shape[1])]]
    shorter["input_ids"] = given["input_ids"][:, 1:]
    shorter["attention_mask"] = given["attention_mask"][:, 1:]
    other["pixel_values"] = given["pixel_values"].clone()
    other["pixel_values"][0, 0, 0, 0, 0] += 2 / 255
    np.testing.assert_allclose(ours, seen(model, given)[0], atol=1e-5, rtol=0)
    for wrong in (swapped, shorter, other):
        found = seen(model, wrong)[0]
        assert np.abs(ours[-len(found) :] - found).max() > 1e-5


def test_texts(tiny: tuple[Path, Made]) -> None:
    """Causal, alone as beside longer ones."""
    folder, model = tiny
    plan = plans(folder, WIDTH, ADAPTER)["text"]
    random = np.random.default_rng(5)
    lengths = (3, 17, 30)
    ids = random.integers(0, 250, (3, 30))
    mask = (np.arange(30)[None] < np.array(lengths)[:, None]).astype(np.int64)
    ours = run(folder, plan, {"input_ids": ids, "attention_mask": mask})
    for number, length in enumerate(lengths):
        row = torch.from_numpy(ids[number : number + 1, :length])
        theirs = seen(model, {"input_ids": row, "attention_mask": torch.ones_like(row)})
        np.testing.assert_allclose(ours[number, :length], theirs[0], atol=1e-5, rtol=0)


def test_patches_whose_places_transformers_rounds_are_declined(tmp_path: Path) -> None:
    """It finds them by fractions of an edge in single precision, and of 25 some are not their own."""
    vision = {**TINY["vision_config"], "image_size": 50, "patch_size": 2}
    sizes = {"max_image_size": {"longest_edge": 50}, "size": {"longest_edge": 50}}
    config = {**TINY, "vision_config": vision, "scale_factor": 5}
    write_colsmol(tmp_path, config=config, preprocessor={**PREPROCESSOR, **sizes})
    with pytest.raises(Declined, match="25 by 25 patches, no power of two"):
        run(tmp_path, plans(tmp_path, WIDTH, ADAPTER)["image"], {})
