"""The checkpoint factory: what it makes is whole, always the same, and different texts come out different."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import yaml
from contract.recorded import option_keys
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer

from sie_triton.bundle import expand, load_bundle
from sie_triton.planning.catalogue import verdict
from sie_triton.planning.families import Recipe

from .corpus import LONG_TEXT, QUERY, TEXTS
from .factory import FAMILIES, make
from .family import ADAPTERS, Family
from .made import made, oracle
from .references import Sparse, tokenize, tokenizer

NATIVE = [name for name, family in FAMILIES.items() if family.native is not None]
AUTHORS_LAYOUT = [name for name, family in FAMILIES.items() if family.native is None]
REFERENCED = [name for name, family in FAMILIES.items() if family.has_reference]
REAL_VOCABULARY = {"xlm_roberta", "bge_m3"}
"""Families whose tokenizer of 250 000 pieces takes transformers seconds to load."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A matrix of 32 columns is no work to share: threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", FAMILIES)
def test_two_makes_are_byte_for_byte_the_same(name: str, tmp_path: Path) -> None:
    assert digests(make(name, tmp_path).folder) == digests(made(name).folder)


def test_families_of_one_builder_have_weights_of_their_own() -> None:
    first, second = (digests(made(name).folder)["model.safetensors"] for name in ("bert", "sentence_bert"))
    assert first != second


@pytest.mark.parametrize("name", NATIVE)
def test_transformers_loads_every_weight_without_remote_code(name: str) -> None:
    kind = getattr(transformers, str(FAMILIES[name].native))
    model, report = kind.from_pretrained(made(name).folder, local_files_only=True, output_loading_info=True)
    assert type(model).__name__ == FAMILIES[name].native
    assert report["missing_keys"] == set()
    assert not report["mismatched_keys"]
    assert AutoConfig.from_pretrained(made(name).folder, trust_remote_code=False).model_type == model.config.model_type


@pytest.mark.parametrize("name", AUTHORS_LAYOUT)
def test_a_checkpoint_for_the_authors_own_code_does_not_load_whole(name: str) -> None:
    """Some are refused, and the others are the trap: they load with weights left random, or with wrong shapes."""
    family, folder = FAMILIES[name], made(name).folder
    auto = getattr(transformers, f"AutoModelFor{'MaskedLM' if 'sparse' in family.encode else 'SequenceClassification'}")
    auto = transformers.AutoModel if {"dense", "multivector"} & set(family.encode) else auto
    try:
        _, report = auto.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, output_loading_info=True
        )
    except (ValueError, KeyError, RuntimeError):
        return
    assert len(report["missing_keys"]) > 10


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - REAL_VOCABULARY))
def test_transformers_reads_the_tokenizer_as_it_lies(name: str) -> None:
    folder = made(name).folder
    direct, loaded = Tokenizer.from_file(str(folder / "tokenizer.json")), AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        expected = direct.encode(text).ids
        if name == "qwen3":  # transformers 5 rebuilds the post-processor where `add_bos_token` is written out
            expected.pop()
        assert loaded(text)["input_ids"] == expected
    pairs = loaded([[QUERY, text] for text in TEXTS])["input_ids"]
    if name != "qwen3":
        assert pairs == [direct.encode(QUERY, text).ids for text in TEXTS]


@pytest.mark.parametrize("name", FAMILIES)
def test_texts_are_words_and_not_unknown_tokens_and_the_long_one_is_cut(name: str) -> None:
    folder, limit = made(name).folder, FAMILIES[name].max_length
    ids, _ = tokenize(folder, TEXTS[0], max_length=None)
    assert len(set(ids)) > 5
    assert len(tokenize(folder, LONG_TEXT, max_length=None)[0]) > (limit or 96)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_compiler_knows_the_bundle(name: str) -> None:
    bundle, diagnostics = load_bundle(made(name).bundle_path)
    assert bundle is not None
    assert diagnostics == []
    (profile,) = expand(bundle)
    assert profile.model_id == made(name).sie_id == FAMILIES[name].sie_id
    judged = verdict(profile, bundle)
    assert isinstance(judged, Recipe), judged
    assert set(judged.outputs) == {*FAMILIES[name].encode, *(["score"] if FAMILIES[name].score else [])}


def test_bundles_have_the_adapters_of_real_ones_and_option_keys_of_the_contract(public_bundles: Path) -> None:
    for side, known in option_keys().items():
        for family in FAMILIES.values():
            assert set(getattr(family, side) or {}) <= known, family.name
    for family in FAMILIES.values():
        if family.modelled_on:
            text = (public_bundles / family.modelled_on).read_text(encoding="utf-8")
            adapters = {profile.get("adapter_path") for profile in yaml.safe_load(text)["profiles"].values()}
            assert ADAPTERS[family.adapter] in adapters, family.name


@pytest.mark.parametrize("name", REFERENCED)
def test_references_are_finite_and_tell_texts_apart(name: str) -> None:
    family = FAMILIES[name]
    if family.encode:
        for is_query in (False, True):
            found = oracle(name).encode([*TEXTS, LONG_TEXT], is_query=is_query)
            if "dense" in family.encode:
                _check_vectors([_present(item.dense) for item in found], family.encode["dense"])
            if "sparse" in family.encode:
                _check_sparse([_sparse(item.sparse) for item in found], vocabulary_size(family))
            if "multivector" in family.encode:
                for item in found:
                    rows = _present(item.multivector)
                    assert rows.shape[1] == family.encode["multivector"]
                    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
                _check_vectors([_present(item.multivector).mean(0) for item in found], family.encode["multivector"])
    if family.score:
        scores = oracle(name).score(QUERY, TEXTS)
        assert np.isfinite(scores).all()
        assert max(scores) - min(scores) > 0.1
        assert len({round(score, 5) for score in scores}) == len(TEXTS)


def _present(vector: np.ndarray | None) -> np.ndarray:
    assert vector is not None
    assert vector.dtype == np.float32
    assert np.isfinite(vector).all()
    return vector


def _sparse(found: Sparse | None) -> Sparse:
    assert found is not None
    return found


def vocabulary_size(family: Family) -> int:
    return int(tokenizer(made(family.name).folder).get_vocab_size())


def _check_vectors(vectors: list[np.ndarray], width: int) -> None:
    units = np.stack([vector / np.linalg.norm(vector) for vector in vectors])
    assert units.shape[1] == width
    cosines = units @ units.T - 2 * np.eye(len(units))
    assert cosines.max() < 0.99


def _check_sparse(found: list[Sparse], vocabulary: int) -> None:
    for item in found:
        assert 0 < len(item.ids) < 0.6 * vocabulary
        assert len(set(item.ids)) == len(item.ids) == len(item.weights)
        assert (item.weights > 0).all()
    assert len({tuple(item.ids) for item in found}) == len(found)
