"""A public model in two precisions over the same items: how many of the true ten nearest stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from sie_frontend.manifest import Nearest
from sie_frontend.outputs.kind import Shape
from sie_frontend.outputs.table import encoded_kind
from sie_frontend.reference import Case
from sie_frontend.rows import Array, Row

from sie_triton.answers.corpus import Digest
from sie_triton.answers.items import ITEMS, Items
from sie_triton.answers.order import first_of, kept
from sie_triton.answers.runs import computed
from sie_triton.answers.similarity import CosineIndex, DotIndex, Index, MaxSimIndex
from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.public_model import OpenHead, PublicModel

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
class DocumentsAndQueries:
    """Of one output, what the documents and the queries became."""

    documents: list[Any]
    queries: list[Any]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Items as rows, as documents and as queries, and what float32 makes of them, by output.

    `asked` is empty where a document's row is the query's too. `digest` is the SHA-256 of the items.
    """

    model: PublicModel
    items: Items
    digest: str
    rows: tuple[Row, ...]
    asked: tuple[Row, ...]
    float32: Mapping[str, DocumentsAndQueries]

    @classmethod
    def of(cls, model: PublicModel, runner: ModelRunner, count: int) -> Corpus:
        """Compute float32's side of `count` items of the model's modality, or of as many as there are."""
        items, digest = ITEMS[model.modality], Digest()
        rows: list[Row] = []
        asked: list[Row] = []
        # One at a time: the bytes of many pictures would take more room than their rows.
        for place, item in enumerate(items.made(count)):
            rows += model.rows([Case(digest.seen(item))])
            if items.queries_apart and place % items.query_every == 0:
                asked += model.rows([Case(None, item)])
        made = cls(model, items, digest.told(), tuple(rows), tuple(asked), {})
        return replace(made, float32=made.encoded(runner))

    def encoded(self, runner: ModelRunner) -> dict[str, DocumentsAndQueries]:
        """All outputs of all rows by the graphs of `runner`, each row computed once."""
        outputs = indexed(self.model)
        made = {output.name: DocumentsAndQueries([None] * len(self.rows), []) for output in outputs}
        for place, tensors in computed(self.model, runner, self.rows, _names(output.tensors for output in outputs)):
            for output in outputs:
                made[output.name].documents[place] = output.read(tensors, self.rows[place], False)
        if not self.items.queries_apart:
            return {n: replace(one, queries=one.documents[:: self.items.query_every]) for n, one in made.items()}
        for one in made.values():
            one.queries.extend([None] * len(self.asked))
        for place, tensors in computed(self.model, runner, self.asked, _names(output.asks for output in outputs)):
            for output in outputs:
                made[output.name].queries[place] = output.read(tensors, self.asked[place], True)
        return made


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
    ours = corpus.encoded(runner)
    return {output.name: _measured(corpus, output, ours[output.name]) for output in indexed(corpus.model)}


def _measured(corpus: Corpus, output: IndexedOutput, ours: DocumentsAndQueries) -> Nearest:
    theirs, every = corpus.float32[output.name], output.index.asked
    index, own_index = output.index(theirs.documents), output.index(ours.documents)
    places = range(0, len(corpus.rows), corpus.items.query_every * every)
    true = _nearest(index, theirs.queries[::every], places)
    return Nearest(
        texts=len(corpus.rows),
        queries=len(places),
        alike=kept(true, _nearest(own_index, ours.queries[::every], places)),
        mixed=kept(true, _nearest(index, ours.queries[::every], places)),
        min_cosine=min(map(output.index.closeness, ours.documents, theirs.documents)),
        corpus=corpus.items.told,
        digest=corpus.digest,
        comparison=output.index.comparison,
    )


def _nearest(index: Index, queries: Sequence[Any], own: Sequence[int]) -> Array:
    """The first answers to each query `[queries, FIRST]`; the item that a query is made of is none."""
    answers = []
    for place, query in zip(own, queries, strict=True):
        scores = index.scores(query)
        scores[place] = -np.inf
        answers.append(first_of(scores))
    return np.stack(answers)


def _names(needed: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for names in needed for name in names))
