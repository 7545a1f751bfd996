"""The ten nearest, against counting by hand; the texts are the same every time."""

from __future__ import annotations

import numpy as np

from sie_triton.eight_bits.corpus import digest, documentation
from sie_triton.eight_bits.neighbours import kept, nearest, unit

RANDOM = np.random.default_rng(5)


def by_hand(query: list[float], index: list[list[float]], own: int, count: int) -> set[int]:
    scored = sorted(
        ((sum(a * b for a, b in zip(query, row, strict=True)), place) for place, row in enumerate(index)), reverse=True
    )
    return {place for _, place in [entry for entry in scored if entry[1] != own][:count]}


def test_nearest_is_what_counting_gives() -> None:
    index = unit(RANDOM.standard_normal((300, 8)))
    own = np.arange(0, 300, 7)
    found = nearest(index[own], index, own, 10)
    for place, row in enumerate(found):
        assert set(map(int, row)) == by_hand(index[own[place]].tolist(), index.tolist(), int(own[place]), 10)


def test_kept_counts_answers() -> None:
    theirs = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert kept(theirs, theirs[:, ::-1]) == 1.0
    assert kept(theirs, np.array([[1, 2, 9, 10], [5, 6, 7, 11]])) == 5 / 8


def test_the_documentation_is_the_same_every_time() -> None:
    texts = documentation(600)
    assert texts == documentation(600) and len(set(texts)) == 600
    assert digest(texts) != digest(texts[:-1])
    assert all(len(text.split()) > 3 and len(text) <= 200 for text in texts)
