"""SigLIP through the compiler: its texts are those of transformers' own class, padded and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiler.command import Outcome
from sie_frontend.manifest import Manifest, read_manifest
from sie_frontend.text.reader import TextReader
from tokenizers import Tokenizer
from transformers import SiglipTokenizer

from sie_triton.facts import Spelling
from sie_triton.tokenizer import CheckpointTokenizer
from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.public_model import public_model
from sie_triton.verify.reference_texts import UNICODE_TEXTS

from .builds import NAME, Asked, build
from .checkpoints import write_sentencepiece, write_siglip
from .test_image_text_graphs import bundle_text
from .test_siglip_graphs import read

SPOKEN = (
    *(
        "Hi, there! It's",
        '"quoted" text',
        " , leading",
        "trailing . ",
        ".,;",
        "\u2581 blanks \u2581",
        "tab\tand\x85more",
    ),
    *("</s>, behind a token", "a</s>b c", "between </s> two", "an <unk> one", "ΟΔΟΣ, Σ ΑΣ.", "ﬁne", "A RED CAR"),
)


def build_siglip(root: Path) -> Outcome:
    """By a bundle that asks for what has no effect."""
    text = bundle_text(root / "checkpoint", 24, "SiglipAdapter").replace("normalize: true", "normalize: false")
    return build(root, bundle=text)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("siglip")
    write_siglip(root / "checkpoint")
    done = build_siglip(root)
    assert done.code == 0, done.stderr
    return root / "repository"


@pytest.fixture(scope="module")
def manifest(built: Path) -> Manifest:
    return read_manifest(built)


@pytest.mark.parametrize("words", ["Metaspace", "WhitespaceSplit"])
def test_texts_are_spelt_as_siglips_own_class_does(words: str, tmp_path: Path) -> None:
    """Whatever is in them: punctuation, case, white space, and special tokens written out.

    Older converters have a file split at white space before blanks become letters.
    """
    write_sentencepiece(tmp_path, {})
    if words == "WhitespaceSplit":
        document = json.loads((tmp_path / "tokenizer.json").read_bytes())
        document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": words}, document["pre_tokenizer"]]}
        (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    spelling = Spelling(canonical=True, lowercase=True)
    CheckpointTokenizer(tmp_path).write(tmp_path / "written.json", spelling=spelling)
    theirs = SiglipTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer.from_file(str(tmp_path / "written.json"))
    assert theirs("Hi")["input_ids"] != ours.encode("Hi").ids, "the mark in front would do nothing"
    for text in (*UNICODE_TEXTS, *SPOKEN):
        wanted = theirs(text)["input_ids"]
        assert ours.encode(spelling.start + text).ids == wanted, text


@pytest.mark.export
def test_every_text_is_padded_and_padding_counts(built: Path, manifest: Manifest) -> None:
    tokenization = manifest.models["acme/clip"].inputs["text"].reads.tokenization
    assert (tokenization.max_length, tokenization.buckets, tokenization.pads) == (16, (16,), "right")
    model = public_model(built, manifest, NAME)
    reader = model.reader
    assert isinstance(reader, TextReader)
    texts = ["a cat", "two dogs, one bone; what's that? " * 9]
    rows = reader.rows(texts, Asked(), is_query=False)
    theirs = SiglipTokenizer.from_pretrained(built.parent / "checkpoint")
    wanted = theirs(texts, padding="max_length", truncation=True, max_length=16)["input_ids"]
    assert [row.ids.tolist() for row in rows] == wanted
    assert reader.billed(texts, rows, Asked(), is_query=False) == [16, 16]
    assert {name: array.shape for name, array in reader.batch(rows, 16).items()} == {"input_ids": (2, 16)}
    assert list(reader.widths(exact=True)) == [16]


@pytest.mark.export
def test_nothing_that_a_call_asks_for_changes_a_text(built: Path, manifest: Manifest) -> None:
    reader = public_model(built, manifest, NAME).reader
    asked = Asked({"query_template": "query: {text}", "doc_template": "x {text}", "default_instruction": "find"}, "now")
    for is_query in (True, False):
        plain, other = (reader.rows(["a cat"], call, is_query=is_query)[0] for call in (Asked(), asked))
        np.testing.assert_array_equal(plain.arrays["input_ids"], other.arrays["input_ids"])


@pytest.mark.export
def test_both_graphs_have_unit_length_whatever_the_bundle_says(manifest: Manifest) -> None:
    """As SIE's adapter: `normalize` has no effect, and the certificate says so."""
    model = manifest.models["acme/clip"]
    assert model.inputs["image"].reads.fit == "squash"
    told = manifest.built[NAME].certificate
    assert any("`runtime.normalize` of `acme/clip` has no effect" in warning for warning in told.warnings)
    assert "SiglipModel" in told.implementation


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_input_names": ["input_ids", "attention_mask"]}, "SIE337"),
        ({"model_input_names": None}, "SIE337"),
        ({"padding_side": "both"}, "SIE308"),
    ],
    ids=str,
)
def test_padding_that_would_be_masked_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    write_siglip(tmp_path / "checkpoint", tokenizer=change)
    done = build_siglip(tmp_path)
    assert done.code != 0
    assert said in done.stderr


@pytest.mark.export
def test_another_case_than_the_checkpoint_says_is_noticed(tmp_path: Path) -> None:
    """The witness reads the same settings by itself: a build of texts that keep their case compares with such."""
    write_siglip(tmp_path / "checkpoint", tokenizer={"do_lower_case": False})
    done = build_siglip(tmp_path)
    assert done.code == 0, done.stderr
    normalizer = json.loads((tmp_path / "repository" / NAME / "1" / "tokenizer.json").read_bytes())["normalizer"]
    assert "Lowercase" not in {part["type"] for part in normalizer["normalizers"]}


@pytest.mark.export
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_second_siglip_is_padded_by_its_own_file(side: str, tmp_path: Path) -> None:
    """Gemma's tokenizer, whose file decides case and punctuation; `</s>` has no part in it."""
    model = write_siglip(tmp_path / "checkpoint", tokenizer={"padding_side": side}, second=True)
    done = build_siglip(tmp_path)
    assert done.code == 0, done.stderr
    manifest = read_manifest(tmp_path / "repository")
    tokenization = manifest.models["acme/clip"].inputs["text"].reads.tokenization
    assert (tokenization.pads, tokenization.pad_id) == (side, 0)
    reader = public_model(tmp_path / "repository", manifest, NAME).reader
    (row,) = reader.rows(["A cat."], Asked(), is_query=False)
    ids = row.arrays["input_ids"].tolist()
    real = [number for number in ids if number]
    assert ids == (real + [0] * (16 - len(real)) if side == "right" else [0] * (16 - len(real)) + real)
    assert 1 < len(real) < 16
    theirs = read(model, np.array([ids]))[0]
    ran = ModelRunner(tmp_path / "repository", NAME).run(reader.batch([row], 16), ["dense"])["dense"][0]
    np.testing.assert_allclose(ran, theirs, atol=1e-5, rtol=0)
