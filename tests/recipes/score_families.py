"""Rerankers: cross encoders with each activation rule, and causal language models asked for one token."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    ModernBertForSequenceClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from . import vocabularies
from .encoder_checkpoints import modernbert_config
from .family import Family
from .tiny_shapes import DECODER, ENCODER, QUERY_INSTRUCTION, ROBERTA
from .vocabularies import Vocabulary
from .weights import edit_config, spread, write_json, write_model, write_tensors

PAIR_POSITIONS = 96
"""Tokens of a pair; the bundles cut at 80."""
ZERANK_YES = 9454
"""The id of `Yes` in Qwen3's vocabulary, whose logit zerank-2 takes for the score."""
_IDENTITY = "torch.nn.modules.linear.Identity"
_SIGMOID = "torch.nn.modules.activation.Sigmoid"
_PAIR: Mapping[str, Any] = {**ENCODER, "max_position_embeddings": PAIR_POSITIONS, "num_labels": 1}


def _bert(folder: Path, **config: Any) -> None:
    words = vocabularies.wordpiece()
    model = BertForSequenceClassification(BertConfig(**_PAIR, vocab_size=words.size))
    spread(model, folder.name)
    write_model(model, folder)
    edit_config(folder, **config)
    words.save(folder, max_length=PAIR_POSITIONS)


def _bert_identity(folder: Path) -> None:
    _bert(folder, sentence_transformers={"activation_fn": _IDENTITY, "version": "4.0.1"})


def _bert_legacy_sigmoid(folder: Path) -> None:
    _bert(folder, sbert_ce_default_activation_function=_SIGMOID)


def _bert_legacy_identity(folder: Path) -> None:
    _bert(folder, sbert_ce_default_activation_function=_IDENTITY)


def _xlm_roberta(folder: Path) -> None:
    words = vocabularies.unigram()
    config = {**ROBERTA, "max_position_embeddings": PAIR_POSITIONS + 2, "num_labels": 1, "vocab_size": words.size}
    model = XLMRobertaForSequenceClassification(XLMRobertaConfig(**config))
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=PAIR_POSITIONS)


def _jina_reranker(folder: Path) -> None:
    """jina-reranker-v2: XLM-RoBERTa's arithmetic under the names of the authors' own code."""
    _xlm_roberta(folder)
    tensors = load_file(folder / "model.safetensors")
    renamed = {_flash_name(name): tensor for name, tensor in tensors.items() if ".attention.self." not in name}
    for index in range(int(ROBERTA["num_hidden_layers"])):
        own = f"roberta.encoder.layer.{index}.attention.self"
        for part in ("weight", "bias"):
            three = [tensors[f"{own}.{name}.{part}"] for name in ("query", "key", "value")]
            renamed[f"roberta.encoder.layers.{index}.mixer.Wqkv.{part}"] = torch.cat(three)
    write_tensors(folder / "model.safetensors", renamed)
    edit_config(
        folder,
        drop=("transformers_version", "dtype"),
        auto_map={
            "AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig",
            "AutoModel": "modeling_xlm_roberta.XLMRobertaModel",
            "AutoModelForSequenceClassification": "modeling_xlm_roberta.XLMRobertaForSequenceClassification",
        },
        position_embedding_type="absolute",
        torch_dtype="float32",
        use_flash_attn=False,
    )


def _flash_name(name: str) -> str:
    pairs = (
        ("roberta.embeddings.LayerNorm", "roberta.emb_ln"),
        ("encoder.layer.", "encoder.layers."),
        ("attention.output.dense", "mixer.out_proj"),
        ("attention.output.LayerNorm", "norm1"),
        ("intermediate.dense", "mlp.fc1"),
        ("output.dense", "mlp.fc2"),
        ("output.LayerNorm", "norm2"),
    )
    for old, new in pairs:
        name = name.replace(old, new)
    return name


