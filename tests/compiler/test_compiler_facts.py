from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compiler.folders import NORMALIZE, POOLING, TRANSFORMER, bge_small_facts, minilm_facts, write_folder
from sie_triton.diagnostics import DiagnosticError
from sie_triton.facts import CheckpointFacts, SentenceModules, read_facts


def sentence(facts: CheckpointFacts) -> SentenceModules:
    assert facts.sentence
    return facts.sentence


def modules(tmp_path: Path, *entries: dict[str, Any], **files: Any) -> SentenceModules:
    named = {name.replace("__", "/") + ".json": content for name, content in files.items()}
    return sentence(read_facts(write_folder(tmp_path, {"modules.json": list(entries), **named})))


def refusal(tmp_path: Path, *entries: dict[str, Any], **files: Any) -> str:
    """What stands in the way of following `modules.json`; recipes that do without it do not mind."""
    named = {name.replace("__", "/") + ".json": content for name, content in files.items()}
    facts = read_facts(write_folder(tmp_path, {"modules.json": list(entries), **named}))
    assert facts.sentence is None
    return str(facts.sentence_problem)


def test_the_shipped_models(tmp_path: Path) -> None:
    minilm = read_facts(minilm_facts(tmp_path / "minilm"))
    assert (minilm.hidden_size, minilm.max_positions, minilm.tokenizer_max_length) == (384, 512, 512)
    assert sentence(minilm) == SentenceModules("mean", (), True, 256)
    bge = read_facts(bge_small_facts(tmp_path / "bge"))
    assert sentence(bge) == SentenceModules("cls", (), True, 512, do_lower_case=True)


def test_the_real_minilm_says_the_same(minilm: Path, tmp_path: Path) -> None:
    real, written = read_facts(minilm), read_facts(minilm_facts(tmp_path))
    for name in ("hidden_size", "max_positions", "tokenizer_max_length", "sentence", "model_type"):
        assert getattr(real, name) == getattr(written, name), name


def test_a_plain_checkpoint_has_no_pipeline(tmp_path: Path) -> None:
    assert read_facts(write_folder(tmp_path, {})).sentence is None


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last_token"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}, "mean"),
        ({"pooling_mode": "lasttoken"}, "last_token"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"word_embedding_dimension": 384}, "mean"),
    ],
)
def test_pooling_in_all_its_spellings(config: dict[str, Any], pooling: str, tmp_path: Path) -> None:
    made = modules(tmp_path, TRANSFORMER, POOLING, **{"1_Pooling__config": config})
    assert made.pooling == pooling
    assert not made.normalize


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        ({"pooling_mode": "max"}, "max"),
    ],
)
def test_pooling_that_is_not_ours_is_refused(config: dict[str, Any], named: str, tmp_path: Path) -> None:
    message = refusal(tmp_path, TRANSFORMER, POOLING, **{"1_Pooling__config": config})
    assert "SIE331" in message
    assert named in message
    assert "modules.json" in message


DENSE = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}


def test_dense_layers_are_read_in_the_order_of_their_index(tmp_path: Path) -> None:
    second = {**DENSE, "idx": 3, "path": "3_Dense"}
    made = modules(
        tmp_path,
        {**NORMALIZE, "idx": 4},
        second,
        DENSE,
        POOLING,
        TRANSFORMER,
        **{
            "1_Pooling__config": {"pooling_mode_mean_tokens": True},
            "2_Dense__config": {"in_features": 384, "out_features": 128, "bias": False},
            "3_Dense__config": {
                "in_features": 128,
                "out_features": 64,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
        },
    )
    first, last = made.dense
    assert (first.folder, first.in_features, first.out_features, first.bias, first.activation) == (
        "2_Dense",
        384,
        128,
        False,
        "Tanh",
    )
    assert (last.folder, last.out_features, last.bias, last.activation) == ("3_Dense", 64, True, "Identity")
    assert made.normalize


def test_activations_and_modules_without_a_counterpart_are_refused(tmp_path: Path) -> None:
    config = {"in_features": 1, "out_features": 1, "activation_function": "torch.nn.modules.activation.Mish"}
    assert "activation `Mish`" in refusal(tmp_path / "a", TRANSFORMER, DENSE, **{"2_Dense__config": config})
    lstm = {**POOLING, "type": "sentence_transformers.models.LSTM"}
    assert "a `LSTM` module" in refusal(tmp_path / "b", TRANSFORMER, lstm)
    dropout = {**NORMALIZE, "type": "sentence_transformers.models.Dropout"}
    assert modules(tmp_path / "c", TRANSFORMER, dropout).pooling == "mean"


def test_prompts_and_limits_come_from_their_files(tmp_path: Path) -> None:
    moved = {**TRANSFORMER, "path": "0_Transformer"}
    made = modules(
        tmp_path,
        moved,
        **{
            "config_sentence_transformers": {
                "prompts": {"query": "search: ", "document": "", "none": None},
                "default_prompt_name": "query",
            },
            "0_Transformer__sentence_bert_config": {"max_seq_length": 384, "do_lower_case": True},
            "sentence_bert_config": {"max_seq_length": 7},
        },
    )
    assert made.prompts == {"query": "search: "}
    assert (made.default_prompt_name, made.max_seq_length, made.do_lower_case) == ("query", 384, True)


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
    assert "SIE330: cannot read `config.json`" in message
    assert str(tmp_path / "config.json") in message
