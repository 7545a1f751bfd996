"""The catalogue's rows, and the verdicts on profiles."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from contract.recorded import adapter_classes, missing_text_messages

from sie_triton.bundle import Bundle, expand
from sie_triton.compiler.options import select
from sie_triton.planning.catalogue import catalogue_table, lookup, verdict
from sie_triton.planning.families import CATALOGUE, Recipe
from sie_triton.planning.recipe import Refusal

from .conftest import Make

# The text-only encode/score bundles of the catalogue that are refused, each for what its own adapter is.
REFUSED_TEXT = {
    "knowledgator/gliformer-base-v1",
    "knowledgator/gliformer-large-v1",
    "sugiv/stablebridge-pruner-highlighter",
}


def _bundle(make: Make, adapter: str, *, tasks: Any = None, **options: Any) -> Bundle:
    path = adapter if ":" in adapter else f"sie_server.adapters.anything:{adapter}"
    profile = {"max_batch_tokens": 1, "adapter_path": path, "adapter_options": options}
    return make(tasks=tasks or {"encode": {"dense": {"dim": 8}}}, profiles={"default": profile})


def _verdict(make: Make, adapter: str, *, tasks: Any = None, **options: Any) -> Recipe | Refusal:
    bundle = _bundle(make, adapter, tasks=tasks, **options)
    return verdict(bundle.resolve("default"), bundle)


def _recipe(make: Make, adapter: str, *, tasks: Any = None, **options: Any) -> Recipe:
    judged = _verdict(make, adapter, tasks=tasks, **options)
    assert isinstance(judged, Recipe), judged
    return judged


def _refusal(make: Make, adapter: str, *, tasks: Any = None, **options: Any) -> str:
    judged = _verdict(make, adapter, tasks=tasks, **options)
    assert isinstance(judged, Refusal), judged
    return judged.reason


def test_every_class_of_the_contracts_classification_has_a_row() -> None:
    assert len(adapter_classes()) > 60
    assert adapter_classes() - CATALOGUE.keys() == set()


def test_every_class_of_the_real_bundles_has_a_row(catalogue_bundles: dict[str, Bundle]) -> None:
    used = {profile.adapter_class for bundle in catalogue_bundles.values() for profile in expand(bundle)}
    assert used <= CATALOGUE.keys()
    assert len(used) > 50


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_every_row_is_a_sentence_or_can_be_compiled(name: str) -> None:
    row = CATALOGUE[name]
    if isinstance(row, Refusal):
        assert len(row.reason) > 30
        assert not row.reason.endswith(".")
    else:
        assert row.outputs
        assert (row.prompting == "template") or row.default_query_template is None
        assert set(row.pooling_override.values()) <= {"cls", "mean", "last_token"}


def test_every_text_bundle_that_encodes_or_scores_compiles(catalogue_bundles: dict[str, Bundle]) -> None:
    refused: dict[str, str] = {}
    judged = 0
    for bundle in catalogue_bundles.values():
        if not {"encode", "score"} & set(bundle.tasks) or bundle.inputs != ("text",):
            continue
        for profile in expand(bundle):
            result = verdict(profile, bundle)
            judged += 1
            if isinstance(result, Refusal):
                refused[bundle.sie_id] = result.reason
            else:
                assert result.outputs == bundle.outputs, profile.model_id
    assert refused.keys() == REFUSED_TEXT
    assert judged > 90


def test_every_other_bundle_is_refused_for_what_it_does(catalogue_bundles: dict[str, Bundle]) -> None:
    for bundle in catalogue_bundles.values():
        if {"encode", "score"} & set(bundle.tasks):
            continue
        for profile in expand(bundle):
            result = verdict(profile, bundle)
            assert isinstance(result, Refusal)
            assert ("generation" if "generate" in bundle.tasks else "extraction") in result.reason


def test_the_table_has_one_line_per_profile_and_reasons_only_for_refusals(
    catalogue_bundles: dict[str, Bundle],
) -> None:
    rows = catalogue_table(catalogue_bundles.values())
    assert len(rows) == sum(len(bundle.profiles) for bundle in catalogue_bundles.values())
    assert all((row.verdict == "refused") == bool(row.reason) for row in rows)
    by_id = {row.id: row for row in rows}
    assert by_id["BAAI/bge-m3"].outputs == ("dense", "sparse", "multivector", "score")
    assert by_id["BAAI/bge-small-en-v1.5:candle"].verdict == "dense"
    assert by_id["docling"].reason.startswith("parses documents")


@pytest.mark.parametrize(
    "path",
    [
        "sie_server.adapters.sglang:SGLangEmbeddingAdapter",
        "sie_server.adapters.sglang.embedding:SGLangEmbeddingAdapter",
    ],
)
def test_both_spellings_of_a_module_are_one_adapter(path: str) -> None:
    assert lookup(path) is CATALOGUE["SGLangEmbeddingAdapter"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("mine.py:MyAdapter", "`mine.py:MyAdapter` is custom adapter code"),
        ("x:y", "`x:y` is custom adapter code"),
        ("sie_server_evil.adapters:BertFlashAdapter", "is custom adapter code"),
        ("sie_server.adapters.bert_flash", "is not `module:Class`"),
        ("sie_server.adapters.bert_flash:", "is not `module:Class`"),
        ("", "`adapter_path` is ``"),
        ("sie_server.adapters.bert_flash:BertFlashAdaptr", "(did you mean `BertFlashAdapter`"),
        ("sie_server.adapters.zzz:Zzz", "`Zzz` is not an adapter of SIE's catalogue"),
    ],
)
def test_paths_that_name_no_known_adapter(path: str, reason: str) -> None:
    row = lookup(path)
    assert isinstance(row, Refusal)
    assert reason in row.reason


@pytest.mark.parametrize(
    ("adapter", "meanings"),
    [
        ("BertFlashAdapter", {None: "mean", "cls": "cls", "mean": "mean", "last_token": "mean", "splade": "mean"}),
        ("XLMRobertaFlashAdapter", {None: "mean", "cls": "cls", "last": "mean"}),
        ("ModernBERTFlashAdapter", {None: "cls", "cls": "cls", "mean": "mean", "nonsense": "mean"}),
        ("NomicFlashAdapter", {None: "mean", "cls": "cls"}),
        ("RoPEFlashAdapter", {None: "cls", "mean": "mean"}),
        ("Qwen2FlashAdapter", {None: "mean", "cls": "cls", "last": "last_token", "last_token": "mean"}),
        ("PyTorchEmbeddingAdapter", {None: "last_token", "cls": "cls", "mean": "mean", "last": "last_token"}),
        ("SGLangEmbeddingAdapter", {None: "last_token", "cls": "last_token", "mean": "last_token"}),
        ("SentenceTransformerDenseAdapter", {None: None, "cls": None}),
    ],
)
def test_what_a_pooling_string_means(adapter: str, meanings: dict[str | None, str | None], make: Make) -> None:
    recipe = _recipe(make, adapter)
    assert {word: recipe.pooling_for(word) for word in meanings} == meanings


def test_load_time_options_set_the_defaults(make: Make) -> None:
    loadtime = {"pooling": "cls", "query_template": "q: {text}", "doc_template": "d: {text}", "normalize": False}
    recipe = _recipe(make, "NomicFlashAdapter", loadtime=loadtime)
    assert (recipe.default_pooling, recipe.pooling_for("mean")) == ("cls", "mean")
    assert (recipe.default_query_template, recipe.default_doc_template) == ("q: {text}", "d: {text}")
    assert recipe.default_normalize is False
    plain = _recipe(make, "NomicFlashAdapter")
    assert (plain.default_query_template, plain.default_doc_template) == (
        "search_query: {text}",
        "search_document: {text}",
    )
    assert plain.default_normalize is True


@pytest.mark.parametrize(
    ("adapter", "tasks", "message"),
    [
        ("BertFlashAdapter", None, "BertFlashAdapter requires text input"),
        ("SentenceTransformerDenseAdapter", None, "SentenceTransformer adapters requires text input"),
        ("CrossEncoderAdapter", {"score": {}}, "CrossEncoder adapter requires text input"),
    ],
)
def test_messages_are_the_contracts_word_for_word(adapter: str, tasks: Any, message: str, make: Make) -> None:
    assert _recipe(make, adapter, tasks=tasks).requires_text_message == message


def test_the_recorded_message_of_a_missing_text_is_ours() -> None:
    for name in ("BertFlashAdapter", "SentenceTransformerDenseAdapter", "CrossEncoderAdapter"):
        row = CATALOGUE[name]
        assert isinstance(row, Recipe)
        assert row.requires_text_message in missing_text_messages()


def test_outputs_are_those_declared_in_the_recipes_order(make: Make) -> None:
    tasks = {"score": {}, "encode": {"multivector": {"dim": 4}, "dense": {"dim": 8}}}
    assert _recipe(make, "BGEM3FlashAdapter", tasks=tasks).outputs == ("dense", "multivector", "score")


def test_an_output_beyond_the_adapter_is_refused(make: Make) -> None:
    tasks = {"score": {}, "encode": {"dense": {"dim": 8}, "sparse": {"dim": 9}}}
    reason = _refusal(make, "BertFlashAdapter", tasks=tasks)
    assert reason == "declares `sparse`, `score`, which `BertFlashAdapter` cannot produce"


@pytest.mark.parametrize(
    ("tasks", "reason"),
    [
        ({"extract": {}}, "declares only `extract`; only encode and score are served"),
        ({"encode": None, "score": None}, "declares no outputs under `tasks`; there is nothing to compile"),
        ({"encode": {}}, "declares no outputs under `tasks`; there is nothing to compile"),
    ],
)
def test_tasks_that_are_not_served(tasks: Any, reason: str, make: Make) -> None:
    bundle = make(tasks=tasks)
    assert verdict(bundle.resolve("default"), bundle) == Refusal(reason)


@pytest.mark.parametrize("source", ["package_backed", "remote_backed"])
def test_models_without_a_checkpoint_are_refused(source: str, make: Make) -> None:
    bundle = make(hf_id=None, **{source: True})
    judged = verdict(bundle.resolve("default"), bundle)
    assert isinstance(judged, Refusal)
    assert judged.reason.startswith(f"`{source}`: ")


def test_a_model_that_takes_no_text_is_refused(make: Make) -> None:
    bundle = make(inputs={"text": False, "image": True})
    assert verdict(bundle.resolve("default"), bundle) == Refusal("takes no text; only text encoders are compiled")


@pytest.mark.parametrize(
    ("adapter", "loadtime", "key"),
    [
        ("PyTorchEmbeddingAdapter", {"use_model_encode": True}, "use_model_encode"),
        ("BertFlashAdapter", {"backend": "open_clip"}, "open_clip"),
        ("BertFlashAdapter", {"lora_paths": ["acme/one", "acme/two"]}, "lora_paths"),
    ],
)
def test_load_time_options_that_no_graph_can_follow(adapter: str, loadtime: Any, key: str, make: Make) -> None:
    assert key in _refusal(make, adapter, loadtime=loadtime)


def test_remote_code_is_needed_only_where_the_bundle_asks_and_the_adapter_would_load_it(make: Make) -> None:
    trusting = {"trust_remote_code": True}
    assert _recipe(make, "PyTorchEmbeddingAdapter", loadtime=trusting).needs_remote_code
    assert not _recipe(make, "PyTorchEmbeddingAdapter").needs_remote_code
    assert not _recipe(make, "PyTorchEmbeddingAdapter", loadtime={"trust_remote_code": False}).needs_remote_code
    assert not _recipe(make, "ModernBERTFlashAdapter", loadtime=trusting).needs_remote_code


def test_sglang_profiles_append_eos_when_told(make: Make) -> None:
    assert _recipe(make, "SGLangEmbeddingAdapter", loadtime={"append_eos": True}).append_eos
    assert not _recipe(make, "SGLangEmbeddingAdapter").append_eos


def test_a_lora_profile_compiles_to_weights_of_its_own(catalogue_bundles: dict[str, Bundle]) -> None:
    bundle = catalogue_bundles["BAAI/bge-m3"]
    parts = {part.lora: [p.profile for p, _ in part.profiles] for part in select(bundle, expand(bundle)).by_lora()}
    assert parts.pop("saivamshiatukuri/bge-m3-banking77-lora") == ["banking"]
    assert parts.pop("doanbao/bge-m3-medical-vn-lora") == ["medical-vn"]
    assert parts.keys() == {None}
    assert "default" in parts[None]


@pytest.mark.parametrize(("lora", "adapter"), [("a/b", "BertFlashAdapter"), (7, "PyTorchEmbeddingAdapter")])
def test_a_lora_that_the_adapter_would_not_load_is_refused(make: Make, lora: object, adapter: str) -> None:
    assert "lora_id" in _refusal(make, adapter, runtime={"lora_id": lora})
    assert _recipe(make, "PyTorchEmbeddingAdapter", runtime={"lora_id": "a/b"}).loads_lora
    assert _recipe(make, "BertFlashAdapter", runtime={"lora_id": ""})


CANDLE = "sie_server_rust.adapters.candle:CandleEmbeddingAdapter"
ALL = {"encode": {"dense": {"dim": 8}, "sparse": {"dim": 9}, "multivector": {"dim": 8}}, "score": {}}


@pytest.mark.parametrize(
    ("tasks", "pooling", "name", "default_pooling"),
    [
        ({"encode": {"dense": {"dim": 8}}}, "cls", "dense", "cls"),
        ({"encode": {"dense": {"dim": 8}}}, "mean", "dense", "mean"),
        ({"encode": {"dense": {"dim": 8}}}, "last_token", "dense", "last_token"),
        ({"encode": {"sparse": {"dim": 9}}}, "splade", "splade", None),
        ({"encode": {"multivector": {"dim": 8}}, "score": {}}, "none", "colbert_modernbert", None),
        (ALL, "cls", "bge_m3", "cls"),
    ],
)
def test_a_candle_profile_is_the_encoder_it_describes(
    tasks: Any, pooling: str, name: str, default_pooling: str | None, make: Make
) -> None:
    recipe = _recipe(make, CANDLE, tasks=tasks, runtime={"pooling": pooling})
    assert (recipe.name, recipe.default_pooling) == (name, default_pooling)
    assert recipe.requires_text_message == "CandleEmbeddingAdapter requires text input"


@pytest.mark.parametrize("runtime", [{}, {"pooling": "max"}, {"pooling": None}, {"pooling": ["cls"]}])
def test_a_dense_candle_profile_must_name_its_pooling(runtime: Any, make: Make) -> None:
    assert "`last_token`" in _refusal(make, CANDLE, runtime=runtime)


def test_a_candle_profile_with_unknown_heads_is_refused(make: Make) -> None:
    tasks = {"encode": {"dense": {"dim": 8}, "sparse": {"dim": 9}}}
    assert "heads are not known" in _refusal(make, CANDLE, tasks=tasks, runtime={"pooling": "cls"})
    assert "heads are not known" in _refusal(make, CANDLE, tasks={"score": {}})


def test_judging_a_bundle_imports_no_framework() -> None:
    heavy = "{'torch', 'transformers', 'onnx', 'onnxruntime', 'huggingface_hub'}"
    program = (
        f"import sys, sie_triton.bundle, sie_triton.planning.catalogue; print(sorted({heavy} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