def _modernbert(folder: Path, *, pooling: str) -> None:
    words = vocabularies.modernbert()
    config = modernbert_config(words, num_labels=1, classifier_pooling=pooling)
    config.max_position_embeddings = PAIR_POSITIONS
    model = ModernBertForSequenceClassification(config)
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=PAIR_POSITIONS)


def _modernbert_cls(folder: Path) -> None:
    _modernbert(folder, pooling="cls")


def _modernbert_mean(folder: Path) -> None:
    _modernbert(folder, pooling="mean")


def _deberta(folder: Path) -> None:
    words = vocabularies.deberta()
    config = DebertaV2Config(
        **{**_PAIR, "vocab_size": words.size},
        type_vocab_size=0,
        relative_attention=True,
        position_buckets=8,
        position_biased_input=False,
        pos_att_type=["p2c", "c2p"],
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        max_relative_positions=-1,
    )
    model = DebertaV2ForSequenceClassification(config)
    spread(model, folder.name)
    write_model(model, folder)
    words.save(folder, max_length=PAIR_POSITIONS)


def _qwen2(folder: Path, *, tied: bool) -> None:
    words = vocabularies.qwen()
    config = Qwen2Config(**DECODER, **_ends(words, "<|endoftext|>"), tie_word_embeddings=tied)
    model = Qwen2ForCausalLM(config)
    spread(model, folder.name, embedding=0.3)
    write_model(model, folder)
    words.save(folder, max_length=1024)


def _ends(words: Vocabulary, end: str) -> dict[str, Any]:
    return {"vocab_size": words.size, "eos_token_id": words.id_of(end), "pad_token_id": words.id_of("<|endoftext|>")}


def _qwen2_untied(folder: Path) -> None:
    _qwen2(folder, tied=False)


def _qwen2_tied(folder: Path) -> None:
    _qwen2(folder, tied=True)


def _qwen3(folder: Path, *, yes_id: int | None = None) -> None:
    words = vocabularies.qwen(thinking=True, yes_id=yes_id)
    config = Qwen3Config(**DECODER, **_ends(words, "<|im_end|>"), head_dim=8, tie_word_embeddings=True)
    model = Qwen3ForCausalLM(config)
    spread(model, folder.name, embedding=0.3)
    write_model(model, folder)
    words.save(folder, max_length=1024)


def _zerank(folder: Path) -> None:
    """zerank-2: a causal model whose last logit of `Yes` is the score, wired by sentence-transformers modules."""
    _qwen3(folder, yes_id=ZERANK_YES)
    package = "sentence_transformers"
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{package}.base.modules.transformer.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_LogitScore",
            "type": f"{package}.cross_encoder.modules.logit_score.LogitScore",
        },
    ]
    write_json(folder / "modules.json", modules)
    score = {"true_token_id": ZERANK_YES, "false_token_id": None, "module_input_name": "causal_logits"}
    write_json(folder / "1_LogitScore" / "config.json", score)
    modality = {
        "text": {"method": "forward", "method_output_name": "logits"},
        "message": {"method": "forward", "method_output_name": "logits", "format": "flat"},
    }
    transformer = {
        "transformer_task": "text-generation",
        "modality_config": modality,
        "module_output_name": "causal_logits",
        "processing_kwargs": {"chat_template": {"add_generation_prompt": True}},
    }
    write_json(folder / "sentence_bert_config.json", transformer)
    settings: dict[str, Any] = {
        "model_type": "CrossEncoder",
        "activation_fn": _IDENTITY,
        "prompts": {},
        "default_prompt_name": None,
    }
    write_json(folder / "config_sentence_transformers.json", settings)


_QWEN3_OPTIONS: Mapping[str, Any] = {
    "yes_token": "yes",
    "no_token": "no",
    "input_format": "qwen3",
    "score_mode": "log_softmax",
    "default_instruction": QUERY_INSTRUCTION,
}
_BERT_CE = "BertFlashCrossEncoderAdapter"


