"""A public model in two precisions over the same texts: how many of the true ten nearest stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from sie_frontend.manifest import Nearest
from sie_frontend.outputs.kind import Shape
from sie_frontend.outputs.table import encoded_kind
from sie_frontend.reference import Case
from sie_frontend.rows import Array, Row

from sie_triton.answers.corpus import TOLD, digest
from sie_triton.answers.order import first_of, kept
from sie_triton.answers.runs import computed
from sie_triton.answers.similarity import CosineIndex, DotIndex, Index, MaxSimIndex
from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.public_model import OpenHead, PublicModel

# Every so many texts one is asked for, as a query.
QUERY_EVERY = 10

Reads: TypeAlias = "Callable[[Mapping[str, Array], Row, bool], Any]"
"""A row's tensors, the row, and whether it is a query's -> what is compared."""


@dataclass(frozen=True, slots=True)
class IndexedOutput:
    """An output that an index is made of: its name among the distances, how it is compared, and how it is read.

    `tensors` and `asks` are what documents and queries need of the graphs.
    """

    name: str
    index: type[Index]
    tensors: tuple[str, ...]
    asks: tuple[str, ...]
    read: Reads


@dataclass(frozen=True, slots=True)
class TextsAndQueries:
    """Of one output, what the texts and the queries became."""

    texts: list[Any]
    queries: list[Any]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Texts, their rows, those of the queries, and what float32 makes of them, by output."""

    model: PublicModel
    texts: tuple[str, ...]
    rows: tuple[Row, ...]
    asked: tuple[Row, ...]
    float32: Mapping[str, TextsAndQueries]

    @classmethod
    def of(cls, model: PublicModel, runner: ModelRunner, texts: tuple[str, ...]) -> Corpus:
        """Compute float32's side."""
        rows = tuple(model.rows([Case(text) for text in texts]))
        asked = tuple(model.rows([Case(None, text) for text in texts[::QUERY_EVERY]]))
        return cls(model, texts, rows, asked, _encoded(model, runner, indexed(model), rows, asked))


def indexed(model: PublicModel) -> list[IndexedOutput]:
    """The outputs of a model that indexes are made of. Those that have none are pairs' scores."""
    outputs = []
    for compared in model.comparables:
        if compared.shape is Shape.VECTOR:
            (tensor,) = compared.tensors
            outputs.append(IndexedOutput(compared.name, CosineIndex, (tensor,), (tensor,), _plain(tensor)))
        elif compared.shape is not Shape.NUMBER:
            head = next(head for head in model.heads if compared in head.entry.comparables)
            index = MaxSimIndex if compared.shape is Shape.VECTORS else DotIndex
            outputs.append(_by_head(compared.name, index, model, head))
    return outputs


def _plain(tensor: str) -> Reads:
    return lambda tensors, row, is_query: tensors[tensor]


def _by_head(name: str, index: type[Index], model: PublicModel, head: OpenHead) -> IndexedOutput:
    """As the frontend reads it, so that special tokens and tables of query weights count as they are served."""
    kind, call = encoded_kind(head.entry), model.call
    assert kind is not None
    return IndexedOutput(
        name,
        index,
        kind.tensors(call, is_query=False),
        kind.tensors(call, is_query=True),
        lambda tensors, row, is_query: kind.read(tensors, row, call, head.heads, is_query=is_query),
    )


def measure_nearest(corpus: Corpus, runner: ModelRunner) -> dict[str, Nearest]:
    """What the graphs of `runner` do to an index of the corpus, for each output that indexes are made of."""
    outputs = indexed(corpus.model)
    ours = _encoded(corpus.model, runner, outputs, corpus.rows, corpus.asked)
    return {output.name: _measured(corpus, output, ours[output.name]) for output in outputs}


def _measured(corpus: Corpus, output: IndexedOutput, ours: TextsAndQueries) -> Nearest:
    theirs, every = corpus.float32[output.name], output.index.asked
    index, own_index = output.index(theirs.texts), output.index(ours.texts)
    places = range(0, len(corpus.texts), QUERY_EVERY * every)
    true = _nearest(index, theirs.queries[::every], places)
    return Nearest(
        texts=len(corpus.texts),
        queries=len(places),
        alike=kept(true, _nearest(own_index, ours.queries[::every], places)),
        mixed=kept(true, _nearest(index, ours.queries[::every], places)),
        min_cosine=min(map(output.index.closeness, ours.texts, theirs.texts)),
        corpus=TOLD,
        digest=digest(corpus.texts),
        comparison=output.index.comparison,
    )


def _nearest(index: Index, queries: Sequence[Any], own: Sequence[int]) -> Array:
    """The first answers to each query `[queries, FIRST]`; the text that a query is made of is none."""
    answers = []
    for place, query in zip(own, queries, strict=True):
        scores = index.scores(query)
        scores[place] = -np.inf
        answers.append(first_of(scores))
    return np.stack(answers)


def _encoded(
    model: PublicModel, runner: ModelRunner, outputs: Sequence[IndexedOutput], rows: Sequence[Row], asked: Sequence[Row]
) -> dict[str, TextsAndQueries]:
    """All outputs of all rows, each row computed once."""
    made = {output.name: TextsAndQueries([None] * len(rows), [None] * len(asked)) for output in outputs}
    for place, tensors in computed(model, runner, rows, _names(output.tensors for output in outputs)):
        for output in outputs:
            made[output.name].texts[place] = output.read(tensors, rows[place], False)
    for place, tensors in computed(model, runner, asked, _names(output.asks for output in outputs)):
        for output in outputs:
            made[output.name].queries[place] = output.read(tensors, asked[place], True)
    return made


def _names(needed: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in needed for name in names))
