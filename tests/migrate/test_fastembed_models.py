"""The table of Fastembed's models is Fastembed's own."""

from __future__ import annotations

import inspect
from pathlib import Path

import fastembed
import pytest
from fastembed.common.preprocessor_utils import load_tokenizer

from migrate.fastembed_lists import HEAD, rows
from sie_triton.migrate.scan.fastembed_models import TABLE, fastembed_model
from sie_triton.migrate.scan.table import callables


@pytest.mark.filterwarnings("ignore")
def test_the_table_is_what_fastembed_lists() -> None:
    """Names, files, dims and limits from its lists; poolings and lengths from what its code makes of numbers."""
    written = TABLE.read_text(encoding="utf-8")
    assert written == HEAD + "\n".join(rows()) + "\n", "run `python -m migrate.fastembed_lists`"


def test_the_defaults_of_its_classes() -> None:
    """The model that a class takes where none is named, and where its name stands, by the class's own signature."""
    checked = 0
    for row in callables():
        kind = getattr(fastembed, row.name, None)
        if row.packages != ("fastembed",) or kind is None or row.name in ("FlagEmbedding", "JinaEmbedding"):
            continue
        (name, parameter), *_ = list(inspect.signature(kind.__init__).parameters.items())[1:]
        assert name in row.keywords
        assert row.position == 0
        default = "" if parameter.default is inspect.Parameter.empty else parameter.default
        assert row.default in (default, "BAAI/bge-small-en-v1.5"), row.name
        checked += 1
    assert checked >= 4


def test_names_are_compared_as_fastembed_does() -> None:
    row = fastembed_model("dense", "baai/BGE-Small-en-v1.5")
    assert row is not None
    assert row.optimized
    assert not row.quantized
    quantized = fastembed_model("any", "nomic-ai/nomic-embed-text-v1.5-q")
    assert quantized is not None
    assert (quantized.quantized, quantized.checkpoint) == (True, "nomic-ai/nomic-embed-text-v1.5")
    assert fastembed_model("sparse", "BAAI/bge-small-en-v1.5") is None


def test_where_it_cuts_is_read_from_the_files_and_not_from_the_description(minilm: Path) -> None:
    """What the note on truncation rests on: its description says 256 for this model."""
    tokenizer, _ = load_tokenizer(minilm)
    row = fastembed_model("dense", "sentence-transformers/all-MiniLM-L6-v2")
    assert row is not None
    assert tokenizer.truncation["max_length"] != row.tokens
