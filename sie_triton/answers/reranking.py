"""A model that scores pairs, in two precisions over the same candidates: how much of the order stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sie_frontend.manifest import Reranked
from sie_frontend.outputs.kind import Comparable, Shape
from sie_frontend.outputs.table import score_kind
from sie_frontend.reference import Case
from sie_frontend.rows import Array, Row

from sie_triton.answers.candidates import candidates
from sie_triton.answers.corpus import TOLD, digest
from sie_triton.answers.order import first_of, kendall_tau, kept
from sie_triton.answers.runs import computed
from sie_triton.verify.model_runner import ModelRunner
from sie_triton.verify.public_model import PublicModel

CANDIDATES = 50
FEWEST_QUERIES = 20


@dataclass(frozen=True, slots=True)
class Lists:
    """Queries with their candidates as rows of pairs, one list behind the other, and float32's scores of each.

    `float32` is by output, `[queries, candidates]`.
    """

    model: PublicModel
    texts: tuple[str, ...]
    rows: tuple[Row, ...]
    float32: Mapping[str, Array]

    @classmethod
    def of(cls, model: PublicModel, runner: ModelRunner, texts: tuple[str, ...], pairs: int) -> Lists:
        """As many lists as make about `pairs` pairs, and float32's side of them."""
        queries = range(0, len(texts), max(1, len(texts) // max(FEWEST_QUERIES, pairs // CANDIDATES)))
        found = candidates(texts, queries, CANDIDATES)
        cases = [Case(texts[place], texts[query]) for query, line in zip(queries, found, strict=True) for place in line]
        rows = tuple(model.rows(cases))
        return cls(model, texts, rows, _scores(model, runner, rows))


def scored(model: PublicModel) -> list[Comparable]:
    """The outputs of a model that are scores of pairs."""
    return [compared for compared in model.comparables if compared.shape is Shape.NUMBER]


def measure_reranked(lists: Lists, runner: ModelRunner) -> dict[str, Reranked]:
    """What the graphs of `runner` do to the order of the lists, for each output that is a score."""
    found = {}
    for name, ours in _scores(lists.model, runner, lists.rows).items():
        theirs = lists.float32[name]
        found[name] = Reranked(
            queries=len(theirs),
            candidates=theirs.shape[1],
            kept=kept(_first(theirs), _first(ours)),
            tau=float(np.mean([kendall_tau(a, b) for a, b in zip(theirs, ours, strict=True)])),
            max_abs=float(np.abs(ours - theirs).max()),
            corpus=TOLD,
            digest=digest(lists.texts),
        )
    return found


def _first(scores: Array) -> Array:
    return np.stack([first_of(line) for line in scores])


def _scores(model: PublicModel, runner: ModelRunner, rows: Sequence[Row]) -> dict[str, Array]:
    """As the frontend reads them, `[queries, candidates]` float32 for each output."""
    outputs = scored(model)
    made = {output.name: np.empty(len(rows), np.float32) for output in outputs}
    heads = {output.name: next(head for head in model.heads if output in head.entry.comparables) for output in outputs}
    for place, tensors in computed(model, runner, rows, [name for output in outputs for name in output.tensors]):
        for name, head in heads.items():
            kind = score_kind(head.entry)
            assert kind is not None
            [made[name][place]] = kind.scores([tensors], [rows[place]], model.call, head.heads)
    return {name: scores.reshape(-1, CANDIDATES) for name, scores in made.items()}
