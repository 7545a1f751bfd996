"""What went wrong with models for images and texts in other people's servers, case by case, in ours.

The other side is transformers' own model, its processors and its tokenizers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sie_frontend.images.entry import ImageInput
from sie_frontend.images.fitting import fitted
from sie_frontend.manifest import Manifest, read_manifest
from sie_frontend.rows import Array
from transformers import AutoTokenizer, CLIPModel, SiglipModel, SiglipTokenizer

from sie_triton.facts import read_facts, read_pixels, read_spelling
from sie_triton.onnx_graphs.pixels import level_values
from sie_triton.tokenizer import CheckpointTokenizer
from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.public_model import CaseCall, public_model

from .builds import NAME, build
from .checkpoints import (
    PREPROCESSOR,
    SIGLIP,
    SIGLIP_PREPROCESSOR,
    SIZE,
    write_clip,
    write_sentencepiece,
    write_siglip,
)
from .test_image_text_graphs import plans, run, seen, unit

LONG = ("one red car and nothing else at all " * 40, "the sea the wind the rain and then some " * 40)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CLIPModel]:
    folder = tmp_path_factory.mktemp("clip")
    return folder, write_clip(folder)


def built(root: Path, dim: int, adapter: str) -> tuple[Path, Manifest]:
    done = build(root, "--device", "cpu", dim=dim, adapter=adapter)
    assert done.code == 0, done.stderr
    return root / "repository", read_manifest(root / "repository")


def vectors(repository: Path, manifest: Manifest, *requests: list[str]) -> tuple[list[Array], list[Array]]:
    """The ids and the vectors of texts that are asked for together, request by request."""
    model = public_model(repository, manifest, NAME)
    runner, ids, found = ModelRunner(repository, NAME), [], []
    for texts in requests:
        rows = model.reader.rows(texts, CaseCall({}), is_query=False)
        width = max(row.cost for row in rows)
        ids += [row.arrays["input_ids"] for row in rows]
        found += list(runner.run(model.reader.batch(rows, width), ["dense"])["dense"])
    return ids, found


# Geometry, from the checkpoint's own file


@pytest.mark.parametrize(
    ("document", "model_type", "green"),
    [(SIGLIP_PREPROCESSOR, "siglip", True), (PREPROCESSOR, "clip", False)],
    ids=["SigLIP squashes", "CLIP crops"],
)
def test_the_file_says_whether_side_edges_survive(
    document: dict[str, Any], model_type: str, green: bool, tmp_path: Path
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(dict(document)), encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    said = read_pixels(read_facts(tmp_path))
    assert said.fit != "tiles"
    wide = np.full((160, 320, 3), (255, 0, 0), np.uint8)
    wide[:, :40] = wide[:, -40:] = (0, 255, 0)
    made = fitted(Image.fromarray(wide), ImageInput("pixels", said.size, said.fit, said.resample, "either"))
    edges = made[:, [0, -1], 1]
    assert (edges > 250).all() if green else (edges < 128).all()


def test_a_picture_that_is_almost_black_is_divided_once(clip: tuple[Path, CLIPModel]) -> None:
    """Its levels are 0 and 1: who guesses from the content takes them for numbers from 0 to 1."""
    folder, model = clip
    said = read_pixels(read_facts(folder))
    by_hand = (np.arange(2)[None] / 255 - np.array(said.mean)[:, None]) / np.array(said.std)[:, None]
    np.testing.assert_allclose(level_values(said)[:, :2], by_hand, rtol=1e-6)
    levels = np.random.default_rng(1).integers(0, 2, (2, SIZE, SIZE, 3), dtype=np.uint8)
    plan = plans(folder)["image"]
    found = run(folder, plan, {"pixels": levels})
    np.testing.assert_allclose(found, seen(model, levels, folder), atol=1e-5, rtol=0)
    black = run(folder, plan, {"pixels": np.zeros_like(levels)})
    assert np.abs(found - black).max() > 1e-4, "levels of 1 are not black"


# Texts


@pytest.mark.export
def test_a_long_text_of_clip_keeps_its_end_and_two_of_them_differ(
    tmp_path: Path,
) -> None:
    """Who cuts the end token off pools the first state, which is the same for all texts; who does not cut fails."""
    model = write_clip(tmp_path / "checkpoint")
    repository, manifest = built(tmp_path, 20, "CLIPAdapter")
    ids, found = vectors(repository, manifest, list(LONG))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "checkpoint")
    for text, one, vector in zip(LONG, ids, found, strict=True):
        theirs = tokenizer(text, truncation=True, max_length=77, return_tensors="pt")
        assert one.tolist() == theirs["input_ids"][0].tolist()
        assert (len(one), one[-1]) == (77, tokenizer.eos_token_id)
        with torch.inference_mode():
            np.testing.assert_allclose(vector, unit(model.get_text_features(**theirs))[0], atol=1e-5, rtol=0)
    assert float(found[0] @ found[1]) < 0.999


@pytest.mark.export
def test_a_short_text_of_siglip_is_the_same_alone_and_beside_a_long_one(tmp_path: Path) -> None:
    """Every text is padded to the limit of the checkpoint, and to no other; the last position is pooled."""
    model = write_siglip(tmp_path / "checkpoint")
    length = SIGLIP["text_config"]["max_position_embeddings"]
    repository, manifest = built(tmp_path, 24, "SiglipAdapter")
    ids, found = vectors(repository, manifest, ["a cat"], ["a cat", LONG[1]], [LONG[1]])
    assert [len(one) for one in ids] == [length] * 4
    np.testing.assert_allclose(found[0], found[1], atol=1e-6, rtol=0)
    np.testing.assert_allclose(found[2], found[3], atol=1e-6, rtol=0)
    tokenizer = SiglipTokenizer.from_pretrained(tmp_path / "checkpoint")
    theirs = tokenizer(["a cat"], padding="max_length", max_length=length, return_tensors="pt")["input_ids"]
    assert ids[0].tolist() == theirs[0].tolist()
    with torch.inference_mode():
        np.testing.assert_allclose(found[0], unit(model.get_text_features(theirs))[0], atol=1e-5, rtol=0)
        batch = tokenizer(["a cat", "a"], padding=True, return_tensors="pt")["input_ids"]
        other = unit(model.get_text_features(batch))[0]
    assert np.abs(found[0] - other).max() > 1e-3, "padded to the batch, it is another vector"


def written_ids(folder: Path, *texts: str) -> list[list[int]]:
    """What the served tokenizer makes of texts, as the checkpoint's settings want them spelt."""
    from tokenizers import Tokenizer

    spelling = read_spelling(read_facts(folder))
    CheckpointTokenizer(folder).write(folder / "written.json", spelling=spelling)
    served = Tokenizer.from_file(str(folder / "written.json"))
    return [served.encode(spelling.start + text).ids for text in texts]


