"""A small fixed part of the fuzz: each thing that a checkpoint can say, once, right or refused by name.

Many checkpoints for the price of few: each recipe says several things at once. `python -m checkpoint_fuzz` draws
recipes from seeds and runs as many as there is time for.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from . import serving
from .judge import TOLERANCE, compare, judge
from .recipe import ACTIVATIONS, ADDED, EDITS, FOREIGN, POOLINGS, Recipe, draw
from .reference import Reference

pytestmark = pytest.mark.export

SIDES = (("query", "query: "), ("document", "passage: "))
MARKERS = (("query", "[Q] "), ("document", "[D] "))
RIGHT: Mapping[str, Recipe] = {
    "modules in any order, truncated": Recipe(
        1,
        "dense",
        "bert",
        ("pool:mean", "normalize", "dropout", "layernorm", "dense:24:SiLU:1:1", "normalize", "dense:16:Tanh:0:0"),
        prompts=SIDES,
        max_length=16,
        truncate_dim=8,
        normalize=True,
    ),
    "two poolings, cut on the left": Recipe(
        2,
        "dense",
        "roberta",
        ("pool:lasttoken+max", "dense:8:Softplus:1:0"),
        truncation_side="left",
        padding_side="left",
        max_length=24,
        added=("special", "lstrip"),
        edits=("st5_pooling", "left_truncation"),
    ),
    "tokens beyond the embedding, that no other text pays for": Recipe(
        3, "dense", "mpnet", ("pool:mean", "dense:24:Mish:1:0"), added=("special",), resize=False
    ),
    "tokens beside the tokenizer's file": Recipe(
        4,
        "dense",
        "bert",
        ("pool:weightedmean", "normalize"),
        prompts=(("query", "Search: "), ("passage", "Text: ")),
        default_prompt="passage",
        added=("plain", "rstrip"),
        edits=("added_tokens_json",),
    ),
    "bfloat16 in shards, lower case": Recipe(
        5,
        "dense",
        "modernbert",
        ("pool:mean_sqrt_len_tokens", "dense:48:LeakyReLU:1:0"),
        do_lower_case=True,
        dtype="bfloat16",
        edits=("sharded", "st5_types"),
    ),
    "a decoder and an older tokenizer": Recipe(
        6,
        "dense",
        "qwen3",
        ("pool:lasttoken", "normalize"),
        max_length=16,
        similarity="dot",
        edits=("v4_tokenizer", "no_model_max_length"),
    ),
    "what the tokenizer's file asks for": Recipe(
        7,
        "dense",
        "gemma",
        ("pool:cls", "dense:8:ReLU:1:0", "dense:24:GELU:1:0"),
        file_truncation=8,
        file_padding=20,
        added=("single_word", "normalized"),
        edits=("st5_limit",),
    ),
    "a plain transformer under a bundle's limit": Recipe(
        8, "dense", "distilbert", bundle_limit=10, edits=("no_modules_json", "special_tokens_map", "pickled_beside")
    ),
    "sums of double logarithms, the largest": Recipe(
        9, "sparse", "bert", (), strategy="sum", activation="log1p_relu", max_active=16, max_length=12
    ),
    "a masked language model alone": Recipe(
        10, "sparse", "distilbert", (), dtype="float16", edits=("no_modules_json",)
    ),
    "a score between -1 and 1": Recipe(11, "cross", "bert", (), score_activation="Tanh", max_length=24),
    "a raw score": Recipe(
        12, "cross", "modernbert", (), score_activation="Identity", adapter="BertFlashCrossEncoderAdapter"
    ),
    "expanded queries and a skip-list": Recipe(
        13,
        "multi",
        "bert",
        ("dense:24:Identity:1:0", "mask", "normalize"),
        prompts=MARKERS,
        expansion="fixed",
        query_length=16,
        document_length=40,
        skiplist=tuple(string.punctuation),
    ),
    "two projections of every token": Recipe(
        14, "multi", "modernbert", ("dense:48:GELU:0:1", "dense:16:Identity:0:0", "mask"), prompts=MARKERS
    ),
}
REFUSED: Mapping[str, tuple[Recipe, str]] = {
    "an adapter beside the weights": (Recipe(20, "dense", edits=("peft_beside",)), "adapter_model.safetensors"),
    "two labels": (Recipe(21, "cross", "roberta", (), labels=2), "labels"),
    "a static embedding": (Recipe(22, "foreign", foreign="static"), "StaticEmbedding"),
    "an encoder of sparse codes": (Recipe(23, "foreign", foreign="csr"), "SparseAutoEncoder"),
    "pooled tokens": (Recipe(24, "foreign", foreign="token_pooling"), "HierarchicalTokenPooling"),
    "two routes": (Recipe(25, "foreign", foreign="router"), "Router"),
    "prompts that are not pooled": (Recipe(26, "dense", include_prompt=False, prompts=SIDES), "prompt"),
    "an unknown key": (Recipe(28, "dense", edits=("unknown_module_key",)), "temperature"),
    "a limit in the tokenizer's call": (Recipe(27, "dense", edits=("text_max_length",)), "processing_kwargs"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_can_be_expressed_is_built_right(name: str) -> None:
    verdict = judge(RIGHT[name])

    assert verdict.outcome == "right", verdict.detail


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_is_refused_by_name(name: str) -> None:
    recipe, word = REFUSED[name]

    verdict = judge(recipe)

    assert verdict.outcome == "refused", verdict.detail
    assert word in verdict.detail


def test_onnx_graphs_are_judged_alike() -> None:
    verdict = judge(RIGHT["modules in any order, truncated"], graphs="onnx")

    assert verdict.outcome == "right", verdict.detail


@pytest.mark.parametrize("change", [{"max_length": 16}, {"modules": ("pool:cls",)}, {"prompts": SIDES}])
def test_the_judge_sees_one_thing_misread(tmp_path: Path, change: Mapping[str, object]) -> None:
    """Another checkpoint that differs in one thing stands in for a reader that misread it."""
    built = Recipe(30, "dense", "bert")
    assert judge(built, tmp_path / "built").outcome == "right"
    other = replace(built, **change)  # type: ignore[arg-type]
    judge(other, tmp_path / "other")

    reference = Reference(other, tmp_path / "other" / "checkpoint")
    worst, _, compared = serving.run(compare(built, reference, tmp_path / "built" / "repository"))

    assert compared
    assert worst > 100 * TOLERANCE


def test_seeds_draw_every_dimension_and_always_the_same() -> None:
    drawn = [draw(seed) for seed in range(600)]

    assert drawn == [draw(seed) for seed in range(600)]
    written = json.dumps([recipe.traits() for recipe in drawn])
    for word in (*POOLINGS, *ACTIVATIONS, *ADDED, *EDITS, *FOREIGN, "layernorm", "dropout", "include_prompt", "log1p"):
        assert word in written, word
