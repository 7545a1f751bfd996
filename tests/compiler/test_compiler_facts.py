from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compiler.folders import NORMALIZE, POOLING, TRANSFORMER, bge_small_facts, minilm_facts, write_folder
from sie_triton.diagnostics import DiagnosticError
from sie_triton.facts import (
    CheckpointFacts,
    DenseChain,
    DenseLayer,
    LayerNormLayer,
    NormalizeLayer,
    Pipeline,
    dense_chain,
    read_facts,
)
from sie_triton.facts.checkpoint import activation


def facts_of(tmp_path: Path, *entries: dict[str, Any], **files: Any) -> CheckpointFacts:
    named = {name.replace("__", "/") + ".json": content for name, content in files.items()}
    return read_facts(write_folder(tmp_path, {"modules.json": list(entries), **named}))


def dense(tmp_path: Path, *entries: dict[str, Any], **files: Any) -> DenseChain:
    facts = facts_of(tmp_path, *entries, **files)
    return dense_chain(facts.followed("SentenceTransformer"), facts.folder)


def refusal(tmp_path: Path, *entries: dict[str, Any], **files: Any) -> str:
    """What stands in the way of following `modules.json`; recipes that do without it do not mind."""
    with pytest.raises(DiagnosticError) as caught:
        dense(tmp_path, *entries, **files)
    return str(caught.value)


def test_the_shipped_models(tmp_path: Path) -> None:
    minilm = read_facts(minilm_facts(tmp_path / "minilm"))
    assert (minilm.hidden_size, minilm.max_positions, minilm.tokenizer_max_length) == (384, 512, 512)
    assert (minilm.sentence_limit, minilm.pipeline.do_lower_case) == (256, False)
    assert dense_chain(minilm.pipeline, minilm.folder) == DenseChain("mean", True, (), (NormalizeLayer(),))
    bge = read_facts(bge_small_facts(tmp_path / "bge"))
    assert (bge.sentence_limit, bge.pipeline.do_lower_case) == (512, True)
    assert dense_chain(bge.pipeline, bge.folder) == DenseChain("cls", True, (), (NormalizeLayer(),))


def test_the_real_minilm_says_the_same(minilm: Path, tmp_path: Path) -> None:
    real, written = read_facts(minilm), read_facts(minilm_facts(tmp_path))
    for name in ("hidden_size", "max_positions", "tokenizer_max_length", "pipeline", "model_type", "problems"):
        assert getattr(real, name) == getattr(written, name), name


def test_a_plain_checkpoint_has_no_pipeline(tmp_path: Path) -> None:
    assert read_facts(write_folder(tmp_path, {})).pipeline == Pipeline(listed=False)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last_token"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last_token"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "max"}, "max"),
        ({"pooling_mode": ["mean", "cls"]}, "mean+cls"),
        ({"word_embedding_dimension": 384}, "mean"),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_sqrt_len_tokens": True}, "max+mean_sqrt_len"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "cls+mean"),
        ({"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
    ],
)
def test_pooling_in_all_its_spellings(config: dict[str, Any], pooling: str, tmp_path: Path) -> None:
    made = dense(tmp_path, TRANSFORMER, POOLING, **{"1_Pooling__config": config})
    assert made.pooling == pooling
    assert not made.normalizes


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode": "median"},
        {"pooling_mode": []},
        {"pooling_mode": ["mean", 3]},
        {"pooling_mode_median_tokens": True},
    ],
)
def test_pooling_that_nobody_knows_is_refused(config: dict[str, Any], tmp_path: Path) -> None:
    message = refusal(tmp_path, TRANSFORMER, POOLING, **{"1_Pooling__config": config})
    assert "pooling_mode_median_tokens" in message or f"the pooling {config['pooling_mode']!r}" in message
    assert "1_Pooling" in message


DENSE = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
WIDTHS = {"in_features": 384, "out_features": 128}


