"""A model for images and texts through the compiler: built, recorded, verified again without torch."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from compiler.command import sie_triton
from PIL import Image
from sie_frontend.images.entry import ImageInput
from sie_frontend.manifest import Manifest, read_manifest
from sie_frontend.reference import REFERENCE_NAME, Case, read_reference
from transformers import CLIPImageProcessorPil, CLIPModel

from sie_triton.verify.image_cases import image_cases
from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.public_model import PublicModel, public_model

from .builds import NAME, build
from .checkpoints import PREPROCESSOR, SIZE, write_clip
from .test_image_text_graphs import seen

WITHOUT_TORCH = """
import sys
for name in ("torch", "transformers", "sentence_transformers"):
    sys.modules[name] = None
from sie_triton.cli import main
main()
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Without sentence-transformers: what images and their texts are compared with is transformers alone."""
    root = tmp_path_factory.mktemp("clip")
    write_clip(root / "checkpoint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "sentence_transformers", None)
        done = build(root)
    assert done.code == 0, done.stderr
    return root / "repository"


@pytest.fixture(scope="module")
def manifest(built: Path) -> Manifest:
    return read_manifest(built)


pytestmark = pytest.mark.export


def test_each_input_is_a_public_model_of_its_own(built: Path, manifest: Manifest) -> None:
    model = manifest.models["acme/clip"]
    assert {name: entry.triton_model for name, entry in model.inputs.items()} == {
        "text": NAME,
        "image": f"{NAME}.image",
    }
    images = model.inputs["image"]
    requires = "CLIPAdapter requires either text or images input"
    assert images.reads == ImageInput("pixels", SIZE, "crop", "bicubic", requires)
    # Nine patches and the class token: that many positions of a run of 512.
    assert images.batching["cpu"].run_tokens == 512 // 10
    assert images.batching["cuda"].max_batch_size == 16384 // 10
    (given,) = manifest.triton_models[f"{NAME}.image"].inputs
    assert (given.name, given.datatype, given.dims) == ("pixels", "UINT8", (SIZE, SIZE, 3))
    told = manifest.built[f"{NAME}.image"]
    assert told.certificate.implementation.startswith("transformers ")
    assert "CLIPImageProcessorPil and CLIPModel" in told.certificate.implementation
    assert told.certificate.cases == len(image_cases())
    assert set(told.parity) == {"float32", "float16"}


def test_it_is_verified_again_without_torch(built: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "verify", "-r", str(built)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{NAME}.image dense in float16" in done.stdout


def test_pictures_through_the_repository_are_what_transformers_makes_of_them(built: Path, manifest: Manifest) -> None:
    """From the bytes of a file to the vector, with a picture that no case has."""
    levels = np.random.default_rng(11).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    model = public_model(built, manifest, f"{NAME}.image")
    (row,) = model.rows([Case(base64.b64encode(buffer.getvalue()).decode())])
    outputs = ModelRunner(built, model.name).run(model.reader.batch([row], 1), ["dense"])
    theirs = seen(
        CLIPModel.from_pretrained(built.parent / "checkpoint").eval(), levels[None], built.parent / "checkpoint"
    )
    np.testing.assert_allclose(outputs["dense"], theirs, atol=1e-5, rtol=0)


def test_every_case_is_prepared_as_the_processor_on_pillow_does(built: Path, manifest: Manifest) -> None:
    """Of the stored reference, all pictures: other sizes than the graph's, every mode, no two alike."""
    model: PublicModel = public_model(built, manifest, f"{NAME}.image")
    stored = read_reference(built / model.name / "1" / REFERENCE_NAME)
    processor = CLIPImageProcessorPil.from_pretrained(built.parent / "checkpoint")
    modes = set()
    for case, row in zip(stored.cases, model.rows(stored.cases), strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(case.document)))
        modes.add(picture.mode)
        made = processor(picture.convert("RGB"), return_tensors="np", do_rescale=False, do_normalize=False)
        np.testing.assert_array_equal(row.arrays["pixels"], made["pixel_values"][0].transpose(1, 2, 0))
    assert modes == {"RGB", "L", "LA", "RGBA", "P", "1"}
    assert len({array.tobytes() for array in stored.outputs["dense"]}) == len(stored.cases)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "SIE309"),
        (
            lambda folder: (folder / "preprocessor_config.json").write_text('{"a": 1}', encoding="utf-8"),
            "SIE334",
        ),
        (
            lambda folder: (folder / "preprocessor_config.json").write_text(
                json.dumps({**PREPROCESSOR, "size": {"shortest_edge": 32}, "crop_size": 32})
            ),
            "SIE340",
        ),
    ],
    ids=["missing", "of another key", "of another size"],
)
def test_a_checkpoint_that_does_not_fit_is_refused(damage: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    write_clip(tmp_path / "checkpoint")
    damage(tmp_path / "checkpoint")
    done = build(tmp_path)
    assert done.code != 0
    assert said in done.stderr
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize("asked", [("--trace",), ("--format", "torchscript")], ids=lambda asked: asked[-1])
def test_what_torch_traces_is_refused(asked: tuple[str, ...], tmp_path: Path) -> None:
    write_clip(tmp_path / "checkpoint")
    done = build(tmp_path, *asked)
    assert done.code != 0
    assert "SIE219" in done.stderr


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_without_its_witness_a_build_names_what_is_missing(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "checkpoint")
    there = {"torch", "transformers"} - {missing}
    monkeypatch.setattr("sie_triton.compiler.packages.find_spec", lambda name: object() if name in there else None)
    done = build(tmp_path)
    assert done.code != 0
    assert "SIE401" in done.stderr
    said = " ".join(done.stderr.split())
    assert f"{missing} is not installed" in said
    assert "`pip install torch transformers`" in said
    assert "sentence" not in said


def test_it_is_tuned_in_pictures(built: Path, tmp_path: Path) -> None:
    """Pictures have no tokens that a run could be limited in."""
    repository = tmp_path / "repository"
    shutil.copytree(built, repository)
    done = sie_triton("tune", "-r", repository, "--seconds", "0.1", "--rounds", "1", "--cores", "1")
    assert done.code == 0, done.stderr
    assert f"{NAME}.image     1 rows a run" in done.stdout
    assert f"{NAME}   128 tokens a run" in done.stdout
    batching = read_manifest(repository).models["acme/clip"].inputs["image"].batching["cpu"]
    assert batching.run_tokens in (1, 2, 4, 8, 16)
    assert batching.measured is not None
    assert sie_triton("verify", "-r", repository).code == 0
