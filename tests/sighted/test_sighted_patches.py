"""Sizes, pixels and places of patches and tokens, beside transformers' own processor and model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sie_frontend.mixed.entry import Patching
from sie_frontend.mixed.groups import group_cost, picture_groups, window_groups
from sie_frontend.mixed.patches import (
    MAX_RATIO,
    TooNarrow,
    cut_into_patches,
    patch_places,
    scaled_size,
    table_places,
    token_places,
    window_numbers,
)
from sie_frontend.mixed.rows import MixedRow, expanded, fills
from sie_frontend.rows import Array, stack

RANDOM = np.random.default_rng(11)
QWEN3 = Patching(patch_size=16, merge_size=2, min_pixels=200704, max_pixels=1003520, resample="bicubic", table_side=48)
QWEN25 = Patching(patch_size=14, merge_size=2, min_pixels=200704, max_pixels=602112, resample="bicubic", window=4)
SMALL = Patching(patch_size=8, merge_size=2, min_pixels=1024, max_pixels=9216, resample="bicubic", table_side=7)
# Width and height, from a phone's to a strip's, and those at which rounding halves decides.
SIZES = (
    *((4000, 3000), (1000, 2000), (2000, 1000), (1, 1), (3, 2), (29, 600), (600, 29), (1, 200), (200, 1), (48, 80)),
    *((720, 720), (1001, 1003), (560, 360), (16, 3200), (1008, 1008), (1232, 816), (448, 448), (100, 101)),
)
GRIDS = ((2, 2), (4, 6), (6, 4), (2, 58), (24, 2), (8, 8))


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8))


def processor(patching: Patching) -> Any:
    processors = pytest.importorskip("transformers")
    bounds = {"shortest_edge": patching.min_pixels, "longest_edge": patching.max_pixels}
    steps = {"do_rescale": False, "do_normalize": False}
    sizes = {"patch_size": patching.patch_size, "merge_size": patching.merge_size}
    return processors.Qwen2VLImageProcessorPil(size=bounds, **sizes, **steps)


@pytest.mark.parametrize("patching", [QWEN3, QWEN25, SMALL], ids=["qwen3", "qwen2.5", "small"])
def test_the_size_of_every_picture_is_the_processors(patching: Patching) -> None:
    pytest.importorskip("transformers")
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    square = patching.patch_size * patching.merge_size
    for width, height in SIZES:
        high, wide = smart_resize(height, width, square, patching.min_pixels, patching.max_pixels)
        assert scaled_size(width, height, patching) == (wide, high), (width, height)
        assert min(high, wide) >= square


@pytest.mark.parametrize(("width", "height"), [(1, 201), (201, 1), (10, 2001), (50000, 3)])
def test_a_strip_is_refused(width: int, height: int) -> None:
    with pytest.raises(TooNarrow, match=f"one side may be at most {MAX_RATIO} times the other"):
        scaled_size(width, height, QWEN3)


def test_no_side_is_ever_nothing() -> None:
    """Where the bounds let a picture be small, a side that rounds to nothing is one square."""
    loose = Patching(patch_size=16, merge_size=2, min_pixels=0, max_pixels=10**9, resample="bicubic", table_side=4)
    assert scaled_size(100, 2, loose) == (96, 32)
    assert scaled_size(3, 3, loose) == (32, 32)
    assert scaled_size(100, 2, QWEN3)[1] > 0


@pytest.mark.parametrize(("width", "height"), [(50, 30), (97, 33), (1, 150), (300, 40), (96, 96)])
def test_the_pixels_of_every_patch_are_the_processors(width: int, height: int) -> None:
    given = picture(width, height)
    ours, theirs = cut_into_patches(given, SMALL), processor(SMALL)(given, return_tensors="np")
    assert ours.levels.dtype == np.uint8
    assert theirs["image_grid_thw"].tolist() == [[1, *ours.grid]]
    frames = theirs["pixel_values"].reshape(len(ours.levels), 3, 2, 64)
    assert np.array_equal(frames[:, :, 0], ours.levels.reshape(-1, 3, 64))
    assert np.array_equal(frames[:, :, 1], ours.levels.reshape(-1, 3, 64))


@pytest.mark.parametrize("grid", GRIDS)
def test_patches_lie_where_transformers_lays_them(grid: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    tools = pytest.importorskip("transformers.vision_utils")
    told = torch.tensor([[1, *grid]])
    assert np.array_equal(patch_places(grid, 2), tools.get_vision_position_ids(told, 2).numpy())
    rows, near = table_places(grid, 2, 7)
    their_rows, their_near = tools.get_vision_interpolation_indices_and_weights(
        told, num_grid_per_side=7, mode="bilinear", align_corners=True, spatial_merge_size=2
    )
    table = RANDOM.standard_normal((49, 5))
    ours, theirs = (
        (table[places] * shares[..., None]).sum(1)
        for places, shares in ((rows, near), (their_rows.numpy(), their_near.numpy()))
    )
    np.testing.assert_allclose(ours, theirs, atol=2e-6, rtol=0)
    np.testing.assert_allclose(near.sum(-1), 1, atol=1e-6)


@pytest.mark.parametrize("grids", [(GRIDS[0],), (GRIDS[1], GRIDS[2]), (GRIDS[3],), (GRIDS[4], GRIDS[5])])
@pytest.mark.parametrize("window", [1, 2, 3])
def test_windows_hold_the_patches_that_transformers_groups(grids: tuple[tuple[int, int], ...], window: int) -> None:
    torch = pytest.importorskip("torch")
    tools = pytest.importorskip("transformers.vision_utils")
    told = torch.tensor([[1, *grid] for grid in grids])
    order, ends = tools.get_vision_window_index(told, spatial_merge_size=2, window_size=window * 16, patch_size=8)
    squares = window_numbers(grids, 2, window).reshape(-1, 4)
    assert (squares == squares[:, :1]).all()
    ours, theirs = set(), set()
    for number in np.unique(squares):
        ours.add(tuple(np.flatnonzero(squares[:, 0] == number)))
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        theirs.add(tuple(sorted(order[start // 4 : end // 4].tolist())))
    assert ours == theirs


def conversation(grids: Sequence[tuple[int, int]], words: int = 3) -> Array:
    ids = [1] * words + [token for _ in grids for token in (7, 9, 8)] + [2] * words
    return expanded(ids, 9, [high * wide // 4 for high, wide in grids])


@pytest.mark.parametrize("grids", [(), (GRIDS[1],), (GRIDS[3],), (GRIDS[4], GRIDS[0], GRIDS[5])])
def test_tokens_stand_where_transformers_counts_them(grids: tuple[tuple[int, int], ...]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen3VLConfig(
        vision_config={"depth": 0, "deepstack_visual_indexes": []},
        text_config={"num_hidden_layers": 0, "hidden_size": 8, "vocab_size": 16, "num_attention_heads": 1},
        image_token_id=9,
    )
    with torch.device("meta"):
        model = transformers.Qwen3VLModel(config)
    ids = conversation(grids)
    told = torch.tensor([[1, *grid] for grid in grids]) if grids else None
    tokens = torch.tensor(ids)[None]
    theirs, _ = model.get_rope_index(tokens, mm_token_type_ids=(tokens == 9).int(), image_grid_thw=told)
    assert np.array_equal(token_places(ids, 9, grids, 2), theirs[:, 0].T.numpy())


def test_rows_of_equal_pictures_share_a_batch() -> None:
    rows = []
    for words, sizes in ((2, ((44, 41),)), (5, ((42, 41),)), (3, ()), (4, ((40, 40), (96, 16)))):
        pictures = tuple(cut_into_patches(picture(*size), SMALL) for size in sizes)
        grids = [one.grid for one in pictures]
        rows.append(MixedRow(conversation(grids, words), pictures, SMALL, 9))
    assert rows[0].shape_key == rows[1].shape_key
    assert len({row.shape_key for row in rows}) == 3
    batch = stack(rows[:2], 24, fills(0, SMALL))
    assert batch["input_ids"].shape == (2, 24)
    assert batch["attention_mask"].sum(1).tolist() == [rows[0].cost, rows[1].cost]
    assert batch["position_ids"].shape == (2, 24, 3)
    assert batch["patches"].shape == (2, *rows[0].arrays["patches"].shape)
    # A text alone brings one square that stands for no token.
    assert rows[2].arrays["patches"].shape == (4, 192)
    assert rows[3].arrays["patch_images"].max() == 1


@pytest.mark.parametrize("grids", [(GRIDS[0],), (GRIDS[1], GRIDS[2]), (GRIDS[4], GRIDS[5], GRIDS[4]), (GRIDS[3],) * 5])
def test_every_patch_lies_in_one_place_beside_all_of_its_picture(grids: tuple[tuple[int, int], ...]) -> None:
    """And groups are as long as the largest picture, none of them less than half full but for the last."""
    made = picture_groups(grids)
    counts = [high * wide for high, wide in grids]
    number = np.repeat(np.arange(len(grids)), counts)
    assert made.members.shape[1] == max(counts)
    assert np.array_equal(made.members.reshape(-1)[made.places], np.arange(sum(counts)))
    for one in range(len(grids)):
        assert len({place // max(counts) for place in made.places[number == one]}) == 1
    filled = (made.members >= 0).sum(axis=1)
    assert (np.sort(filled)[1:] * 2 > max(counts)).all()
    assert group_cost(grids) <= 2 * sum(counts) * max(counts)


def test_windows_of_any_picture_are_groups_of_their_own() -> None:
    grids = ((6, 10), (4, 4))
    made = window_groups(grids, 2, 2)
    numbers = window_numbers(grids, 2, 2)
    assert made.members.shape == (len(np.unique(numbers)), 16)
    for group in made.members:
        there = group[group >= 0]
        assert set(there) == set(np.flatnonzero(numbers == numbers[there[0]]))
    assert np.array_equal(made.members.reshape(-1)[made.places], np.arange(76))


@pytest.mark.parametrize(
    ("width", "height", "limit", "squares"), [(140, 280, 768, 50), (2000, 1000, 768, 741), (600, 29, 18, 19)]
)
def test_limits_of_pixels_are_kept_as_transformers_keeps_them(
    width: int, height: int, limit: int, squares: int
) -> None:
    """Elsewhere they were accepted and ignored: 2556 squares of a page. A strip keeps one square of height."""
    pytest.importorskip("transformers")
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    patching = Patching(14, 2, 4 * 784, limit * 784, "bicubic")
    high, wide = smart_resize(height, width, 28, 4 * 784, limit * 784)
    made = cut_into_patches(picture(width, height), patching)
    assert made.grid == (high // 14, wide // 14)
    assert len(made.levels) == 4 * squares
