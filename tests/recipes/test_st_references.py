"""Our references against sentence-transformers, for the recipes that it has."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from . import references
from .bodies import read_json
from .corpus import LONG_TEXT, QUERY, TEXTS
from .factory import FAMILIES
from .made import made, oracle
from .st_references import st_reference_dense, st_reference_multivector, st_reference_score, st_reference_sparse

pytest.importorskip("sentence_transformers", minversion="6")

DENSE = [name for name, family in FAMILIES.items() if family.adapter == "SentenceTransformerDenseAdapter"]
CROSS_ENCODERS = [name for name in FAMILIES if name.startswith("cross_encoder_") and FAMILIES[name].native]
ALL_TEXTS = [*TEXTS, LONG_TEXT]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("is_query", [False, True])
@pytest.mark.parametrize("name", DENSE)
def test_dense(name: str, is_query: bool) -> None:
    folder, limit = made(name).folder, FAMILIES[name].max_length
    settings = read_json(folder / "config_sentence_transformers.json")
    prompt = settings["prompts"].get("query" if is_query else "document", "")
    for normalize in (False, True):
        expected = st_reference_dense(folder, ALL_TEXTS, is_query=is_query, normalize=normalize, max_length=limit)
        for text, vector in zip(ALL_TEXTS, expected, strict=True):
            ours = references.sentence_transformer(folder, text, prompt=prompt, normalize=normalize, max_length=limit)
            np.testing.assert_allclose(ours, vector, atol=2e-6)


@pytest.mark.parametrize("prompt", [None, "find "])
@pytest.mark.parametrize("name", ["sentence_splade", "splade_bert"])
def test_sparse(name: str, prompt: str | None) -> None:
    folder = made(name).folder
    expected = st_reference_sparse(folder, ALL_TEXTS, prompt=prompt, max_length=48)
    for text, found in zip(ALL_TEXTS, expected, strict=True):
        ours = references.splade(folder, (prompt or "") + text, max_length=48)
        assert ours.ids == found.ids
        np.testing.assert_allclose(ours.weights, found.weights, atol=1e-4)


@pytest.mark.parametrize("name", CROSS_ENCODERS)
def test_cross_encoder(name: str) -> None:
    expected = st_reference_score(made(name).folder, QUERY, ALL_TEXTS, max_length=FAMILIES[name].max_length)
    np.testing.assert_allclose(oracle(name).score(QUERY, ALL_TEXTS), expected, atol=1e-5)


def test_causal_logit_score() -> None:
    expected = st_reference_score(made("zerank").folder, QUERY, TEXTS, max_length=None)
    np.testing.assert_allclose(oracle("zerank").score(QUERY, TEXTS), expected, atol=1e-5)


@pytest.mark.parametrize("is_query", [False, True])
@pytest.mark.parametrize("name", ["colbert_root_linear", "colbert_pylate", "colbert_modernbert"])
def test_multivector(name: str, is_query: bool) -> None:
    expected = st_reference_multivector(made(name).folder, ALL_TEXTS, is_query=is_query)
    for ours, rows in zip(oracle(name).encode(ALL_TEXTS, is_query=is_query), expected, strict=True):
        assert ours.multivector is not None
        np.testing.assert_allclose(ours.multivector, rows, atol=2e-6)