def _family(name: str, adapter: str, build: Any, modelled_on: str, native: str | None, **more: Any) -> Family:
    return Family(name, adapter, build, modelled_on, {}, score=True, native=native, **{"max_length": 80, **more})


SCORE_FAMILIES = (
    _family(
        "cross_encoder_bert_identity",
        _BERT_CE,
        _bert_identity,
        "cross-encoder__ms-marco-MiniLM-L-6-v2.yaml",
        "BertForSequenceClassification",
        note="raw logits, by `sentence_transformers.activation_fn`",
    ),
    _family(
        "cross_encoder_bert_legacy_identity",
        _BERT_CE,
        _bert_legacy_identity,
        "cross-encoder__ms-marco-MiniLM-L-6-v2.yaml",
        "BertForSequenceClassification",
        note="raw logits, by `sbert_ce_default_activation_function`",
    ),
    _family(
        "cross_encoder_bert_legacy_sigmoid",
        "CrossEncoderAdapter",
        _bert_legacy_sigmoid,
        "",
        "BertForSequenceClassification",
        note="sigmoid, by `sbert_ce_default_activation_function`; without truncation by the bundle",
    ),
    _family(
        "cross_encoder_xlm_roberta",
        _BERT_CE,
        _xlm_roberta,
        "BAAI__bge-reranker-v2-m3.yaml",
        "XLMRobertaForSequenceClassification",
        note="sigmoid, because there is one label and the config names no function",
    ),
    _family(
        "cross_encoder_modernbert_cls",
        "ModernBertFlashCrossEncoderAdapter",
        _modernbert_cls,
        "Alibaba-NLP__gte-reranker-modernbert-base.yaml",
        "ModernBertForSequenceClassification",
    ),
    _family(
        "cross_encoder_modernbert_mean",
        "ModernBertFlashCrossEncoderAdapter",
        _modernbert_mean,
        "Alibaba-NLP__gte-reranker-modernbert-base.yaml",
        "ModernBertForSequenceClassification",
    ),
    _family(
        "cross_encoder_deberta",
        "CrossEncoderAdapter",
        _deberta,
        "",
        "DebertaV2ForSequenceClassification",
        note="relative positions in buckets, shared keys",
    ),
    _family(
        "cross_encoder_jina",
        "JinaFlashCrossEncoderAdapter",
        _jina_reranker,
        "",
        None,
        twin="XLMRobertaForSequenceClassification",
        loadtime={"trust_remote_code": True},
        note="`architectures` names a class that transformers has, yet nine of ten weights are missing under its names",
    ),
    _family(
        "causal_qwen2_untied",
        "Qwen2FlashCrossEncoderAdapter",
        _qwen2_untied,
        "mixedbread-ai__mxbai-rerank-large-v2.yaml",
        "Qwen2ForCausalLM",
        max_length=640,
        note="mxbai prompt, logit(1) - logit(0), `lm_head` of its own",
    ),
    _family(
        "causal_qwen2_tied",
        "Qwen2FlashCrossEncoderAdapter",
        _qwen2_tied,
        "mixedbread-ai__mxbai-rerank-large-v2.yaml",
        "Qwen2ForCausalLM",
        max_length=640,
        note="the same with the word embeddings as the head",
    ),
    _family(
        "causal_qwen3",
        "Qwen2FlashCrossEncoderAdapter",
        _qwen3,
        "Qwen__Qwen3-Reranker-0.6B.yaml",
        "Qwen3ForCausalLM",
        max_length=640,
        loadtime=_QWEN3_OPTIONS,
        note="qwen3 prompt, P(yes) against no",
    ),
    _family(
        "zerank",
        "NativeCausalCrossEncoderAdapter",
        _zerank,
        "zeroentropy__zerank-2-reranker.yaml",
        "Qwen3ForCausalLM",
        max_length=640,
        note="chat template with the query as system and the document as user; raw logit of token 9454",
    ),
)
