"""Bundles of models for images and texts that nobody wrote: plain, of sentence-transformers, and of open_clip."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiler.command import sie_triton
from image_text.checkpoints import SIGLIP, TINY, write_clip, write_siglip
from image_text.open_clip_checkpoints import LENGTH, WIDTH, write_open_clip
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import CLIPModel
from sie_frontend.manifest import read_manifest

from sie_triton.bundle import Bundle, load_bundles
from sie_triton.planning.catalogue import verdict
from sie_triton.planning.families import ImageTextRecipe
from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.public_model import CaseCall, public_model

Model = str | Path


def derived(folder: Path, *more: str | Path) -> tuple[int, str, dict[str, Bundle]]:
    """What `plan` says of a folder, and the bundle that it saves."""
    saved = folder.parent / f"{folder.name}-bundles"
    done = sie_triton("plan", "-m", f"{folder}", "--save-bundle", saved, *more)
    bundles, mistakes = load_bundles(saved) if saved.is_dir() else ({}, [])
    assert not mistakes
    return done.code, done.stdout + done.stderr, bundles


@pytest.mark.parametrize(
    ("write", "adapter", "width", "length"),
    [(write_clip, "CLIPAdapter", 20, 77), (write_siglip, "SiglipAdapter", 24, 16)],
    ids=["CLIP", "SigLIP"],
)
def test_a_plain_checkpoint(
    write: Callable[[Path], object], adapter: str, width: int, length: int, tmp_path: Path
) -> None:
    assert (TINY["projection_dim"], SIGLIP["text_config"]["hidden_size"]) == (20, 24)
    write(tmp_path / "model")
    code, said, bundles = derived(tmp_path / "model")
    assert code == 0, said
    bundle = bundles["model"]
    profile = bundle.resolve("default")
    assert profile.adapter_class == adapter
    assert isinstance(verdict(profile, bundle), ImageTextRecipe)
    assert (list(bundle.inputs), dict(bundle.dims), bundle.max_sequence_length) == (
        ["text", "image"],
        {"dense": width},
        length,
    )
    assert "model.image serves model" in said


def test_a_checkpoint_of_open_clip(tmp_path: Path) -> None:
    write_open_clip(tmp_path / "model")
    code, said, bundles = derived(tmp_path / "model")
    assert code == 0, said
    bundle = bundles["model"]
    assert bundle.resolve("default").loadtime == {"backend": "open_clip", "dense_dim": WIDTH}
    assert (dict(bundle.dims), bundle.max_sequence_length) == ({"dense": WIDTH}, LENGTH)
    assert "open_clip_config.json" in said


def test_of_two_layouts_that_of_transformers_is_read(tmp_path: Path) -> None:
    """Its weights may lie beside open_clip's, as LAION's do; with code of their own they are left alone."""
    write_clip(tmp_path / "model")
    write_open_clip(tmp_path / "other")
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        shutil.copy(tmp_path / "other" / name, tmp_path / "model")
    code, said, bundles = derived(tmp_path / "model")
    assert code == 0, said
    assert bundles["model"].resolve("default").adapter_class == "CLIPAdapter"
    config = json.loads((tmp_path / "model" / "config.json").read_bytes())
    shutil.copy(tmp_path / "model" / "model.safetensors", tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "mine.Model"}}))
    code, said, bundles = derived(tmp_path / "other")
    assert code == 0, said
    assert bundles["other"].resolve("default").loadtime["backend"] == "open_clip"


def saved_by_sentence_transformers(folder: Path, *behind: Any, inner: bool = False) -> SentenceTransformer:
    """Its own CLIP module in front; `inner`: in a folder of its own, as its first releases wrote it."""
    write_clip(folder.parent / "plain")
    modules = [CLIPModel(str(folder.parent / "plain")), *behind]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder))
    if inner:
        _move_inside(folder)
    return SentenceTransformer(str(folder), device="cpu")


def _move_inside(folder: Path) -> None:
    listed = json.loads((folder / "modules.json").read_bytes())
    (folder / "0_CLIPModel").mkdir()
    for path in folder.iterdir():
        if path.is_file() and path.name not in ("modules.json", "config_sentence_transformers.json"):
            path.rename(folder / "0_CLIPModel" / path.name)
    listed[0] |= {"path": "0_CLIPModel", "type": "sentence_transformers.models.CLIPModel"}
    (folder / "modules.json").write_text(json.dumps(listed), encoding="utf-8")


@pytest.mark.export
def test_a_clip_of_sentence_transformers_has_its_vectors(tmp_path: Path) -> None:
    """Built without a bundle, out of the layout of its first releases."""
    theirs = saved_by_sentence_transformers(tmp_path / "model", Normalize(), inner=True)
    done = sie_triton("build", "-m", tmp_path / "model", "-r", tmp_path / "repository", "--device", "cpu")
    assert done.code == 0, done.stderr
    manifest = read_manifest(tmp_path / "repository")
    texts = ["two dogs", "retrieval systems embed " * 40, ""]
    pictures = [
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (31 + n, 70, 3), dtype=np.uint8)) for n in (1, 2)
    ]
    for name, given, wanted in (
        ("model", texts, theirs.encode(texts)),
        ("model.image", [(png(picture),) for picture in pictures], theirs.encode(pictures)),
    ):
        served = public_model(tmp_path / "repository", manifest, name)
        runner = ModelRunner(tmp_path / "repository", name)
        for one, vector in zip(given, wanted, strict=True):
            (row,) = served.reader.rows([one], CaseCall({}), is_query=False)
            found = runner.run(served.reader.batch([row], row.cost), ["dense"])["dense"][0]
            np.testing.assert_allclose(found, vector, atol=1e-5, rtol=0)


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("inner", [False, True], ids=["at the root", "in its folder"])
def test_vectors_that_keep_their_length_are_refused(inner: bool, tmp_path: Path) -> None:
    """They differ from SIE's, which have length 1; the plain checkpoint inside is not refused."""
    theirs = saved_by_sentence_transformers(tmp_path / "model", inner=inner)
    assert abs(np.linalg.norm(theirs.encode("two dogs")) - 1) > 0.01
    code, said, bundles = derived(tmp_path / "model")
    assert code != 0
    assert not bundles
    assert "SIE222" in said
    assert "leave here with length 1" in " ".join(said.split())
    if inner:
        code, said, bundles = derived(tmp_path / "model" / "0_CLIPModel")
        assert code == 0, said
        assert bundles["0_CLIPModel"].resolve("default").adapter_class == "CLIPAdapter"


def test_layers_behind_the_towers_are_refused(tmp_path: Path) -> None:
    saved_by_sentence_transformers(
        tmp_path / "model", Dense(20, 8, module_input_name="sentence_embedding"), Normalize()
    )
    code, said, _ = derived(tmp_path / "model")
    assert code != 0
    assert "SIE222" in said
    assert "`Dense`, `Normalize` behind a model for images and texts" in " ".join(said.split())


def test_how_images_are_prepared_has_to_be_there(tmp_path: Path) -> None:
    write_clip(tmp_path / "model")
    (tmp_path / "model" / "preprocessor_config.json").unlink()
    code, said, _ = derived(tmp_path / "model")
    assert code != 0
    assert "SIE309" in said
