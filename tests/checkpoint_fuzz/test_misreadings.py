"""A build whose reader misreads one thing ends, since its reference reads the checkpoint by itself.

Each misreading is put into the reader; the checkpoint, the build and the reference are real.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest

from sie_triton.facts import CheckpointFacts, NormalizeLayer, dense_chain, read_facts, sparse_chain, token_chain
from sie_triton.planning.families import cross_encoder, late_interaction, sentence_dense, sparse
from sie_triton.tokenizer import document as tokenizer

from .judge import judge
from .recipe import Recipe

pytestmark = pytest.mark.export

Patch = Callable[[pytest.MonkeyPatch], None]


def chain(change: Callable[[Any], Any]) -> Patch:
    return lambda patch: patch.setattr(sentence_dense, "dense_chain", lambda *args: change(dense_chain(*args)))


def facts(change: Callable[[CheckpointFacts], CheckpointFacts]) -> Patch:
    def apply(patch: pytest.MonkeyPatch) -> None:
        from sie_triton.compiler import weights

        patch.setattr(weights, "read_facts", lambda *args: change(read_facts(*args)))

    return apply


def settings(**changes: Any) -> Patch:
    return facts(lambda found: replace(found, settings=replace(found.settings, **changes)))


def pipeline(**changes: Any) -> Patch:
    return facts(lambda found: replace(found, pipeline=replace(found.pipeline, **changes)))


def without_added_tokens(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tokenizer, "_with_added_tokens", lambda text, *_: text)


SIDES = (("query", "query: "), ("document", "passage: "))
DENSE = Recipe(40, "dense", "bert", ("pool:mean", "dense:32:Tanh:1:0", "normalize"))
SPARSE = Recipe(41, "sparse", "bert", (), strategy="sum", activation="log1p_relu", max_active=16)
LATE = Recipe(42, "multi", "bert", ("dense:24:Identity:0:0", "mask", "normalize"))
SCORE = Recipe(43, "cross", "bert", (), score_activation="Tanh")

MISREADINGS: Mapping[str, tuple[Recipe, Patch]] = {
    "a layer is lost": (DENSE, chain(lambda found: replace(found, layers=(NormalizeLayer(),)))),
    "another pooling": (DENSE, chain(lambda found: replace(found, pooling="cls"))),
    "a mean without its root": (
        replace(DENSE, modules=("pool:mean_sqrt_len_tokens",)),
        chain(lambda found: replace(found, pooling="mean")),
    ),
    "layers in another order": (
        replace(DENSE, modules=("pool:mean", "normalize", "dense:32:Tanh:1:0"), normalize=True),
        chain(lambda found: replace(found, layers=found.layers[::-1])),
    ),
    "prompts are lost": (replace(DENSE, prompts=SIDES), settings(prompts={})),
    "another limit": (
        replace(DENSE, max_length=16),
        facts(lambda found: replace(found, tokenizer_config={**found.tokenizer_config, "model_max_length": 32})),
    ),
    "the other side of truncation": (
        replace(DENSE, max_length=16, edits=("left_truncation",)),
        facts(lambda found: replace(found, truncation_side="right")),
    ),
    "tokens beside the file are lost": (
        replace(DENSE, added=("special",), edits=("added_tokens_json",)),
        without_added_tokens,
    ),
    "sums read as maxima": (
        SPARSE,
        lambda patch: patch.setattr(sparse, "sparse_chain", lambda *args: replace(sparse_chain(*args), pooling="max")),
    ),
    "one logarithm for two": (
        SPARSE,
        lambda patch: patch.setattr(
            sparse, "sparse_chain", lambda *args: replace(sparse_chain(*args), double_log=False)
        ),
    ),
    "every weight is kept": (SPARSE, settings(max_active_dims=None)),
    "a projection is lost": (
        LATE,
        lambda patch: patch.setattr(
            late_interaction, "token_chain", lambda *args: replace(token_chain(*args), layers=())
        ),
    ),
    "a sigmoid for a tangent": (
        SCORE,
        lambda patch: patch.setattr(cross_encoder, "activation", lambda found: "Sigmoid"),
    ),
}


@lru_cache
def read_well(recipe: Recipe) -> str:
    """What becomes of a checkpoint without a misreading."""
    return judge(recipe).outcome


@pytest.mark.parametrize("name", MISREADINGS)
def test_a_misreading_ends_the_build(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, misread = MISREADINGS[name]
    assert read_well(recipe) == "right"
    misread(monkeypatch)

    verdict = judge(recipe)

    assert verdict.outcome == "refused", verdict.detail
    assert set(verdict.codes) <= {"SIE501", "SIE502", "SIE504"}
