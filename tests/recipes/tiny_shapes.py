"""The sizes that all tiny models share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WIDTH = 32
POSITIONS = 64
"""Tokens that every encoder here takes; the bundles cut at 48, so that both limits are told apart."""

ENCODER: Mapping[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": POSITIONS,
}
ROBERTA: Mapping[str, Any] = {
    **ENCODER,
    "max_position_embeddings": POSITIONS + 2,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
DECODER: Mapping[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
}
QUERY_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
INSTRUCT = "Instruct: {instruction}\nQuery: {text}"
NTK_FACTOR = 8.0
NTK_THETA = 20_000.0