def test_modules_run_in_the_order_of_the_list(tmp_path: Path) -> None:
    """sentence-transformers does not read `idx`, and builds chains in which anything may stand anywhere."""
    first = {**DENSE, "idx": 9}
    second = {key: value for key, value in {**DENSE, "path": "3_Dense"}.items() if key != "idx"}
    made = dense(
        tmp_path,
        TRANSFORMER,
        POOLING,
        first,
        NORMALIZE,
        {**NORMALIZE, "path": "5_LayerNorm", "type": "sentence_transformers.models.LayerNorm"},
        second,
        **{
            "1_Pooling__config": {"pooling_mode_mean_tokens": True},
            "2_Dense__config": {**WIDTHS, "bias": False},
            "5_LayerNorm__config": {"dimension": 128},
            "3_Dense__config": {
                "in_features": 128,
                "out_features": 64,
                "activation_function": "torch.nn.modules.activation.Mish",
            },
        },
    )
    assert made.layers == (
        DenseLayer("2_Dense", 384, 128, bias=False, activation="Tanh"),
        NormalizeLayer(),
        LayerNormLayer("5_LayerNorm", 128),
        DenseLayer("3_Dense", 128, 64, bias=True, activation="Mish"),
    )
    assert (made.normalizes, made.width(384)) == (False, 64)


def test_layers_on_tokens_stand_in_front_of_the_pooling(tmp_path: Path) -> None:
    config = {**WIDTHS, "module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    made = dense(tmp_path, TRANSFORMER, DENSE, POOLING, **{"1_Pooling__config": {}, "2_Dense__config": config})
    assert made.token_layers == (DenseLayer("2_Dense", 384, 128, bias=True, activation="Tanh"),)
    assert (made.layers, made.width(384)) == ((), 128)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({**WIDTHS, "activation_function": "acme.Swish"}, "the activation `acme.Swish`"),
        ({**WIDTHS, "activation_function": "torch.nn.Softmax"}, "the activation `torch.nn.Softmax`"),
        ({**WIDTHS, "module_output_name": "other"}, "writes `other`"),
        ({"in_features": "many", "out_features": 1}, "`in_features` is 'many'"),
        ({**WIDTHS, "gate": True}, "has the key `gate`, which is not known here"),
    ],
)
def test_layers_that_are_not_understood_are_refused(config: dict[str, Any], named: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, TRANSFORMER, POOLING, DENSE, **{"1_Pooling__config": {}, "2_Dense__config": config})
    assert named in message
    assert str(tmp_path / "2_Dense" / "config.json") in message


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("sentence_transformers.models.LSTM", "a `LSTM` module: recurrent layers"),
        (
            "sentence_transformers.models.HierarchicalTokenPooling",
            "`HierarchicalTokenPooling` module: token vectors",
        ),
        ("custom_st.Pooling", "the module `custom_st.Pooling`, which is the checkpoint's own code"),
        ("sentence_transformers.sparse_encoder.modules.SpladePooling", "0 Pooling modules"),
        ("sentence_transformers.base.modules.Router", "other modules for queries"),
    ],
)
def test_modules_without_a_counterpart_are_refused_by_name(kind: str, named: str, tmp_path: Path) -> None:
    assert named in refusal(tmp_path, TRANSFORMER, {**POOLING, "path": "1_X", "type": kind})


def test_dropout_does_nothing(tmp_path: Path) -> None:
    dropout = {**NORMALIZE, "type": "sentence_transformers.models.Dropout"}
    assert dense(tmp_path, TRANSFORMER, POOLING, dropout, **{"1_Pooling__config": {}}).layers == ()


