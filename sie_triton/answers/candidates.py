"""The texts that a reranker is asked to order: those that BM25 finds for each query, as before most rerankers."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from sie_frontend.rows import Array

from sie_triton.answers.order import first_of

_WORD = re.compile(r"\w+")
# The usual constants: how soon a repeated word says nothing more, and how much a long text must have more of it.
K1, B = 1.2, 0.75


def candidates(texts: Sequence[str], queries: Sequence[int], count: int) -> Array:
    """For each query, the place of a text, the places of the `count` others that are first by BM25: `[queries, count]`.

    Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, equation 3.8, with an
    inverse document frequency that is never negative.
    """
    words = [[word.lower() for word in _WORD.findall(text)] for text in texts]
    numbers: dict[str, int] = {}
    flat = np.asarray([numbers.setdefault(word, len(numbers)) for line in words for word in line])
    lengths = np.asarray([len(line) for line in words])
    rows = np.repeat(np.arange(len(texts)), lengths)
    pairs, often = np.unique(rows * len(numbers) + flat, return_counts=True)
    rows, terms = pairs // len(numbers), pairs % len(numbers)
    having = np.bincount(terms, minlength=len(numbers))
    rarity = np.log1p((len(texts) - having + 0.5) / (having + 0.5))
    weights = rarity[terms] * often * (K1 + 1) / (often + K1 * (1 - B + B * lengths[rows] / lengths.mean()))
    found = []
    for query in queries:
        asked = np.zeros(len(numbers))
        asked[[numbers[word] for word in set(words[query])]] = 1
        scores = np.bincount(rows, weights=weights * asked[terms], minlength=len(texts))
        scores[query] = -np.inf
        found.append(first_of(scores, count))
    return np.stack(found)
