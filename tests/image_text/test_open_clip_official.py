"""A checkpoint in open_clip's layout through the compiler, with open_clip itself on the other side.

Skipped where open_clip_torch is not installed: it needs torchvision for the torch at hand, and the package index has
that for CUDA's torch alone. `test_open_clip_layout.py` compares the same files with transformers' own SigLIP.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sie_frontend.manifest import read_manifest
from sie_frontend.text.cleaning import canonical
from transformers import PreTrainedTokenizerFast, SiglipModel

from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.public_model import PublicModel, public_model

from .builds import NAME, Asked, build
from .open_clip_checkpoints import HEADS, LAYERS, PATCH, SIZE, WIDTH, write_open_clip
from .test_open_clip_layout import open_clip_bundle

open_clip = pytest.importorskip("open_clip", exc_type=ImportError)
RECORDED = json.loads((Path(__file__).parent / "open_clip_texts.json").read_text(encoding="utf-8"))

pytestmark = pytest.mark.export


@pytest.fixture(scope="module", autouse=True)
def small_transformer() -> Any:
    """timm's transformer of that name, in the size of the checkpoint."""
    import timm
    from timm.models.vision_transformer import VisionTransformer

    def made(name: str, *, pretrained: bool, **options: Any) -> VisionTransformer:
        assert name == "vit_base_patch16_siglip_224"
        sizes = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": LAYERS, "num_heads": HEADS}
        return VisionTransformer(**sizes, class_token=False, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", made)
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SiglipModel:
    return write_open_clip(tmp_path_factory.getbasetemp() / "open_clip" / "checkpoint")


@pytest.fixture(scope="module")
def built(model: SiglipModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.getbasetemp() / "open_clip"
    done = build(root, bundle=open_clip_bundle(root / "checkpoint"))
    assert done.code == 0, done.stderr
    return root / "repository"


@pytest.fixture(scope="module")
def theirs(built: Path) -> tuple[Any, Any, Any]:
    name = f"local-dir:{built.parent / 'checkpoint'}"
    model, _, transform = open_clip.create_model_and_transforms(name)
    return model.eval(), transform, open_clip.get_tokenizer(name)


def public(built: Path, name: str) -> PublicModel:
    return public_model(built, read_manifest(built), name)


def test_the_certificate_names_open_clip(built: Path) -> None:
    for name in (NAME, f"{NAME}.image"):
        told = read_manifest(built).built[name].certificate
        assert told.implementation.startswith(f"open_clip {open_clip.__version__} CustomTextCLIP, timm ")
        assert told.cases > 10


def test_pictures(built: Path, theirs: tuple[Any, Any, Any]) -> None:
    model, transform, _ = theirs
    levels = np.random.default_rng(2).integers(0, 256, (37, 61, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "PNG")
    served = public(built, f"{NAME}.image")
    rows = served.reader.rows([(buffer.getvalue(),)], Asked(), is_query=False)
    found = ModelRunner(built, served.name).run(served.reader.batch(rows, 1), ["dense"])["dense"]
    with torch.inference_mode():
        wanted = model.encode_image(transform(Image.fromarray(levels))[None], normalize=True).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=0)


def test_texts(built: Path, theirs: tuple[Any, Any, Any]) -> None:
    model, _, tokenizer = theirs
    # transformers 5 rebuilds T5's tokenizer otherwise than the checkpoint's file has it, which SIE's release reads.
    file = str(built.parent / "checkpoint" / "tokenizer.json")
    tokenizer.tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, pad_token="</s>")
    texts = [text for text, _ in RECORDED]
    served = public(built, NAME)
    rows = served.reader.rows(texts, Asked(), is_query=False)
    ids = tokenizer(texts)
    np.testing.assert_array_equal([row.arrays["input_ids"] for row in rows], ids.numpy())
    found = ModelRunner(built, served.name).run(served.reader.batch(rows, len(ids[0])), ["dense"])["dense"]
    with torch.inference_mode():
        wanted = model.encode_text(ids, normalize=True).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=0)


def test_the_recorded_texts_are_what_open_clip_makes_of_them(theirs: tuple[Any, Any, Any]) -> None:
    """And so does the frontend, whose other test knows the record alone."""
    _, _, tokenizer = theirs
    for text, cleaned in RECORDED:
        assert tokenizer.clean_fn(text) == cleaned == canonical(text)


def test_options_of_texts_change_nothing(built: Path) -> None:
    reader = public(built, NAME).reader
    asked = Asked({"query_template": "query: {text}", "default_instruction": "find"}, "now")
    for is_query in (True, False):
        plain, other = (reader.rows(["a cat"], call, is_query=is_query)[0] for call in (Asked(), asked))
        np.testing.assert_array_equal(plain.arrays["input_ids"], other.arrays["input_ids"])


def test_another_length_than_its_context_is_refused(built: Path, tmp_path: Path) -> None:
    """open_clip pads to the context of the checkpoint, whatever the bundle says."""
    text = open_clip_bundle(built.parent / "checkpoint").replace("max_sequence_length: 77", "max_sequence_length: 8")
    done = build(tmp_path, bundle=text)
    assert done.code != 0
    assert "SIE504" in done.stderr
