from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from compiler import tiny
from hypothesis import given
from hypothesis import strategies as st
from sie_frontend.manifest import read_manifest
from sie_frontend.rows import padded_width, stack
from sie_frontend.text.entry import Tokenization
from sie_frontend.text.tokenization import TextRow, TextTokenizer

from frontend.repository import token_ids

BUCKETS = (16, 32, 48)
FILLS = {"input_ids": 7, "attention_mask": 0}


@pytest.fixture(scope="module")
def spec(repository: Path) -> Tokenization:
    return read_manifest(repository).models[tiny.MODEL_ID].text.tokenization


def rows_of(*rows: list[int]) -> list[TextRow]:
    return [TextRow(np.asarray(row, dtype=np.int64), len(row)) for row in rows]


@pytest.mark.parametrize(
    "text", ["", " ", "the cell", "[PAD] [CLS] the [SEP]", "é ü 向量 👍🏽", "x" * 500, "the " * 500, "\x00\u200b\n"]
)
def test_ids_are_those_of_the_tokenizer_library(text: str, spec: Tokenization, repository: Path) -> None:
    (ids,) = TextTokenizer(spec, repository).encode([text])
    assert ids.dtype == np.int64
    assert ids.tolist() == token_ids(repository, text)
    assert len(ids) <= 48


@pytest.mark.parametrize("words", [45, 46, 47, 48, 400])
def test_truncation_keeps_the_special_tokens(words: int, spec: Tokenization, repository: Path) -> None:
    (ids,) = TextTokenizer(spec, repository).encode(["cell " * words])
    assert len(ids) == min(words + 2, 48)
    assert (ids[0], ids[-1]) == (2, 3)
    assert TextTokenizer(spec, repository).count(["cell " * words]) == [len(ids)]


def test_a_file_that_truncates_or_pads_by_itself_is_overruled(
    spec: Tokenization, repository: Path, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(repository / spec.path))
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    changed = msgspec.structs.replace(spec, path="tokenizer.json")
    (ids,) = TextTokenizer(changed, tmp_path).encode(["the cell " * 10])
    assert ids.tolist() == token_ids(repository, "the cell " * 10)


def test_a_text_of_no_tokens_becomes_one_that_is_attended_to(
    spec: Tokenization, repository: Path, tmp_path: Path
) -> None:
    document = json.loads((repository / spec.path).read_text(encoding="utf-8"))
    document["post_processor"] = None  # no special tokens around a text
    (tmp_path / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    changed = msgspec.structs.replace(spec, path="tokenizer.json", pad_id=4)
    blank, cell = TextTokenizer(changed, tmp_path).encode(["", "cell"])
    assert (blank.tolist(), len(cell)) == ([4], 1)


@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=48), min_size=1, max_size=12))
def test_a_batch_holds_every_row_and_nothing_else(rows: list[list[int]]) -> None:
    """Ids include the pad id, 7: only lengths may decide what is attended to."""
    batch = stack(rows_of(*rows), padded_width(max(map(len, rows)), BUCKETS), FILLS)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    assert ids.shape == mask.shape == (len(rows), padded_width(max(map(len, rows)), BUCKETS))
    for row, row_ids, row_mask in zip(rows, ids, mask, strict=True):
        assert row_ids.tolist() == row + [7] * (ids.shape[1] - len(row))
        assert row_mask.tolist() == [1] * len(row) + [0] * (ids.shape[1] - len(row))


@given(st.integers(0, 60))
def test_the_bucket_is_the_shortest_that_holds_it(length: int) -> None:
    fitting = [bucket for bucket in BUCKETS if bucket >= length]
    if fitting:
        assert padded_width(length, BUCKETS) == min(fitting)
    else:
        with pytest.raises(ValueError, match="exceed the widest shape, 48"):
            padded_width(length, BUCKETS)
