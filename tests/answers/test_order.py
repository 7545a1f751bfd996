"""Orders of answers, against SciPy and counting by hand; the texts are the same every time."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image
from scipy.stats import kendalltau

from sie_triton.answers.corpus import digest, documentation
from sie_triton.answers.order import first_of, kendall_tau, kept
from sie_triton.answers.pictures import pictures

RANDOM = np.random.default_rng(5)


def test_the_first_are_those_of_sorting_and_equal_scores_keep_their_places() -> None:
    scores = RANDOM.standard_normal(300)
    by_hand = sorted(range(300), key=lambda place: (-scores[place], place))
    assert list(first_of(scores)) == by_hand[:10]
    assert list(first_of(np.zeros(20), 4)) == [0, 1, 2, 3]
    assert list(first_of(np.array([-np.inf, 1.0, 3.0, 1.0]), 3)) == [2, 1, 3]


def test_kept_counts_answers() -> None:
    theirs = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert kept(theirs, theirs[:, ::-1]) == 1.0
    assert kept(theirs, np.array([[1, 2, 9, 10], [5, 6, 7, 11]])) == 5 / 8


@pytest.mark.parametrize("noise", [0.0, 0.1, 3.0])
@pytest.mark.parametrize("levels", [4, 1_000_000])
def test_tau_is_scipys_with_equal_scores_and_without(noise: float, levels: int) -> None:
    theirs = np.rint(RANDOM.random(50) * levels).astype(np.float32)
    ours = np.rint(theirs + noise * levels * RANDOM.standard_normal(50)).astype(np.float32)
    assert kendall_tau(theirs, ours) == pytest.approx(kendalltau(theirs, ours, variant="b").statistic)


def test_tau_of_neighbours_that_change_places_is_one_minus_twice_their_share() -> None:
    theirs = np.arange(10.0)
    ours = theirs.copy()
    ours[[3, 4]] = ours[[4, 3]]
    assert kendall_tau(theirs, ours) == pytest.approx(1 - 2 / 45)
    assert kendall_tau(np.ones(5), np.arange(5.0)) == 1.0
    assert kendall_tau(np.arange(5.0), np.ones(5)) == 0.0


def test_the_documentation_is_the_same_every_time() -> None:
    texts = documentation(600)
    assert texts == documentation(600) and len(set(texts)) == 600
    assert digest(texts) != digest(texts[:-1])
    assert all(len(text.split()) > 3 and len(text) <= 200 for text in texts)


def test_pictures_are_the_same_everywhere() -> None:
    """Recorded: what is measured on one machine is measured on another."""
    drawn = list(pictures(3))
    assert digest(drawn) == "5fa73bc601847be61bd90e8a2096b09646a33f9b60b228f7410d91754e69a05a"
    assert len(set(drawn)) == 3
    decoded = [Image.open(io.BytesIO(base64.b64decode(one))) for one in drawn]
    assert {picture.mode for picture in decoded} == {"RGB"} and len({picture.size for picture in decoded}) == 3
    assert min(np.asarray(picture, np.float64).std() for picture in decoded) > 10
