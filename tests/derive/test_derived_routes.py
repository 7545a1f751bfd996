"""Inference-free sparse encoders: what their router's files give, what they refuse, and both sides' own vectors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recipes.corpus import LONG_TEXT, QUERY, TEXTS
from recipes.made import made
from recipes.weights import write_tensors
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling

from derive.in_process import Derived
from derive.routers import HOME, SAVED, TABLE, edit, from_idf, masked_lm, router, save, twice_log, weights_of
from derive.test_derived_checkpoints import refusal
from derive.test_derived_families import derived, facts_of, what_matters
from sie_triton.diagnostics import DiagnosticError
from sie_triton.tokenizer import checkpoint
from sie_triton.tokenizer.token_weights import weights_by_id

# Special tokens, spelled out, are tokens of a query like any other.
GIVEN = ["", " ", QUERY, *TEXTS[:6], "[CLS] the [SEP] the [MASK]", LONG_TEXT]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a checkpoint, saved once."""
    root = tmp_path_factory.mktemp("routes")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            SAVED[name](root / name)
        return root / name

    return folder


# What is derived


@pytest.mark.parametrize(
    ("name", "limit", "note"),
    [
        ("twice-log", "64  # model_max_length of tokenizer_config.json", "and cut at 64 tokens of their own"),
        ("prompted", "40  # model_max_length of tokenizer_config.json", "and cut at 64 tokens of their own"),
        ("unlimited", "64  # model_max_length of tokenizer_config.json", "special tokens (the route `query`"),
        ("at-root", "64  # max_seq_length of sentence_bert_config.json", "and cut at 64 tokens of their own"),
    ],
)
def test_each_value_says_where_it_comes_from(name: str, limit: str, note: str, saved: Callable[[str], Path]) -> None:
    text = derived(saved(name)).text
    assert f"max_sequence_length: {limit}\n" in text
    assert (
        "SentenceTransformerSparseAdapter  # runs SpladePooling of the route `document` of router_config.json" in text
    )
    told = " ".join(text.replace("\n# ", " ").split())
    assert f"Queries are weighed by {TABLE}/model.safetensors, without the model and without special tokens" in told
    assert note in told


def test_the_published_layout_is_the_same_model(saved: Callable[[str], Path]) -> None:
    first, second = (
        what_matters(derived(saved(name)).bundle, facts_of(saved(name))) for name in ("twice-log", "at-root")
    )
    assert first == second
    [head] = first["heads"]
    assert (head.double_log, head.pooling) == (True, "max")
    assert first["query_weights"] == (f"{TABLE}/model.safetensors",)


def test_a_table_that_no_module_names_is_not_read(tmp_path: Path) -> None:
    """`idf.json` beside a pipeline without a router: sentence-transformers runs the model for queries too."""
    SparseEncoder(str(made("splade_bert").folder), device="cpu").save_pretrained(str(tmp_path))
    shutil.copy(made("opensearch_idf").folder / "idf.json", tmp_path / "idf.json")
    ours = derived(tmp_path)
    assert "Queries are weighed" not in ours.text
    assert what_matters(ours.bundle, facts_of(tmp_path))["query_weights"] == ()


# What is served


@pytest.mark.export
@pytest.mark.parametrize("name", SAVED)
def test_both_sides_equal_sentence_transformers(name: str, saved: Callable[[str], Path], tmp_path: Path) -> None:
    ours = Derived(saved(name), tmp_path / "repository")
    assert "weights of queries" in ours.built.certificate.compared
    # In float64: on a processor with AVX-512 their float32 is up to 1.8e-5 from it, and ours 0.9e-5.
    theirs: Any = SparseEncoder(str(saved(name)), device="cpu", local_files_only=True).double()
    for is_query, encode in ((True, theirs.encode_query), (False, theirs.encode_document)):
        found = ours.sparse(GIVEN, is_query=is_query)
        for text, (ids, weights) in zip(GIVEN, found, strict=True):
            row = encode(text, convert_to_sparse_tensor=False).flatten()
            kept = torch.nonzero(row > 0).flatten()
            assert ids == kept.tolist(), (is_query, text)
            np.testing.assert_allclose(weights, row[kept].numpy(), rtol=1e-4, atol=2e-5 * (not is_query))
        assert any(ids for ids, _ in found)


