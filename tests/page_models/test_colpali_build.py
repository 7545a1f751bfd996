"""ColPali through the compiler: queries as its own processor writes them, pages as SIE prepares them."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiler.command import sie_triton
from frontend.pictures import encoded
from image_text.builds import Asked
from PIL import Image
from sie_frontend.manifest import Manifest, read_manifest
from sie_frontend.outputs.multivector import MultiVectorHead
from sie_frontend.reference import Case
from sie_frontend.rows import Array
from sie_frontend.text.reader import TextReader
from transformers import AutoTokenizer, ColPaliProcessor, SiglipImageProcessorPil

from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.public_model import public_model

from .checkpoints import PREPROCESSOR, SIZE, WIDTH, write_colpali
from .test_colpali_graphs import bundle_text

NAME = "acme__pages"
QUERIES = ("total revenue", "", " blanks  at both ends ", "What is <eos>?\nA table", "ﬁne naïve 漢字")


def build(root: Path, *more: str | Path) -> tuple[int, str]:
    (root / "bundles").mkdir(exist_ok=True)
    (root / "bundles" / "pages.yaml").write_text(bundle_text(root / "checkpoint"), encoding="utf-8")
    done = sie_triton("build", "--bundles", root / "bundles", "-m", "acme/pages", "-r", root / "repository", *more)
    return done.code, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pages")
    write_colpali(root / "checkpoint")
    code, said = build(root, "--device", "cpu")
    assert code == 0, said
    return root / "repository"


@pytest.fixture(scope="module")
def manifest(built: Path) -> Manifest:
    return read_manifest(built)


@pytest.fixture(scope="module")
def processor(built: Path) -> ColPaliProcessor:
    folder = built.parent / "checkpoint"
    return ColPaliProcessor(SiglipImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))


def in_base64(levels: Array) -> str:
    return base64.b64encode(encoded(Image.fromarray(levels), "PNG")).decode()


pytestmark = pytest.mark.export


def test_two_inputs_give_one_kind_of_vectors(manifest: Manifest) -> None:
    model = manifest.models["acme/pages"]
    assert {name: entry.triton_model for name, entry in model.inputs.items()} == {
        "text": NAME,
        "image": f"{NAME}.image",
    }
    assert model.heads == {"multivector": MultiVectorHead("multivector")}
    reads = model.inputs["image"].reads
    assert (reads.size, reads.fit, reads.positions) == (SIZE, "squash", 35)
    assert (model.text.queries, model.text.usage) == ("text_first", "bare")
    # A page takes 35 positions of a run of 512.
    assert model.inputs["image"].batching["cpu"].run_tokens == 512
    (made,) = manifest.triton_models[f"{NAME}.image"].outputs
    assert made.dims == (35, WIDTH)
    told = manifest.built[f"{NAME}.image"].certificate
    assert "ColPaliForRetrieval" in told.implementation
    assert "prompt" in told.compared
    assert manifest.models["acme/pages:muvera"].inputs["image"].triton_model == f"{NAME}.image"


def test_queries_are_what_the_processor_writes(built: Path, manifest: Manifest, processor: ColPaliProcessor) -> None:
    """The prefix once, the text, ten pad tokens and a new line; documents that are texts are read in the same way."""
    reader = public_model(built, manifest, NAME).reader
    assert isinstance(reader, TextReader)
    asked = Asked({"query_template": "query: {text}", "default_instruction": "find"}, "now")
    for is_query in (True, False):
        rows = reader.rows(QUERIES, asked, is_query=is_query)
        theirs = [processor(text=[text])["input_ids"][0].tolist() for text in QUERIES]
        assert [row.ids.tolist() for row in rows] == theirs
    assert theirs[0].count(2) == 1
    assert theirs[0][-11:-1] == [0] * 10
    bare = [len(processor.tokenizer(text)["input_ids"]) for text in QUERIES]
    assert reader.billed(QUERIES, rows, asked, is_query=True) == bare


def test_a_long_query_keeps_what_stands_behind_it(built: Path, manifest: Manifest, processor: ColPaliProcessor) -> None:
    reader = public_model(built, manifest, NAME).reader
    long = "total revenue " * 40
    (row,) = reader.rows([long], Asked(), is_query=True)
    ids = row.arrays["input_ids"].tolist()
    theirs = processor(text=[long])["input_ids"][0].tolist()
    assert row.cut
    assert ids == theirs[: 64 - 11] + theirs[-11:]


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (3, 50), (1, 300), (400, 2), (28, 28), (61, 40)], ids=str)
def test_pages_of_any_size_alone_and_beside_others(built: Path, manifest: Manifest, size: tuple[int, int]) -> None:
    """A page's rows depend on nothing but the page."""
    random = np.random.default_rng(size)
    pages = [in_base64(random.integers(0, 256, (height, width, 3), np.uint8)) for width, height in (size, (90, 30))]
    model = public_model(built, manifest, f"{NAME}.image")
    rows = model.rows([Case(page) for page in pages])
    runner = ModelRunner(built, model.name)
    together = runner.run(model.reader.batch(rows, rows[0].cost), ["multivector"])["multivector"]
    alone = runner.run(model.reader.batch(rows[:1], rows[0].cost), ["multivector"])["multivector"]
    np.testing.assert_allclose(alone[0], together[0], atol=1e-6, rtol=0)
    assert together.shape == (2, 35, WIDTH)
    assert np.abs(together[0] - together[1]).max() > 1e-3


def edited(name: str, **changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        document = json.loads(path.read_bytes()) if path.is_file() else {}
        path.write_text(json.dumps({**document, **changes}), encoding="utf-8")

    return edit


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "SIE309"),
        (edited("preprocessor_config.json", size={"height": 21, "width": 21}), "SIE340"),
        (edited("preprocessor_config.json", image_seq_length=17), "SIE340"),
        (edited("processor_config.json", query_suffix="?"), "SIE334"),
        (edited("tokenizer_config.json", bos_token=None), "SIE308"),
        (edited("config.json", model_type="clip"), "SIE335"),
    ],
    ids=["no pixels", "another size", "another length", "an unknown key", "no start", "another kind"],
)
def test_a_checkpoint_that_does_not_fit_is_refused(damage: Callable[[Path], object], said: str, tmp_path: Path) -> None:
    write_colpali(tmp_path / "checkpoint", preprocessor=PREPROCESSOR)
    damage(tmp_path / "checkpoint")
    code, stderr = build(tmp_path)
    assert code != 0
    assert said in stderr, stderr
    assert not (tmp_path / "repository").exists()


@pytest.mark.skipif(not os.environ.get("SIE_TRITON_ALL_RECIPES"), reason="one more build: SIE_TRITON_ALL_RECIPES=1")
def test_other_words_of_the_processor_are_read(tmp_path: Path) -> None:
    """The witness reads the file by itself, so that a build without them would not be close."""
    write_colpali(tmp_path / "checkpoint")
    edited("processor_config.json", query_prefix="Query: ", visual_prompt_prefix="the page.")(tmp_path / "checkpoint")
    code, said = build(tmp_path, "--device", "cpu")
    assert code == 0, said
    manifest = read_manifest(tmp_path / "repository")
    assert manifest.models["acme/pages"].text.prompting.default_prompt == "Query: "