def test_capitals_and_punctuation_of_siglip(tmp_path: Path) -> None:
    """Lower case, and no punctuation."""
    write_sentencepiece(tmp_path, {})
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}', encoding="utf-8")
    plain, loud, pointed = written_ids(tmp_path, "a red car", "A RED CAR", "A red, car!")
    assert plain == loud == pointed
    tokenizer = SiglipTokenizer.from_pretrained(tmp_path)
    assert plain == tokenizer("A RED CAR")["input_ids"]


@pytest.mark.parametrize("lowers", [True, False], ids=["Siglip2Tokenizer", "GemmaTokenizer"])
def test_capitals_and_punctuation_of_siglip_2_are_the_matter_of_its_class(lowers: bool, tmp_path: Path) -> None:
    """transformers 5 has a class that lowers them. A checkpoint that names Gemma's keeps them, as SIE serves it."""
    name = "Siglip2Tokenizer" if lowers else "GemmaTokenizer"
    write_siglip(tmp_path, second=True, tokenizer={"tokenizer_class": name})
    plain, loud, pointed = written_ids(tmp_path, "a cat", "A CAT", "a cat,")
    assert (plain == loud) is lowers
    assert plain != pointed
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert type(tokenizer).__name__ == name
    assert [plain, loud, pointed] == tokenizer(["a cat", "A CAT", "a cat,"])["input_ids"]


@pytest.mark.parametrize(
    ("name", "side"), [("SiglipTokenizer", "right"), ("GemmaTokenizer", "left"), ("Siglip2Tokenizer", "left")]
)
def test_the_side_of_padding_is_the_files_and_else_the_classs(name: str, side: str, tmp_path: Path) -> None:
    second = name != "SiglipTokenizer"
    write_siglip(tmp_path, second=second, tokenizer={"tokenizer_class": name})
    for given, wanted in (("left", "left"), ("right", "right"), (None, side)):
        document = json.loads((tmp_path / "tokenizer_config.json").read_bytes())
        document.pop("padding_side", None)
        (tmp_path / "tokenizer_config.json").write_text(
            json.dumps(document | ({"padding_side": given} if given else {}))
        )
        assert read_spelling(read_facts(tmp_path)).pads == wanted
        assert AutoTokenizer.from_pretrained(tmp_path).padding_side == wanted


# Widths


@pytest.mark.parametrize(
    ("write", "dim", "adapter"), [(write_clip, 20, "CLIPAdapter"), (write_siglip, 24, "SiglipAdapter")]
)
def test_both_towers_give_unit_vectors_of_one_width(write: Any, dim: int, adapter: str, tmp_path: Path) -> None:
    """And not the widths of their states, which is what is left where a projection is missing."""
    model: CLIPModel | SiglipModel = write(tmp_path)
    made = plans(tmp_path, dim, adapter)
    pixels = np.random.default_rng(2).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    ids = np.full((1, 16), 5, np.int64)
    feeds = (
        {"input_ids": ids} if adapter == "SiglipAdapter" else {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    )
    for found in (run(tmp_path, made["image"], {"pixels": pixels}), run(tmp_path, made["text"], feeds)):
        assert found.shape[1] == dim
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    states = (model.config.vision_config.hidden_size, model.config.text_config.hidden_size)
    assert adapter == "SiglipAdapter" or dim not in states
