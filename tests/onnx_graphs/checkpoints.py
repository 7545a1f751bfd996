"""Small random checkpoints of every architecture that is written, in the variants that their configurations allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

VOCABULARY = 61
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ENCODER = {**SIZES, "intermediate_size": 48, "max_position_embeddings": 320, "num_labels": 1}
DISTIL = {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "num_labels": 1}
MODERN = {**ENCODER, "num_hidden_layers": 3, "global_attn_every_n_layers": 2, "local_attention": 8, "pad_token_id": 0}
MODERN |= {"cls_token_id": 1, "bos_token_id": 1, "sep_token_id": 2, "eos_token_id": 2}
DECODER = {**ENCODER, "num_key_value_heads": 2, "pad_token_id": 0}
GEMMA: dict[str, Any] = {
    **DECODER,
    "num_hidden_layers": 3,
    "head_dim": 16,
    "query_pre_attn_scalar": 24,
    "sliding_window": 12,
}
GEMMA |= {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "bos_token_id": 2}
DEBERTA: dict[str, Any] = {**ENCODER, "type_vocab_size": 0, "relative_attention": True}
DEBERTA3 = {**DEBERTA, "position_biased_input": False, "position_buckets": 16, "pos_att_type": ["p2c", "c2p"]}
DEBERTA3 |= {"norm_rel_ebd": "layer_norm", "share_att_key": True}
SCALED = {"rope_type": "linear", "rope_theta": 5000.0, "factor": 3.0}

CONFIGS: Mapping[str, Callable[[], Any]] = {
    "bert": lambda: transformers.BertConfig(**ENCODER),
    "bert-relu": lambda: transformers.BertConfig(**ENCODER, hidden_act="relu", layer_norm_eps=1e-5),
    "bert-gelu_new": lambda: transformers.BertConfig(**ENCODER, hidden_act="gelu_new", type_vocab_size=1),
    "bert-silu": lambda: transformers.BertConfig(**ENCODER, hidden_act="silu"),
    "camembert": lambda: transformers.CamembertConfig(**ENCODER, pad_token_id=1),
    "deberta-absolute": lambda: transformers.DebertaV2Config(**ENCODER, type_vocab_size=2),
    "deberta-c2p": lambda: transformers.DebertaV2Config(**DEBERTA3 | {"pos_att_type": "c2p", "share_att_key": False}),
    "deberta-p2c": lambda: transformers.DebertaV2Config(**DEBERTA3 | {"pos_att_type": "p2c", "share_att_key": False}),
    "deberta-no-buckets": lambda: transformers.DebertaV2Config(
        **DEBERTA, pos_att_type="c2p|p2c", max_relative_positions=40, legacy=False
    ),
    "deberta-unscored": lambda: transformers.DebertaV2Config(**DEBERTA, position_buckets=32),
    "deberta-v2": lambda: transformers.DebertaV2Config(**DEBERTA3, conv_kernel_size=3, conv_act="gelu"),
    "deberta-v2-groups": lambda: transformers.DebertaV2Config(
        **DEBERTA3 | {"position_biased_input": True, "type_vocab_size": 2},
        conv_kernel_size=5,
        conv_groups=4,
        hidden_act="relu",
    ),
    "deberta-v3": lambda: transformers.DebertaV2Config(**DEBERTA3, max_relative_positions=65),
    "deberta-v3-narrow": lambda: transformers.DebertaV2Config(
        **DEBERTA3, embedding_size=20, pooler_hidden_act="tanh", layer_norm_eps=1e-5
    ),
    "distilbert": lambda: transformers.DistilBertConfig(**DISTIL),
    "distilbert-relu": lambda: transformers.DistilBertConfig(**DISTIL, activation="relu"),
    "gemma2": lambda: transformers.Gemma2Config(**GEMMA, attn_logit_softcapping=1.5),
    "gemma2-uncapped": lambda: transformers.Gemma2Config(**GEMMA, attn_logit_softcapping=None, attention_bias=True),
    "gemma3": lambda: transformers.Gemma3TextConfig(**GEMMA),
    "gemma3-both-sides": lambda: transformers.Gemma3TextConfig(**GEMMA, use_bidirectional_attention=True),
    "gemma3-scaled": lambda: transformers.Gemma3TextConfig(
        **GEMMA,
        attention_bias=True,
        hidden_activation="silu",
        use_bidirectional_attention=True,
        rope_parameters={"full_attention": SCALED, "sliding_attention": {"rope_type": "default", "rope_theta": 300.0}},
    ),
    "gemma3-not-causal": lambda: transformers.Gemma3TextConfig(**GEMMA, is_causal=False),
    "gemma3-not-causal-both-sides": lambda: transformers.Gemma3TextConfig(
        **GEMMA, is_causal=False, use_bidirectional_attention=True
    ),
    "gte": lambda: transformers.GteConfig(**ENCODER),
    "gte-no-types-scaled": lambda: transformers.GteConfig(
        **ENCODER, type_vocab_size=0, hidden_act="relu", rope_parameters=SCALED
    ),
    "gte-types": lambda: transformers.GteConfig(**ENCODER, type_vocab_size=2, layer_norm_eps=1e-5),
    "jina_embeddings_v3": lambda: transformers.JinaEmbeddingsV3Config(**ENCODER),
    "jina_embeddings_v3-scaled": lambda: transformers.JinaEmbeddingsV3Config(
        **ENCODER, type_vocab_size=2, hidden_act="gelu_new", rope_parameters=SCALED
    ),
    "llama": lambda: transformers.LlamaConfig(**DECODER),
    "llama-biases-scaled": lambda: transformers.LlamaConfig(
        **DECODER, attention_bias=True, mlp_bias=True, rope_parameters=SCALED
    ),
    "mistral-window": lambda: transformers.MistralConfig(**DECODER, sliding_window=400),
    "modernbert": lambda: transformers.ModernBertConfig(**MODERN),
    "modernbert-biases": lambda: transformers.ModernBertConfig(
        **MODERN,
        attention_bias=True,
        mlp_bias=True,
        norm_bias=True,
        classifier_bias=True,
        decoder_bias=True,
        classifier_pooling="mean",
        classifier_activation="silu",
    ),
    "mpnet": lambda: transformers.MPNetConfig(**ENCODER),
    "nomic_bert": lambda: transformers.NomicBertConfig(**ENCODER),
    "nomic_bert-wide-heads-scaled": lambda: transformers.NomicBertConfig(
        **ENCODER, head_dim=12, hidden_act="gelu", layer_norm_eps=1e-5, rope_parameters=SCALED
    ),
    "qwen2": lambda: transformers.Qwen2Config(**DECODER),
    "qwen3": lambda: transformers.Qwen3Config(**DECODER, head_dim=16),
    "qwen3-biases": lambda: transformers.Qwen3Config(**DECODER, head_dim=8, attention_bias=True),
    "roberta": lambda: transformers.RobertaConfig(**ENCODER, pad_token_id=1),
    "xlm-roberta-far-padding": lambda: transformers.XLMRobertaConfig(**ENCODER, pad_token_id=3),
}


def make(
    name: str,
    auto: Any,
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    native_names: bool = False,
    **changes: Any,
) -> Any:
    """A random model of a class of transformers' that `auto` knows, saved into `folder` in `dtype`; as it is then read.

    Where its authors gave tensors other names, transformers saves them under these, unless `native_names`. In `changes`
    are settings of its configuration. Every weight is random, norms and biases too, so that none is left out unseen.
    """
    generator = torch.Generator().manual_seed(sum(name.encode()))
    config = CONFIGS[name]()
    for key, value in changes.items():
        setattr(config, key, value)
    model = auto.from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.5 if parameter.dim() == 1 else 1.5 / parameter.shape[-1] ** 0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    model.to(dtype).save_pretrained(folder, save_original_format=not native_names)
    loaded = auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return loaded.eval()
