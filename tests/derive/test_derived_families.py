"""Every architecture family of the factory: what its checkpoint alone gives, against the bundle written for it.

The table is what a reader of the checkpoint's files would expect. A family that is not in it must be derived to the
very same plan but for its length; of one that is, exactly the named parts differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from recipes.factory import FAMILIES
from recipes.made import made

from sie_triton.bundle import Bundle, expand, load_bundle
from sie_triton.checkpoint import resolve_checkpoint, weight_paths
from sie_triton.derive import OPTIONAL_FILES, Derived, Origin, derive_bundle
from sie_triton.diagnostics import DiagnosticError
from sie_triton.facts import CheckpointFacts, read_facts
from sie_triton.planning.catalogue import verdict
from sie_triton.planning.families import Recipe
from sie_triton.planning.planner import make_plans

# The bundles cut at 48 tokens, or pairs at 80, which is the tests' choice; the checkpoints at 64, 96, or less where
# their files say so.
CHOSEN_LENGTH = frozenset({"max_length"})
PLAIN = frozenset({"recipe", "heads", "served", "prompting", "normalize", "max_length"})
"""A plain transformer: the bundle names a pooling and unit length, of which its files know nothing."""
TEMPLATES = frozenset({"templates"})
"""And texts in front of queries and documents, which no file of these checkpoints has."""
MEAN = frozenset({"recipe", "prompting", "normalize", "max_length"})
"""A bundle that has the mean and no other pooling computes what the files amount to."""
DECODER = ("SIE221", "a decoder, and without `modules.json` nothing says its pooling")
WRITES = ("SIE221", "writes text, and nothing says how a vector or a score comes out of it")

REFUSED: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("qwen2", "qwen3", "mistral", "mistral_bidirectional", "llama_bidirectional"), DECODER),
    **dict.fromkeys(("causal_qwen2_untied", "causal_qwen2_tied", "causal_qwen3"), WRITES),
    "colbert_truncated": ("SIE222", "without a projection"),
    "colbert_rotary": ("SIE222", "no `artifact.metadata` says how queries and documents are marked"),
}
DIFFERS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("bert", "bert_xlmr_vocabulary", "bert_candle", "xlm_roberta"), PLAIN | TEMPLATES),
    **dict.fromkeys(("modernbert_mean",), PLAIN | TEMPLATES),
    **dict.fromkeys(("modernbert", "modernbert_pytorch", "nomic_bert_moe", "gte", "gte_original"), PLAIN),
    **dict.fromkeys(("nomic_bert", "nomic_bert_original"), MEAN | TEMPLATES),
    "jina_bert": MEAN,
    # Both cut at 40 tokens.
    "sentence_bert_dense": frozenset(),
    # Its template and its instruction are the bundle's; `last` is what the checkpoint's own modules say too.
    "sentence_bert_unnormalized": frozenset({"templates", "max_length"}),
    "sentence_qwen2": frozenset({"templates", "max_length"}),
    # The checkpoint has 256 tokens, the bundle 48, and the bundle leaves `normalize` to the adapter.
    "embedding_gemma": frozenset({"normalize", "max_length"}),
    # Nothing tells a SPLADE from any masked language model: it is read as sentence-transformers reads both.
    **dict.fromkeys(
        ("splade_bert", "splade_distilbert", "splade_roberta"),
        PLAIN | {"outputs", "dims", "encoder"},
    ),
    # The bundle has the width of the published vocabulary.
    "bge_m3": frozenset({"dims", "max_length"}),
    # `artifact.metadata` cuts documents at 40; without one, queries are padded as ColBERT does.
    "colbert_root_linear": frozenset({"prompting", "max_length"}),
    "colbert_named_linear": frozenset({"prompting", "max_length"}),
    "jina_colbert": frozenset({"prompting", "max_length"}),
    "colbert_modernbert": frozenset({"prompting", "max_length"}),
    # The bundle cuts vectors of 32 numbers to 24, and drops special tokens.
    "colbert_modernbert_chain": frozenset({"dims", "heads", "prompting", "max_length"}),
}


def facts_of(folder: Path) -> CheckpointFacts:
    found = resolve_checkpoint(
        None, None, weights=folder, bundle_weights_path=None, allow_hub=False, optional_files=OPTIONAL_FILES
    )
    return read_facts(found.folder, weight_paths(found.folder))


def derived(folder: Path, sie_id: str = "acme/derived") -> Derived:
    return derive_bundle(sie_id, facts_of(folder), Origin(folder=folder))


def what_matters(bundle: Bundle, facts: CheckpointFacts) -> dict[str, Any]:
    """What is compiled and how texts are read; a pooling that only a request could ask for is no part of it."""
    [profile] = expand(bundle)
    recipe = verdict(profile, bundle)
    assert isinstance(recipe, Recipe)
    [plan] = make_plans(bundle, [(profile, recipe)], facts)
    [served] = plan.served
    return {
        "recipe": recipe.name,
        "outputs": recipe.outputs,
        "dims": dict(bundle.dims),
        "encoder": plan.encoder,
        "heads": plan.heads,
        "served": served.heads,
        "prompting": served.prompting,
        "max_length": plan.max_length,
        "normalize": profile.runtime.get("normalize"),
        "templates": {key: profile.runtime.get(key) for key in ("query_template", "doc_template")},
        "query_weights": plan.query_weights,
        "truncation_side": plan.truncation_side,
        "lowercase": plan.lowercase,
    }


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in REFUSED])
def test_a_checkpoint_alone_gives_the_bundle_of_its_family(name: str) -> None:
    checkpoint = made(name)
    facts = facts_of(checkpoint.folder)
    written, mistakes = load_bundle(checkpoint.bundle_path)
    assert written is not None, mistakes
    ours = what_matters(derive_bundle(checkpoint.sie_id, facts, Origin(folder=checkpoint.folder)).bundle, facts)
    theirs = what_matters(written, facts)
    differing = {key for key in ours if ours[key] != theirs[key]}
    assert differing == DIFFERS.get(name, CHOSEN_LENGTH)
    assert ours["max_length"] >= 40


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_what_the_files_do_not_say_is_refused_by_name(name: str, reason: tuple[str, str]) -> None:
    with pytest.raises(DiagnosticError) as refused:
        derived(made(name).folder)
    [diagnostic] = refused.value.diagnostics
    assert (diagnostic.code, reason[1] in diagnostic.message) == (reason[0], True), diagnostic
    assert diagnostic.where is not None
    assert diagnostic.hint


def test_the_table_names_families() -> None:
    assert set(REFUSED) | set(DIFFERS) <= set(FAMILIES)
    assert not set(REFUSED) & set(DIFFERS)


# Exactly what these say, by eye: the table above lets a family differ, and these are the values it differs in.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sentence_bert_dense", {"dense": 24, "limit": 40, "normalize": True}),
        ("sentence_bert_unnormalized", {"dense": 32, "limit": 64, "normalize": False}),
        ("bert", {"dense": 32, "limit": 64, "normalize": False}),
        ("colbert_root_linear", {"multivector": 24, "limit": 64, "doc_max_length": 40, "query_max_length": 32}),
        ("colbert_pylate", {"multivector": 24, "limit": 64, "doc_max_length": 40, "query_max_length": 24}),
        ("colbert_named_linear", {"multivector": 24, "limit": 64, "query_expansion": True}),
        ("jina_colbert", {"multivector": 24, "limit": 64, "query_prefix": "[QueryMarker]"}),
        ("bge_m3", {"dense": 32, "multivector": 32, "limit": 64, "pooling": "cls"}),
    ],
)
def test_derived_values(name: str, expected: Mapping[str, object]) -> None:
    bundle = derived(made(name).folder).bundle
    [profile] = expand(bundle)
    found = {**bundle.dims, **profile.runtime, **profile.loadtime, "limit": bundle.max_sequence_length}
    assert {key: found.get(key) for key in expected} == expected
