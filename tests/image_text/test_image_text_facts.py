"""What the files of a model for images and texts say, and what in them is refused by name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoImageProcessor, CLIPImageProcessorPil

from sie_triton.diagnostics import DiagnosticError
from sie_triton.facts import Pixels, read_facts, read_pixels, read_towers

from .checkpoints import PREPROCESSOR

OPENAI: dict[str, Any] = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}
SQUARE = {"height": 24, "width": 24}
CONFIG: dict[str, Any] = {
    "model_type": "clip",
    "projection_dim": 20,
    "text_config": {"max_position_embeddings": 50},
    "vision_config": {"image_size": 24, "patch_size": 8},
}


def pixels(folder: Path, document: object) -> Pixels:
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (folder / "preprocessor_config.json").write_text(json.dumps(document), encoding="utf-8")
    return read_pixels(read_facts(folder))


def test_the_oldest_spelling(tmp_path: Path) -> None:
    found = pixels(tmp_path, OPENAI)
    assert (found.size, found.fit, found.resample) == (224, "crop", "bicubic")
    assert found.rescale == 1 / 255


@pytest.mark.parametrize("size", [{"shortest_edge": 24}, 24], ids=str)
@pytest.mark.parametrize("crop", [SQUARE, 24], ids=str)
def test_the_spellings_of_sizes_are_transformers_own(size: object, crop: object, tmp_path: Path) -> None:
    found = pixels(tmp_path, {**PREPROCESSOR, "size": size, "crop_size": crop})
    theirs = CLIPImageProcessorPil(**{**PREPROCESSOR, "size": size, "crop_size": crop})
    assert (found.size, found.fit) == (24, "crop")
    assert (theirs.size.shortest_edge, theirs.crop_size.height) == (24, 24)
    assert (list(found.mean), list(found.std)) == (list(theirs.image_mean), list(theirs.image_std))


def test_what_the_file_does_not_say_is_the_processors_default(tmp_path: Path) -> None:
    found, theirs = pixels(tmp_path, {"image_processor_type": "CLIPImageProcessor"}), CLIPImageProcessorPil()
    assert (found.size, found.fit) == (theirs.size.shortest_edge, "crop")
    assert (list(found.mean), list(found.std)) == (list(theirs.image_mean), list(theirs.image_std))
    assert found.rescale == theirs.rescale_factor
    assert theirs.resample == 3
    assert found.resample == "bicubic"


def test_both_edges_are_squashed(tmp_path: Path) -> None:
    siglip = {"image_processor_type": "SiglipImageProcessor", "size": SQUARE, "resample": 2}
    found = pixels(tmp_path, siglip)
    assert (found.size, found.fit, found.resample, found.mean) == (24, "squash", "bilinear", (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"image_processor_type": "ViTImageProcessor"}, "SIE339", "by `ViTImageProcessor`"),
        ({"do_resize": False}, "SIE339", "`do_resize: False`"),
        ({"do_normalize": False}, "SIE339", "`do_normalize: False`"),
        ({"do_rescale": None}, "SIE339", "`do_rescale: None`"),
        ({"size": {"shortest_edge": 32}}, "SIE339", "a middle of 24 cut out"),
        ({"size": {"height": 24, "width": 32}}, "SIE339", "'width': 32"),
        ({"size": {"longest_edge": 24}}, "SIE339", "longest_edge"),
        ({"size": {"shortest_edge": 24, "longest_edge": 32}}, "SIE339", "longest_edge"),
        ({"size": "24"}, "SIE339", "'24'"),
        ({"do_center_crop": False}, "SIE339", "nothing cut out"),
        ({"crop_size": {"height": 24, "width": 20}}, "SIE339", "`crop_size`"),
        ({"crop_size": True}, "SIE339", "`crop_size` True"),
        ({"resample": 6}, "SIE339", "`resample` 6"),
        ({"resample": "bicubic"}, "SIE339", "`resample` 'bicubic'"),
        ({"image_mean": 0.5}, "SIE308", "`image_mean`"),
        ({"image_std": [1, 0, 1]}, "SIE308", "`image_std`"),
        ({"image_mean": [0.1, 0.2, float("nan")]}, "SIE308", "`image_mean`"),
        ({"rescale_factor": "1/255"}, "SIE308", "`rescale_factor`"),
        ({"do_flip": True}, "SIE334", "`do_flip`"),
        ({"do_pad": True}, "SIE337", "`do_pad`"),
        ({"auto_map": {"AutoImageProcessor": "mine.Processor"}}, "SIE337", "`auto_map`"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_not_understood_is_refused_by_name(
    change: dict[str, Any], code: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(DiagnosticError) as caught:
        pixels(tmp_path, {**PREPROCESSOR, **change})
    (problem,) = caught.value.diagnostics
    assert problem.code == code
    assert re.search(re.escape(said), problem.message)


def test_newer_checkpoints_nest_it_in_the_processors_file(tmp_path: Path) -> None:
    """As transformers itself: the nested one counts, also beside the older file."""
    nested = {**PREPROCESSOR, "resample": 2, "image_mean": [0.1, 0.2, 0.3]}
    older = pixels(tmp_path, PREPROCESSOR)
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": nested, "processor_class": "A"}))
    for name in ("", "preprocessor_config.json"):
        if name:
            (tmp_path / name).unlink()
        found = read_pixels(read_facts(tmp_path))
        theirs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
        assert (found.resample, found.mean) == ("bilinear", tuple(theirs.image_mean))
        assert theirs.resample == 2
        assert found.mean != older.mean
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "CLIPProcessor"}))
    with pytest.raises(DiagnosticError, match="neither `preprocessor_config"):
        read_pixels(read_facts(tmp_path))
    pixels(tmp_path, PREPROCESSOR)
    assert read_pixels(read_facts(tmp_path)) == older


@pytest.mark.parametrize(
    ("nested", "code"), [([1], "SIE308"), ({"do_flip": True}, "SIE334"), ({"size": {"longest_edge": 3}}, "SIE339")]
)
def test_what_is_nested_is_judged_alike(nested: object, code: str, tmp_path: Path) -> None:
    pixels(tmp_path, PREPROCESSOR)
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": nested}), encoding="utf-8")
    with pytest.raises(DiagnosticError) as caught:
        read_pixels(read_facts(tmp_path))
    (problem,) = caught.value.diagnostics
    assert problem.code == code
    assert "processor_config.json" in str(problem.where or problem.message)


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (tmp_path / "preprocessor_config.json").write_text('{"size": 24', encoding="utf-8")
    with pytest.raises(DiagnosticError, match=r"preprocessor_config\.json"):
        read_pixels(read_facts(tmp_path))


def test_the_sizes_of_the_towers(tmp_path: Path) -> None:
    pixels(tmp_path, PREPROCESSOR)
    towers = read_towers(read_facts(tmp_path), "clip")
    assert (towers.width, towers.positions, towers.image_size, towers.patches) == (20, 50, 24, 9)
    # The oldest files have a second copy of each part, which transformers reads.
    older = {**CONFIG, "vision_config_dict": {"patch_size": 12}}
    (tmp_path / "config.json").write_text(json.dumps(older), encoding="utf-8")
    assert read_towers(read_facts(tmp_path), "clip").patches == 4


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model_type": "bert"}, "SIE335"),
        ({"vision_config": {"patch_size": [8, 8]}}, "SIE308"),
        ({"text_config": 7}, "SIE308"),
        ({"projection_dim": 0}, "SIE308"),
    ],
    ids=str,
)
def test_towers_that_are_not_understood(change: dict[str, Any], code: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **change}), encoding="utf-8")
    with pytest.raises(DiagnosticError) as caught:
        read_towers(read_facts(tmp_path), "clip")
    assert [problem.code for problem in caught.value.diagnostics] == [code]