@pytest.mark.export
@pytest.mark.parametrize(
    ("value", "said"), [(-1.0, "1 are below zero"), (float("nan"), "some are not finite"), (None, "all are zero")]
)
def test_weights_that_no_vector_of_ours_has_are_refused(
    value: float | None, said: str, saved: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(saved("twice-log"), tmp_path / "model"))
    table = torch.zeros_like(load_file(folder / TABLE / "model.safetensors")["weight"])
    if value is not None:
        table[5:9] = torch.tensor([1.0, 2.0, 3.0, value])
    write_tensors(folder / TABLE / "model.safetensors", {"weight": table})
    with pytest.raises(DiagnosticError, match=f"SIE406.*{said}"):
        Derived(folder, tmp_path / "repository")


@pytest.mark.export
@pytest.mark.parametrize(
    ("factor", "shift", "said"), [(1.001, 0, "the weights differ"), (1.0, 1, "for one of them only")]
)
def test_a_table_that_weighs_otherwise_is_not_published(
    factor: float,
    shift: int,
    said: str,
    saved: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a mistake of ours would write it: sentence-transformers is asked about queries as well."""

    def wrong(path: Path) -> Any:
        return np.roll(weights_by_id(path) * np.float32(factor), shift)

    monkeypatch.setattr(checkpoint, "weights_by_id", wrong)
    with pytest.raises(DiagnosticError, match=f"SIE509.*{said}"):
        Derived(saved("twice-log"), tmp_path / "repository")
    assert not (tmp_path / "repository" / "manifest.json").exists()


# What is refused


def other_routes(folder: Path) -> None:
    document = masked_lm()
    table = SparseStaticEmbedding(document.tokenizer, weights_of(document.tokenizer))
    save(folder, Router({"query": [table], "document": [document, SpladePooling("max")], "title": [table]}))


def two_models(folder: Path) -> None:
    save(folder, Router.for_query_document([masked_lm(), SpladePooling("max")], [masked_lm(), SpladePooling("max")]))


def tables_alone(folder: Path) -> None:
    table = SparseStaticEmbedding(masked_lm().tokenizer, weights_of(masked_lm().tokenizer))
    save(folder, Router.for_query_document([table], [table]))


def dense(folder: Path) -> None:
    body = str(made("bert").folder)
    routes = ([Transformer(body), Pooling(32, pooling)] for pooling in ("cls", "mean"))
    SentenceTransformer(modules=[Router.for_query_document(*routes)], device="cpu").save_pretrained(str(folder))


def by_modality(folder: Path) -> None:
    document = masked_lm()
    table = SparseStaticEmbedding(document.tokenizer, weights_of(document.tokenizer))
    routes = {"query": [table], "document": [document, SpladePooling("max")]}
    save(folder, Router(routes, route_mappings={("query", "text"): "document"}))


def cut_weights(folder: Path) -> None:
    save(folder, router(masked_lm()), max_active_dims=4)


def other_words(folder: Path) -> None:
    document = masked_lm()
    save(folder, router(document, SparseStaticEmbedding(made_tokenizer("splade_roberta"), torch.ones(9))))


def made_tokenizer(family: str) -> Any:
    return masked_lm(family).tokenizer


def cased(folder: Path) -> None:
    twice_log(folder)
    edit(folder / TABLE / "tokenizer_config.json", do_lower_case=False)


def split_specials(folder: Path) -> None:
    twice_log(folder)
    edit(folder / TABLE / "tokenizer_config.json", split_special_tokens=True)


def more_words(folder: Path) -> None:
    twice_log(folder)
    write_tensors(folder / TABLE / "model.safetensors", {"weight": torch.ones(1000)})


def two_dimensions(folder: Path) -> None:
    twice_log(folder)
    write_tensors(folder / TABLE / "model.safetensors", {"weight": torch.ones(10, 10)})


def without_tokenizer_file(folder: Path) -> None:
    twice_log(folder)
    (folder / TABLE / "tokenizer.json").unlink()


def without_weights(folder: Path) -> None:
    twice_log(folder)
    (folder / TABLE / "model.safetensors").unlink()


def elsewhere(folder: Path) -> None:
    from_idf(folder)
    edit(folder / TABLE / "config.json", path="idf.json")


def own_code(folder: Path) -> None:
    twice_log(folder)
    path = folder / "router_config.json"
    path.write_text(path.read_text(encoding="utf-8").replace("sentence_transformers.", "acme."), encoding="utf-8")


def unknown_key(folder: Path) -> None:
    twice_log(folder)
    routes = json.loads((folder / "router_config.json").read_text(encoding="utf-8"))
    edit(folder / "router_config.json", parameters={**routes["parameters"], "temperature": 2})


def outside(folder: Path) -> None:
    twice_log(folder)
    path = folder / "router_config.json"
    path.write_text(path.read_text(encoding="utf-8").replace(TABLE, f"../{TABLE}"), encoding="utf-8")


@pytest.mark.parametrize(
    ("write", "code", "said"),
    [
        (other_routes, "SIE323", "`Router`, which sends"),
        (two_models, "SIE323", "`Router`, which sends"),
        (dense, "SIE323", "`Router`, which sends"),
        (tables_alone, "SIE323", "`Router`, which sends"),
        (by_modality, "SIE337", "sets `route_mappings`"),
        (other_words, "SIE331", "whose tokenizer is another than the transformer's: its `added_tokens`, `model`"),
        (cased, "SIE331", "its `normalizer` differ"),
        (split_specials, "SIE337", "`split_special_tokens`"),
        (more_words, "SIE331", "1000 weights for queries and"),
        (two_dimensions, "SIE308", "`weight` has the shape [10, 10]"),
        (without_tokenizer_file, "SIE331", "its own folder has no `tokenizer.json`"),
        (without_weights, "SIE331", "`SparseStaticEmbedding` without `model.safetensors`"),
        (elsewhere, "SIE337", "`SparseStaticEmbedding/config.json` sets `path`"),
        (own_code, "SIE331", "`acme."),
        (unknown_key, "SIE334", "`temperature`"),
        (outside, "SIE308", "outside of the checkpoint"),
        (cut_weights, "SIE331", "`max_active_dims` 4"),
    ],
)
def test_other_routers_are_refused_with_the_reason(
    write: Callable[[Path], None], code: str, said: str, tmp_path: Path
) -> None:
    write(tmp_path)
    refused = refusal(tmp_path)
    assert (refused.code, said in refused.message) == (code, True), refused
    assert refused.where is not None
    assert refused.hint


@pytest.mark.parametrize("query", [["Transformer", "SpladePooling"], ["SparseStaticEmbedding", "Normalize"], []])
def test_routes_beside_a_transformer_at_the_root_are_read_the_same(query: list[str], tmp_path: Path) -> None:
    """Where the root is a checkpoint by itself, nothing but the router tells that queries go elsewhere."""
    SAVED["at-root"](tmp_path)
    path = tmp_path / "router_config.json"
    routes = json.loads(path.read_text(encoding="utf-8"))
    package = "sentence_transformers.sparse_encoder.modules"
    routes["types"] |= {f"q_{kind}": f"{package}.{kind}" for kind in query}
    routes["structure"]["query"] = [f"q_{kind}" for kind in query]
    path.write_text(json.dumps(routes), encoding="utf-8")
    refused = refusal(tmp_path)
    assert refused.code == "SIE331"
    named = " and ".join(f"`{kind}`" for kind in query) or "nothing"
    assert f"a `Router` that sends queries through {named}: other modules for queries" in refused.message


def test_the_transformer_is_found_where_the_router_says(saved: Callable[[str], Path]) -> None:
    facts = facts_of(saved("twice-log"))
    assert facts.folder != saved("twice-log")
    assert (facts.folder / "config.json").samefile(saved("twice-log") / HOME / "config.json")
    assert facts.weight_shapes
