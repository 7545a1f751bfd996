"""The shipped bundles of Fastembed's models beside Fastembed's own lists and classes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from sie_triton.bundle import Bundle, load_bundles
from sie_triton.cli import shipped_bundles
from sie_triton.pages.fastembed_lists import LISTS, Listed, bundle_of
from sie_triton.planning.catalogue import verdict
from sie_triton.planning.families import Recipe

fastembed = pytest.importorskip("fastembed", reason="development dependency `fastembed`")

SHIPPED = {name: [model for model in models if not model.left_out] for name, models in LISTS.items()}


class Way(NamedTuple):
    """How a class of Fastembed makes vectors: what it pools, and whether they get length 1."""

    pooling: str | None
    unit: bool


@pytest.fixture(scope="module")
def shipped() -> dict[str, Bundle]:
    bundles, mistakes = load_bundles(shipped_bundles())
    assert mistakes == []
    return bundles


def _lists() -> dict[str, list[dict[str, Any]]]:
    from fastembed.rerank.cross_encoder import TextCrossEncoder

    classes = (
        fastembed.TextEmbedding,
        fastembed.SparseTextEmbedding,
        fastembed.LateInteractionTextEmbedding,
        TextCrossEncoder,
    )
    return {cls.__name__: cls.list_supported_models() for cls in classes}


def _described(name: str) -> dict[str, Any]:
    return next(model for models in _lists().values() for model in models if model["model"] == name)


def test_every_model_of_fastembed_is_shipped_or_left_out_with_a_reason(shipped: Mapping[str, Bundle]) -> None:
    theirs = {name: [model["model"] for model in models] for name, models in _lists().items()}
    assert {name: sorted(model.name for model in models) for name, models in LISTS.items()} == {
        name: sorted(models) for name, models in theirs.items()
    }, "Fastembed's lists are others: sie_triton/pages/fastembed_lists.py"
    for model in (model for models in LISTS.values() for model in models):
        assert (bundle_of(model.name, shipped.values()) is None) == bool(model.left_out), model.name


def test_the_dims_are_fastembeds(shipped: Mapping[str, Bundle]) -> None:
    outputs = {
        "TextEmbedding": ("dense", "dim"),
        "SparseTextEmbedding": ("sparse", "vocab_size"),
        "LateInteractionTextEmbedding": ("multivector", "dim"),
    }
    compared = 0
    for name, (output, key) in outputs.items():
        for model in SHIPPED[name]:
            bundle = _bundle(model, shipped)
            assert bundle.dims[output] == _described(model.name)[key], model.name
            compared += 1
    assert compared > 25
    assert all("score" in _bundle(model, shipped).outputs for model in SHIPPED["TextCrossEncoder"])


@pytest.mark.parametrize("model", SHIPPED["TextEmbedding"], ids=lambda model: model.name)
def test_a_dense_bundle_differs_from_fastembed_only_as_is_said(model: Listed, shipped: Mapping[str, Bundle]) -> None:
    bundle = _bundle(model, shipped)
    profile = bundle.resolve("default")
    recipe = verdict(profile, bundle)
    assert isinstance(recipe, Recipe)
    way = _way(model.name)
    runtime = profile.runtime
    differs = set()
    if runtime.get("query_template", recipe.default_query_template) not in (None, "{text}"):
        differs.add("queries")
    if runtime.get("doc_template", recipe.default_doc_template) not in (None, "{text}"):
        differs.add("passages")
    if runtime.get("normalize", recipe.default_normalize) != way.unit:
        differs.add("length")
    if bundle.max_sequence_length != _tokens(model.name):
        differs.add("tokens")
    assert differs == {difference.aspect for difference in model.differs}
    if way.pooling is not None and recipe.reads_pooling:
        assert recipe.pooling_for(runtime.get("pooling")) == way.pooling


@pytest.mark.parametrize("model", SHIPPED["LateInteractionTextEmbedding"], ids=lambda model: model.name)
def test_a_late_interaction_bundle_differs_only_as_is_said(model: Listed, shipped: Mapping[str, Bundle]) -> None:
    bundle = _bundle(model, shipped)
    profile = bundle.resolve("default")
    cls = _class(fastembed.LateInteractionTextEmbedding, model.name)
    tokens = _tokens(model.name, bundle.max_sequence_length)
    expanded = profile.loadtime.get("query_expansion", "ModernBERT" not in profile.adapter_class)
    differs = set()
    if profile.runtime.get("query_max_length", profile.loadtime["query_max_length"]) != tokens:
        differs.add("query_tokens")
    if profile.runtime.get("max_seq_length", bundle.max_sequence_length) != tokens:
        differs.add("tokens")
    if expanded != (cls.MIN_QUERY_LENGTH is not None):
        differs.add("expansion")
    if expanded and cls.MIN_QUERY_LENGTH is not None:
        assert profile.loadtime["query_max_length"] == cls.MIN_QUERY_LENGTH + 1
    said = {difference.aspect for difference in model.differs}
    assert differs == said - {"punctuation"}
    # Fastembed's vectors are those of all tokens but punctuation, special ones among them.
    assert profile.loadtime["skip_special_tokens"] is False
    assert profile.loadtime["doc_punctuation_skiplist"] is (model.name != "lightonai/mLateOn")


def test_scores_are_said_to_differ(shipped: Mapping[str, Bundle]) -> None:
    """Fastembed applies nothing behind the logit."""
    for model in SHIPPED["TextCrossEncoder"]:
        assert [difference.aspect for difference in model.differs] == ["scores"]


def test_no_class_for_text_puts_a_prefix_in_front() -> None:
    """What the bundles of Fastembed's models rest on: its methods hand texts on as they are."""
    from fastembed.text.text_embedding_base import TextEmbeddingBase

    class Echo(TextEmbeddingBase):  # type: ignore[misc] # the package has no types
        def embed(self, documents: Any, batch_size: int = 256, parallel: int | None = None, **kwargs: Any) -> Any:
            yield from [documents] if isinstance(documents, str) else documents

    echo = Echo("any/model")
    assert list(echo.passage_embed(["one", "two"])) == list(echo.query_embed(["one", "two"])) == ["one", "two"]
    assert list(echo.query_embed("one")) == ["one"]
    for model in SHIPPED["TextEmbedding"]:
        cls = _class(fastembed.TextEmbedding, model.name)
        assert cls.query_embed is TextEmbeddingBase.query_embed, model.name
        assert cls.passage_embed is TextEmbeddingBase.passage_embed, model.name


def _bundle(model: Listed, shipped: Mapping[str, Bundle]) -> Bundle:
    bundle = bundle_of(model.name, shipped.values())
    assert bundle is not None, model.name
    return bundle


def _class(family: Any, name: str) -> Any:
    """Fastembed's class that computes a model."""
    return next(
        cls for cls in family.EMBEDDINGS_REGISTRY if any(model.model == name for model in cls._list_supported_models())
    )


def _way(name: str) -> Way:
    """How the model's class pools; `None` where Fastembed's file does it."""
    ways = {
        "OnnxTextEmbedding": Way("cls", True),
        "PooledEmbedding": Way("mean", False),
        "PooledNormalizedEmbedding": Way("mean", True),
        "LastTokenNormalizedEmbedding": Way("last_token", True),
        "BuiltinSentenceEmbedding": Way(None, "not normalized" not in _described(name)["description"]),
    }
    return ways[_class(fastembed.TextEmbedding, name).__name__]


def _tokens(name: str, otherwise: int | None = None) -> int | None:
    """Where Fastembed says that it cuts texts."""
    found = re.search(r"(\d+) input tokens truncation", _described(name)["description"])
    return int(found[1]) if found else otherwise
