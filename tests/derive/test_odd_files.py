"""Files of a checkpoint that hold anything at all: a bundle is derived, or a reason is named, and nothing breaks."""

from __future__ import annotations

import json
import math
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from compiler.folders import BERT, NORMALIZE, POOLING, TRANSFORMER, write_folder

from sie_triton.checkpoint.files import read_json
from sie_triton.checkpoint.problems import damage
from sie_triton.checkpoint.tensors import read_header
from sie_triton.derive import Origin, derive_bundle
from sie_triton.diagnostics import DiagnosticError
from sie_triton.facts import read_facts
from sie_triton.facts.known_keys import FILES
from sie_triton.tokenizer.token_weights import first_weights

ODD: tuple[Any, ...] = (None, True, -1, 2**70, math.nan, "", "x", [], {}, [None], [[]], [1], {"a": {}})
DEEP = "[" * 20_000 + "]" * 20_000
"""More than Python's own JSON reader can hold."""


def module(number: int, kind: str) -> dict[str, Any]:
    return {
        "idx": number,
        "name": str(number),
        "path": f"{number}_{kind}",
        "type": f"sentence_transformers.models.{kind}",
    }


DENSE = {"in_features": 384, "out_features": 384}
SPLADE = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.sparse_encoder.models.MLMTransformer"}
CHECKPOINTS: Mapping[str, dict[str, Any]] = {
    "dense": {
        "modules.json": [TRANSFORMER, POOLING, module(2, "Dense"), module(3, "LayerNorm"), NORMALIZE],
        "1_Pooling/config.json": {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True},
        "2_Dense/config.json": DENSE,
        "3_LayerNorm/config.json": {"dimension": 384},
        "2_Normalize/config.json": {},
    },
    "sparse": {
        "modules.json": [SPLADE, module(1, "SpladePooling")],
        "1_SpladePooling/config.json": {"pooling_strategy": "max"},
        "config_sentence_transformers.json": {"model_type": "SparseEncoder"},
        "config.json": {**BERT, "architectures": ["BertForMaskedLM"], "vocab_size": 30},
    },
    "multivector": {
        "modules.json": [TRANSFORMER, module(1, "Dense"), module(2, "MultiVectorMask"), module(3, "Normalize")],
        "1_Dense/config.json": {**DENSE, "module_input_name": "token_embeddings"},
        "2_MultiVectorMask/config.json": {"skiplist_words": list(string.punctuation)},
        "3_Normalize/config.json": {"module_input_name": "token_embeddings"},
        "config_sentence_transformers.json": {"model_type": "MultiVectorEncoder"},
    },
    "scores": {
        "config.json": {**BERT, "architectures": ["BertForSequenceClassification"], "num_labels": 1},
        "config_sentence_transformers.json": {"model_type": "CrossEncoder"},
    },
}
EVERYWHERE = ("tokenizer_config.json", "sentence_bert_config.json", "config_sentence_transformers.json", "config.json")


def derived(folder: Path) -> bool:
    """Whether a bundle came of it; a reason with a code is as good."""
    try:
        derive_bundle("a/model", read_facts(folder), Origin(folder=folder))
    except DiagnosticError as error:
        assert all(problem.code.startswith("SIE") for problem in error.diagnostics)
        return False
    return True


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_the_checkpoints_are_whole(kind: str, tmp_path: Path) -> None:
    assert derived(write_folder(tmp_path, CHECKPOINTS[kind]))


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_no_value_of_any_key_breaks_it(kind: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, CHECKPOINTS[kind])
    tried = 0
    for name in dict.fromkeys((*(EVERYWHERE if kind == "dense" else EVERYWHERE[2:]), *CHECKPOINTS[kind])):
        path = folder / name
        written = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        objects = written if isinstance(written, list) else [written]
        table = FILES.get(name) or FILES.get(f"{name.rpartition('/')[0].partition('_')[2]}/config.json") or {}
        for entry in objects:
            for key in {**entry, **table}:
                before = dict(entry)
                for value in ODD:
                    entry[key] = value
                    path.write_text(json.dumps(written), encoding="utf-8")
                    derived(folder)
                    tried += 1
                entry.clear()
                entry.update(before)
        for whole in (*ODD, [1, 2]):
            path.write_text(json.dumps(whole), encoding="utf-8")
            derived(folder)
        path.write_text(json.dumps(written), encoding="utf-8")
    assert tried > 200
    assert derived(folder)


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_no_file_breaks_it_that_nests_without_end(kind: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, CHECKPOINTS[kind])
    for name in CHECKPOINTS[kind]:
        path = folder / name
        text = path.read_text(encoding="utf-8")
        path.write_text(DEEP, encoding="utf-8")
        assert damage(path) is not None
        assert read_json(path) is None
        derived(folder)
        path.write_text(text, encoding="utf-8")


def test_a_header_of_weights_may_hold_anything(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for header in (DEEP.encode(), b"[]", b"{", b'{"a": 1}', b'{"a": {"data_offsets": []}}'):
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(ValueError):
            read_header(path)
        assert damage(path) is not None


@pytest.mark.parametrize("text", [DEEP, "[]", "1", '{"a": []}', '{"a": {}}', '{"a": null}', '{"a": "x"}', "{"])
def test_a_table_of_token_weights_may_hold_anything(text: str, tmp_path: Path) -> None:
    (tmp_path / "idf.json").write_text(text, encoding="utf-8")
    with pytest.raises(DiagnosticError):
        first_weights([tmp_path / "idf.json"])