@pytest.mark.parametrize(
    ("modules", "named"),
    [
        ({"0": TRANSFORMER}, "no list of modules"),
        (["sentence_transformers.models.Transformer"], "entry 0 is no object"),
        ([{"type": "sentence_transformers.models.Transformer"}], "entry 0 has no `path`"),
        ([{"path": ""}], "entry 0 has no `type`"),
        ([{**TRANSFORMER, "path": "../other"}], "leaves the checkpoint"),
        ("text", "no list of modules"),
        ("{not json", "cannot read `modules.json`"),
        ([POOLING], "where a transformer is expected"),
        ([TRANSFORMER, TRANSFORMER, POOLING], "a second transformer"),
        ([TRANSFORMER, POOLING, POOLING], "2 Pooling modules"),
        ([TRANSFORMER], "0 Pooling modules"),
        ([{**TRANSFORMER, "kwargs": ["task"]}, POOLING], "sets `kwargs`"),
    ],
)
def test_odd_lists_of_modules_are_told_by_name(modules: Any, named: str, tmp_path: Path) -> None:
    content = modules if isinstance(modules, str) and modules.startswith("{") else json.dumps(modules)
    facts = read_facts(write_folder(tmp_path, {"modules.json": content, "1_Pooling/config.json": {}}))
    with pytest.raises(DiagnosticError) as caught:
        dense_chain(facts.followed("SentenceTransformer"), facts.folder)
    assert named in str(caught.value)
    assert "modules.json" in str(caught.value)


def test_prompts_and_limits_come_from_their_files(tmp_path: Path) -> None:
    moved = {**TRANSFORMER, "path": "0_Transformer"}
    made = facts_of(
        tmp_path,
        moved,
        **{
            "config_sentence_transformers": {
                "prompts": {"query": "search: ", "document": "", "none": None},
                "default_prompt_name": "query",
                "truncate_dim": 16,
            },
            "0_Transformer__sentence_bert_config": {"max_seq_length": 384, "do_lower_case": True},
            "sentence_bert_config": {"max_seq_length": 7},
        },
    )
    assert made.settings.prompts == {"query": "search: "}
    assert (made.settings.default_prompt, made.settings.truncate_dim) == ("search: ", 16)
    assert (made.sentence_limit, made.pipeline.do_lower_case) == (384, True)


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("sentence_bert_config", {"processing_kwargs": {"text": {"max_length": 9}}}, "sets `processing_kwargs`"),
        ("sentence_bert_config", {"transformer_task": "fill-mask"}, "a transformer for `fill-mask`"),
        ("sentence_bert_config", {"transformer_task": "any-to-any"}, "for the task `any-to-any`"),
        ("sentence_bert_config", {"max_seq_length": "long"}, "`max_seq_length` is 'long'"),
        ("sentence_bert_config", {"modality_config": {"message": {}}}, "no plain text path"),
        ("sentence_bert_config", {"unheard": 1}, "has the key `unheard`"),
        ("config_sentence_transformers", {"model_type": "SparseEncoder"}, "is a `SparseEncoder`"),
        ("config_sentence_transformers", {"prompts": ["query"]}, "`prompts` does not map"),
        ("config_sentence_transformers", {"default_prompt_name": "x"}, "which `prompts` does not have"),
        ("config_sentence_transformers", {"truncate_dim": "all"}, "`truncate_dim` is 'all'"),
        ("config_sentence_transformers", {"temperature": 2}, "has the key `temperature`"),
        ("tokenizer_config", {"split_special_tokens": True}, "sets `split_special_tokens`"),
        ("tokenizer_config", {"truncation_side": "both"}, "`truncation_side` is 'both'"),
        ("tokenizer_config", {"stemming": True}, "has the key `stemming`"),
    ],
)
def test_settings_that_would_change_vectors_are_refused(file: str, content: Any, named: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, TRANSFORMER, POOLING, **{"1_Pooling__config": {}, file: content})
    assert named in message
    assert f"{file}.json" in message or "modules.json" in message


def test_without_the_list_of_modules_nothing_else_is_read(tmp_path: Path) -> None:
    """sentence-transformers then makes its default pipeline and looks at none of the other files."""
    files = {
        "config_sentence_transformers.json": {"prompts": {"query": "find "}, "truncate_dim": 4, "odd": 1},
        "sentence_bert_config.json": {"max_seq_length": 7, "odd": 1},
    }
    facts = read_facts(write_folder(tmp_path, files))
    assert (facts.problems, facts.settings.prompts, facts.settings.truncate_dim) == ((), {}, None)
    assert (facts.sentence_limit, facts.unread) == (512, tuple(files))


