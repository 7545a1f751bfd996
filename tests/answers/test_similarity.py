"""Indexes of each kind, against the scores that sentence-transformers gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers.util import cos_sim, dot_score, maxsim
from sie_frontend.outputs.sparse import SparseVector
from sie_frontend.rows import Array

from sie_triton.answers.similarity import CosineIndex, DotIndex, MaxSimIndex, unit

pytestmark = pytest.mark.export
RANDOM = np.random.default_rng(5)
WORDS = 90


def test_cosines_are_those_of_sentence_transformers() -> None:
    documents, query = RANDOM.standard_normal((40, 8)).astype(np.float32), RANDOM.standard_normal(8).astype(np.float32)
    expected = cos_sim(torch.from_numpy(query), torch.from_numpy(documents))[0].numpy()
    np.testing.assert_allclose(CosineIndex(list(documents)).scores(query), expected, atol=1e-6)
    assert np.array_equal(unit(np.zeros((1, 3), np.float32)), np.zeros((1, 3)))


def sparse(spread: Array) -> SparseVector:
    indices = np.flatnonzero(spread).astype(np.int32)
    return SparseVector(indices, spread[indices])


def test_dot_products_of_sparse_vectors_are_those_of_sentence_transformers() -> None:
    spread = np.maximum(RANDOM.standard_normal((41, WORDS)) - 1, 0).astype(np.float32)
    # Nothing in one, nothing in common, and a query with a word that no document has.
    spread[3] = 0
    spread[:40, WORDS - 1] = 0
    spread[40, WORDS - 1] = 2
    query, documents = sparse(spread[40]), [sparse(row) for row in spread[:40]]
    expected = dot_score(torch.from_numpy(spread[40]), torch.from_numpy(spread[:40]))[0].numpy()
    np.testing.assert_allclose(DotIndex(documents).scores(query), expected, atol=1e-6)
    close = DotIndex.closeness(documents[0], documents[1])
    assert abs(close - float(cos_sim(torch.from_numpy(spread[0]), torch.from_numpy(spread[1])))) < 1e-6
    assert DotIndex.closeness(documents[3], documents[3]) == 1.0
    assert DotIndex.closeness(documents[3], documents[0]) == 0.0


def test_maxsim_is_that_of_sentence_transformers() -> None:
    documents = [RANDOM.standard_normal((count, 8)).astype(np.float32) for count in (3, 7, 1, 12)]
    query = RANDOM.standard_normal((5, 8)).astype(np.float32)
    expected = maxsim([torch.from_numpy(query)], [torch.from_numpy(document) for document in documents])[0].numpy()
    np.testing.assert_allclose(MaxSimIndex(documents).scores(query), expected, rtol=1e-5)
    with_empty = [documents[0], documents[0][:0], *documents[1:], documents[0][:0]]
    scores = MaxSimIndex(with_empty).scores(query)
    np.testing.assert_allclose(scores[[0, 2, 3, 4]], expected, rtol=1e-5)
    assert np.isneginf(scores[[1, 5]]).all()


def test_token_vectors_are_as_close_as_the_mean_of_their_cosines() -> None:
    ours, theirs = (unit(RANDOM.standard_normal((6, 8)).astype(np.float32)) for _ in range(2))
    each = [float(cos_sim(torch.from_numpy(a), torch.from_numpy(b))) for a, b in zip(ours, theirs, strict=True)]
    assert abs(MaxSimIndex.closeness(ours, theirs) - np.mean(each)) < 1e-6
