"""How an output's queries and documents are compared: cosine, dot product, MaxSim.

Each is an index over documents: `scores` of a query with all of them, and `closeness` of two versions of one document.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from sie_frontend.closeness import cosine
from sie_frontend.outputs.sparse import SparseVector
from sie_frontend.rows import Array


class Index(Protocol):
    """Documents that can be asked. `comparison` is its name; of queries, every `asked`-th is worth the time."""

    comparison: ClassVar[str]
    asked: ClassVar[int]

    def __init__(self, documents: Sequence[Any]) -> None: ...

    def scores(self, query: Any) -> Array:
        """One score a document, `[n]`."""

    @staticmethod
    def closeness(ours: Any, theirs: Any) -> float:
        """The cosine of a document with itself in another precision."""


class CosineIndex:
    """Vectors `[width]`, of any length: the cosine of the angle between them."""

    comparison: ClassVar[str] = "cosine"
    asked: ClassVar[int] = 1

    def __init__(self, documents: Sequence[Array]) -> None:
        self._documents = unit(np.stack(documents))

    def scores(self, query: Array) -> Array:
        """The cosine with each document; the query's length changes no order."""
        return np.asarray(self._documents @ unit(query[None])[0])

    @staticmethod
    def closeness(ours: Array, theirs: Array) -> float:
        """Their cosine."""
        return cosine(ours, theirs)


class DotIndex:
    """Sparse vectors: the sum, over the terms that both have, of their weights' products.

    What SPLADE ranks by (Formal et al., "SPLADE", 2021, equation 1 and what follows), and an inverted index computes.
    """

    comparison: ClassVar[str] = "dot product"
    asked: ClassVar[int] = 1

    def __init__(self, documents: Sequence[SparseVector]) -> None:
        self._count = len(documents)
        self._rows = np.repeat(np.arange(self._count), [len(document.indices) for document in documents])
        self._terms = np.concatenate([document.indices for document in documents])
        self._weights = np.concatenate([document.values for document in documents]).astype(np.float64)
        self._width = int(self._terms.max(initial=0)) + 1

    def scores(self, query: SparseVector) -> Array:
        """The dot product with each document."""
        known = query.indices < self._width
        spread = np.zeros(self._width)
        spread[query.indices[known]] = query.values[known]
        return np.bincount(self._rows, weights=spread[self._terms] * self._weights, minlength=self._count)

    @staticmethod
    def closeness(ours: SparseVector, theirs: SparseVector) -> float:
        """Their cosine over the vocabulary."""
        width = 1 + max(int(vector.indices.max(initial=0)) for vector in (ours, theirs))
        spread = np.zeros((2, width))
        for line, vector in zip(spread, (ours, theirs), strict=True):
            line[vector.indices] = vector.values
        return cosine(*spread)


class MaxSimIndex:
    """A vector for each token: the sum, over the query's tokens, of the largest dot product with one of the document's.

    Khattab and Zaharia, "ColBERT", 2020, equation 3. A document without tokens comes last.
    """

    comparison: ClassVar[str] = "MaxSim"
    # Each query has as many vectors as a document, and meets all vectors of all of them.
    asked: ClassVar[int] = 2

    def __init__(self, documents: Sequence[Array]) -> None:
        self._tokens = np.concatenate(documents).T
        counts = np.asarray([len(document) for document in documents])
        self._filled = np.flatnonzero(counts)
        self._starts = (np.cumsum(counts) - counts)[self._filled]
        self._count = len(documents)

    def scores(self, query: Array) -> Array:
        """MaxSim with each document."""
        found = np.full(self._count, -np.inf)
        if len(self._filled):
            found[self._filled] = np.maximum.reduceat(query @ self._tokens, self._starts, axis=1).sum(axis=0)
        return found

    @staticmethod
    def closeness(ours: Array, theirs: Array) -> float:
        """The cosine of all their tokens at once; with tokens of length 1 that is the mean of the tokens' cosines."""
        return cosine(ours.ravel(), theirs.ravel())


def unit(vectors: Array) -> Array:
    """`vectors` `[n, width]` with length 1; those without length stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)
