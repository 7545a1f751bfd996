"""Checkpoints as people meet them: old and new layouts, model cards, and what is no text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from compiler.folders import BERT, EMPTY_SAFETENSORS, NORMALIZE, POOLING, TRANSFORMER, write_folder
from conftest import BGE_ID, MINILM_ID, ROOT

from derive.test_derived_families import derived, facts_of
from sie_triton.bundle import expand, load_bundles
from sie_triton.checkpoint import resolve_checkpoint
from sie_triton.derive import Origin, derive_bundle
from sie_triton.diagnostics import Diagnostic, DiagnosticError

DENSE_MODULE = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}


def refusal(folder: Path) -> Diagnostic:
    with pytest.raises(DiagnosticError) as refused:
        derived(folder)
    return refused.value.diagnostics[0]


# The shipped bundles


def test_minilm_gets_the_bundle_that_is_shipped(minilm: Path) -> None:
    shipped, _ = load_bundles(ROOT / "model_bundles")
    written = shipped[MINILM_ID].resolve("default")
    revision = shipped[MINILM_ID].hf_revision
    ours = derive_bundle(MINILM_ID, facts_of(minilm), Origin(MINILM_ID, revision)).bundle
    [profile] = expand(ours)
    assert (ours.dims, ours.max_sequence_length, ours.outputs) == ({"dense": 384}, 256, ("dense",))
    assert (ours.hf_id, ours.hf_revision) == (MINILM_ID, revision)
    # What the shipped one says besides is that the checkpoint's code is not trusted, which it is not either way.
    same = {key: value for key, value in written.to_json().items() if key != "loadtime"}
    assert {key: value for key, value in profile.to_json().items() if key != "loadtime"} == same
    assert (profile.loadtime, written.loadtime) == ({}, {"trust_remote_code": False})


def test_bge_gets_the_pooling_and_limits_that_are_shipped(tmp_path: Path) -> None:
    """Its published files, but for the weights: they have no prompt, which the shipped bundle adds."""
    files = {
        "modules.json": [TRANSFORMER, POOLING, NORMALIZE],
        "1_Pooling/config.json": {"word_embedding_dimension": 384, "pooling_mode_cls_token": True},
        "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": True},
        "config_sentence_transformers.json": {"__version__": {"sentence_transformers": "2.2.2"}},
    }
    shipped, _ = load_bundles(ROOT / "model_bundles")
    written = shipped[BGE_ID].resolve("default")
    ours = derived(write_folder(tmp_path, files), BGE_ID)
    [profile] = expand(ours.bundle)
    assert "runs cls pooling" in ours.text
    assert (ours.bundle.dims, ours.bundle.max_sequence_length) == (shipped[BGE_ID].dims, written.max_sequence_length)
    assert (written.runtime["pooling"], profile.runtime) == ("cls", {"normalize": written.runtime["normalize"]})


# Layouts


def pooled(tmp_path: Path, pooling: Mapping[str, Any], *modules: Mapping[str, Any], **more: Any) -> Path:
    return write_folder(
        tmp_path, {"modules.json": [TRANSFORMER, POOLING, *modules], "1_Pooling/config.json": pooling, **more}
    )


@pytest.mark.parametrize(
    ("pooling", "shown"),
    [
        # As releases before 2.3 wrote it, without the keys of poolings that came later.
        ({"word_embedding_dimension": 384, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"word_embedding_dimension": 384, "pooling_mode_cls_token": True}, "cls"),
        ({"word_embedding_dimension": 384}, "mean"),
        ({"embedding_dimension": 384, "pooling_mode": "lasttoken"}, "last_token"),
        ({"embedding_dimension": 384, "pooling_mode": ["cls", "mean"]}, "cls+mean"),
    ],
)
def test_a_pooling_file_of_any_release_is_a_pooling(pooling: Mapping[str, Any], shown: str, tmp_path: Path) -> None:
    ours = derived(pooled(tmp_path, pooling, NORMALIZE))
    assert f"runs {shown} pooling" in ours.text
    assert ours.bundle.dims == {"dense": 384 * (shown.count("+") + 1)}


@pytest.mark.parametrize(
    ("transformer", "pooling", "normalize"),
    [
        (
            "sentence_transformers.models.Transformer",
            "sentence_transformers.models.Pooling",
            "sentence_transformers.models.Normalize",
        ),
        (
            "sentence_transformers.models.Transformer.Transformer",
            "sentence_transformers.models.Pooling.Pooling",
            "sentence_transformers.models.Normalize.Normalize",
        ),
        (
            "sentence_transformers.base.modules.transformer.Transformer",
            "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
            "sentence_transformers.base.modules.normalize.Normalize",
        ),
    ],
)
def test_modules_of_old_and_new_paths_are_the_same(
    transformer: str, pooling: str, normalize: str, tmp_path: Path
) -> None:
    """Normalize has no folder of its own in any release before 6, and need not have one."""
    modules = [{**TRANSFORMER, "type": transformer}, {**POOLING, "type": pooling}, {**NORMALIZE, "type": normalize}]
    ours = derived(
        write_folder(tmp_path, {"modules.json": modules, "1_Pooling/config.json": {"pooling_mode_cls_token": True}})
    )
    assert "runs cls pooling" in ours.text
    assert expand(ours.bundle)[0].runtime == {"normalize": True}


def test_an_unknown_module_is_refused_by_name(tmp_path: Path) -> None:
    whitening = {**NORMALIZE, "type": "sentence_transformers.models.Whitening"}
    refused = refusal(pooled(tmp_path, {}, whitening))
    assert refused.code == "SIE331"
    assert "`Whitening` module, which is not known here" in refused.message


def test_a_dense_layer_behind_the_pooling_decides_the_width(tmp_path: Path) -> None:
    layer = {"in_features": 384, "out_features": 8, "bias": True, "activation_function": "torch.nn.Identity"}
    folder = pooled(tmp_path, {}, DENSE_MODULE, **{"2_Dense/config.json": layer})
    (folder / "2_Dense" / "model.safetensors").write_bytes(EMPTY_SAFETENSORS)
    ours = derived(folder)
    assert ours.bundle.dims == {"dense": 8}
    assert "dim: 8  # out_features of its last Dense" in ours.text


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"sentence_bert_config.json": {"max_seq_length": 128}}, 128),
        ({"sentence_bert_config.json": {"max_seq_length": 8192}}, 512),
        (
            {"sentence_bert_config.json": {"max_seq_length": None}, "tokenizer_config.json": {"model_max_length": 77}},
            77,
        ),
        ({"tokenizer_config.json": {"model_max_length": 10**30}}, 512),
        (
            {
                "config.json": {**BERT, "model_type": "roberta", "max_position_embeddings": 514},
                "tokenizer_config.json": {},
            },
            512,
        ),
    ],
)
def test_limits_as_sentence_transformers_means_them(files: Mapping[str, Any], limit: int, tmp_path: Path) -> None:
    assert derived(pooled(tmp_path, {}, **files)).bundle.max_sequence_length == limit


def test_prompts_are_told_and_left_to_the_checkpoint(tmp_path: Path) -> None:
    settings = {"prompts": {"query": "q: ", "passage": "p: ", "always": "a: "}, "default_prompt_name": "always"}
    ours = derived(pooled(tmp_path, {}, **{"config_sentence_transformers.json": settings}))
    assert "# Queries get 'q: ' in front (prompts of config_sentence_transformers.json)." in ours.text
    assert "Nobody asks for the prompts `passage`" in ours.text
    assert not set(expand(ours.bundle)[0].runtime) & {"query_template", "doc_template"}


def test_what_is_cut_behind_normalize_is_left_as_it_is(tmp_path: Path) -> None:
    ours = derived(pooled(tmp_path, {}, NORMALIZE, **{"config_sentence_transformers.json": {"truncate_dim": 64}}))
    assert ours.bundle.dims == {"dense": 64}
    assert expand(ours.bundle)[0].runtime == {"normalize": False}


# Kinds


@pytest.mark.parametrize(
    ("card", "outputs"),
    [("---\ntags:\n- SPLADE\n---\n# A model\n", ("sparse",)), ("---\ntags: [\n---\n", ("dense",)), ("", ("dense",))],
)
def test_a_masked_language_model_is_sparse_where_its_card_says_so(
    card: str, outputs: tuple[str, ...], tmp_path: Path
) -> None:
    config = {**BERT, "architectures": ["BertForMaskedLM"], "vocab_size": 100}
    folder = write_folder(tmp_path, {"config.json": config})
    (folder / "README.md").write_text(card, encoding="utf-8")
    ours = derived(folder)
    assert ours.bundle.outputs == outputs
    assert ("that of SPLADE models too" in ours.text) == (outputs == ("dense",))


@pytest.mark.parametrize(
    ("config", "code", "said"),
    [
        ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, "SIE221", "`LlamaForCausalLM` writes text"),
        ({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}, "SIE221", "`GPT2LMHeadModel` writes text"),
        ({"architectures": ["BartForConditionalGeneration"]}, "SIE221", "writes text from text"),
        ({"architectures": ["BertForTokenClassification"]}, "SIE221", "marks tokens of a text"),
        ({"model_type": "blip", "vision_config": {}, "text_config": {}}, "SIE326", "`vision_config`"),
        ({"model_type": "t5", "architectures": ["T5EncoderModel"]}, "SIE324", "T5"),
        ({"matryoshka_dimensions": "many"}, "SIE308", "`matryoshka_dimensions` is 'many'"),
    ],
)
def test_models_of_other_kinds_are_refused_with_the_reason(
    config: dict[str, Any], code: str, said: str, tmp_path: Path
) -> None:
    refused = refusal(write_folder(tmp_path, {"config.json": {**BERT, **config}}))
    assert (refused.code, said in refused.message) == (code, True), refused
    assert refused.where is not None
    assert refused.hint


@pytest.mark.parametrize(
    ("names", "code", "said"),
    [
        (["model-Q4_K_M.gguf", "README.md"], "SIE327", "as GGUF only, `model-Q4_K_M.gguf`"),
        (["onnx/model.onnx", "config.json", "tokenizer.json"], "SIE327", "as ONNX only, `onnx/model.onnx`"),
        (
            ["adapter_config.json", "adapter_model.safetensors"],
            "SIE322",
            "`peft_type` is None, and only LORA is merged",
        ),
        (["config.json", "model.safetensors", "preprocessor_config.json"], "SIE326", "reads images or sound"),
        (["config.json", "pytorch_model.bin", "tokenizer.json"], "SIE305", "only pickled weights"),
    ],
)
def test_repositories_that_are_no_checkpoint_say_what_to_do(
    names: list[str], code: str, said: str, tmp_path: Path
) -> None:
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(EMPTY_SAFETENSORS if path.suffix == ".safetensors" else b"{}")
    refused = refusal(tmp_path)
    assert (refused.code, said in refused.message) == (code, True), refused
    assert refused.hint


def test_an_empty_file_and_a_dangling_link_are_named(tmp_path: Path) -> None:
    """A cache that was cut short: each file by name, with what to do."""
    folder = write_folder(tmp_path, {})
    (folder / "config.json").write_bytes(b"")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "gone")
    with pytest.raises(DiagnosticError) as refused:
        derived(folder)
    texts = [str(diagnostic) for diagnostic in refused.value.diagnostics]
    assert any("config.json" in text for text in texts)
    assert any("no safetensors weights" in text for text in texts)
    assert all(diagnostic.hint for diagnostic in refused.value.diagnostics)


def test_code_of_a_checkpoint_is_trusted_only_by_the_flag(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"config.json": {**BERT, "auto_map": {"AutoModel": "modeling.Model"}}})
    facts = facts_of(folder)
    plain, trusting = (derive_bundle("a/b", facts, Origin(folder=folder), trust_remote_code=t) for t in (False, True))
    assert expand(plain.bundle)[0].loadtime == {}
    assert expand(trusting.bundle)[0].loadtime == {"trust_remote_code": True}


def test_a_snapshot_is_named_with_its_commit(tmp_path: Path) -> None:
    facts = facts_of(write_folder(tmp_path, {}))
    bundle = derive_bundle("acme/small", facts, Origin("acme/small", "f" * 40)).bundle
    assert (bundle.hf_id, bundle.hf_revision, bundle.weights_path) == ("acme/small", "f" * 40, None)


@pytest.mark.parametrize("sie_id", ["acme/plain", "with space", "a: b", "# no", "yes", "12", "'quoted'", "äöü", "x:y"])
def test_any_id_survives_the_yaml(sie_id: str, tmp_path: Path) -> None:
    assert derived(write_folder(tmp_path / "folder: #1", {}), sie_id).bundle.sie_id == sie_id


def test_identity_is_not_moved_by_what_only_tells(tmp_path: Path) -> None:
    """A new line in the model card is no reason to build again."""
    folder = write_folder(tmp_path, {})
    before = resolve_checkpoint(None, None, weights=folder, bundle_weights_path=None).identity
    (folder / "README.md").write_text("hello", encoding="utf-8")
    assert resolve_checkpoint(None, None, weights=folder, bundle_weights_path=None).identity == before