def test_adapters_that_do_not_follow_the_files_do_not_mind_them(tmp_path: Path) -> None:
    lstm = {**POOLING, "type": "sentence_transformers.models.LSTM"}
    assert facts_of(tmp_path, TRANSFORMER, lstm).problems


@pytest.mark.parametrize(
    ("config", "tokenizer", "side"),
    [
        ({}, {}, "right"),
        ({"truncation_side": "left"}, {}, "left"),
        ({}, {"truncation": {"direction": "Left", "max_length": 9}}, "left"),
        ({"truncation_side": "right"}, {"truncation": {"direction": "Left"}}, "right"),
        ({}, {"truncation": None}, "right"),
    ],
)
def test_the_side_of_truncation(config: Any, tokenizer: Any, side: str, tmp_path: Path) -> None:
    files = {"tokenizer_config.json": config, "tokenizer.json": tokenizer}
    assert read_facts(write_folder(tmp_path, files)).truncation_side == side


@pytest.mark.parametrize(
    ("settings", "config", "named"),
    [
        ({}, {}, "Sigmoid"),
        ({"activation_fn": "torch.nn.modules.linear.Identity"}, {}, "Identity"),
        (
            {"activation_fn": "torch.nn.modules.activation.Tanh"},
            {"sentence_transformers": {"activation_fn": "x"}},
            "Tanh",
        ),
        ({}, {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}}, "Identity"),
        ({}, {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "Identity"),
    ],
)
def test_the_function_behind_a_score(settings: Any, config: Any, named: str, tmp_path: Path) -> None:
    files = {"modules.json": [TRANSFORMER], "config_sentence_transformers.json": settings, "config.json": config}
    assert activation(read_facts(write_folder(tmp_path, files))) == named


def test_a_function_that_is_nobodys_is_refused(tmp_path: Path) -> None:
    files = {"modules.json": [TRANSFORMER], "config_sentence_transformers.json": {"activation_fn": "acme.Steep"}}
    with pytest.raises(DiagnosticError, match=r"`acme\.Steep` of a score"):
        activation(read_facts(write_folder(tmp_path, files)))


@pytest.mark.parametrize(
    ("config", "hidden", "positions"),
    [
        ({"dim": 768}, 768, None),
        ({"d_model": 512, "n_positions": 1024}, 512, 1024),
        ({"hidden_size": "wide"}, None, None),
        ({"hidden_size": 8, "max_position_embeddings": 0}, 8, None),
        ({"model_type": "roberta", "max_position_embeddings": 514}, None, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 0}, None, 513),
        ({"model_type": "mpnet", "max_position_embeddings": 514, "pad_token_id": 1}, None, 512),
        ({"model_type": "bert", "max_position_embeddings": 512, "pad_token_id": 0}, None, 512),
    ],
)
def test_widths_and_positions(
    config: dict[str, Any], hidden: int | None, positions: int | None, tmp_path: Path
) -> None:
    facts = read_facts(write_folder(tmp_path, {"config.json": config}))
    assert (facts.hidden_size, facts.max_positions) == (hidden, positions)


@pytest.mark.parametrize("limit", [1e30, 1_000_000_000, 0, -1, "512", None])
def test_a_tokenizer_without_a_limit(limit: object, tmp_path: Path) -> None:
    facts = read_facts(write_folder(tmp_path, {"tokenizer_config.json": {"model_max_length": limit}}))
    assert facts.tokenizer_max_length is None


def test_broken_json_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(DiagnosticError) as caught:
        read_facts(write_folder(tmp_path, {"config.json": "{not json"}))
    message = str(caught.value)
    assert "SIE308: cannot read `config.json`" in message
    assert str(tmp_path / "config.json") in message
