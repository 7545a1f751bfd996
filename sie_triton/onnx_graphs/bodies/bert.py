"""BERT (Devlin et al., 2018), RoBERTa (Liu et al., 2019) and XLM-RoBERTa (Conneau et al., 2019)."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from sie_triton.onnx_graphs.attention import Inputs, attention, join_heads, padding_penalty, split_heads
from sie_triton.onnx_graphs.bodies.architecture import Architecture, Config, Frame, expect
from sie_triton.onnx_graphs.builder import GraphBuilder, Value

WORDS = "embeddings.word_embeddings.weight"


def _bert(b: GraphBuilder, config: Config, frame: Frame) -> Value:
    table = b.weight("embeddings.position_embeddings.weight")
    return _encoder(b, config, frame, b.op("Gather", table, b.positions(frame.inputs.ids), axis=0))


def _roberta(b: GraphBuilder, config: Config, frame: Frame) -> Value:
    return _encoder(b, config, frame, roberta_positions(b, config, frame.inputs.ids))


def roberta_positions(b: GraphBuilder, config: Config, ids: Value) -> Value:
    """Position embeddings `[batch, sequence, hidden]`: tokens count from `pad_token_id + 1`, padding has its own."""
    pad = b.constant(np.array(config.pad_token_id, np.int64))
    real = b.op("Cast", b.op("Not", b.op("Equal", ids, pad)), to=TensorProto.INT64)
    counted = b.op("Mul", b.op("CumSum", real, b.constant(np.array(1, np.int64))), real)
    return b.op("Gather", b.weight("embeddings.position_embeddings.weight"), b.op("Add", counted, pad), axis=0)


def _encoder(b: GraphBuilder, config: Config, frame: Frame, positions: Value) -> Value:
    expect(config, "is_decoder", False, None)
    expect(config, "position_embedding_type", "absolute", None)
    inputs = frame.inputs
    states = b.op("Add", b.op("Gather", b.weight(WORDS), inputs.ids, axis=0), types(b, inputs))
    states = b.layer_norm(b.op("Add", states, positions), "embeddings.LayerNorm", config.layer_norm_eps)
    penalty = padding_penalty(b, inputs.mask)
    for number in range(config.num_hidden_layers):
        states = _layer(b, config, states, penalty, f"encoder.layer.{number}")
    return states


def types(b: GraphBuilder, inputs: Inputs) -> Value:
    """Embeddings of token types; without them every token is of the first."""
    table = b.weight("embeddings.token_type_embeddings.weight")
    return b.op("Gather", table, inputs.types or b.constant(np.array(0, np.int64)), axis=0)


def _layer(b: GraphBuilder, config: Config, states: Value, penalty: Value, name: str) -> Value:
    width, heads = config.hidden_size, config.num_attention_heads
    query, key, value = (
        b.linear(states, f"{name}.attention.self.{part}", shape=(width, width)) for part in ("query", "key", "value")
    )
    scaled = b.op("Mul", query, b.body_number((width // heads) ** -0.5))
    split = [split_heads(b, flat, heads, width // heads) for flat in (scaled, key, value)]
    mixed = join_heads(b, attention(b, *split, penalty), width)
    attended = b.linear(mixed, f"{name}.attention.output.dense")
    return feed_forward(b, config, states, attended, name, f"{name}.attention.output.LayerNorm")


def feed_forward(b: GraphBuilder, config: Config, states: Value, attended: Value, name: str, norm: str) -> Value:
    """What follows attention in a layer: normalise the sum, two linear layers, normalise the sum again."""
    states = b.layer_norm(b.op("Add", attended, states), norm, config.layer_norm_eps)
    grown = b.activation(b.linear(states, f"{name}.intermediate.dense"), config.hidden_act)
    return b.layer_norm(
        b.op("Add", b.linear(grown, f"{name}.output.dense"), states), f"{name}.output.LayerNorm", config.layer_norm_eps
    )


def vocabulary_logits(b: GraphBuilder, config: Config, states: Value, head: str, decoder: str) -> Value:
    """`[…, hidden]` times the word embeddings and plus the head's bias, or by a decoder of its own if none is tied.

    `head` and `decoder` are what stands before `bias` in either case.
    """
    tied = config.tie_word_embeddings or not b.tensors.has(f"{decoder}.weight")
    table = b.weight(WORDS if tied else f"{decoder}.weight")
    logits = b.op("MatMul", states, b.op("Transpose", table, perm=[1, 0]))
    names = (head, decoder) if tied else (decoder, head)
    found = next((name for name in names if b.tensors.has(f"{name}.bias")), head)
    return b.op("Add", logits, b.weight(f"{found}.bias"))


def bert_masked_lm(b: GraphBuilder, config: Config, states: Value) -> Value:
    """The masked-language head of BERT and of DeBERTa."""
    head = "cls.predictions"
    states = b.activation(b.linear(states, f"{head}.transform.dense"), config.hidden_act)
    states = b.layer_norm(states, f"{head}.transform.LayerNorm", config.layer_norm_eps)
    return vocabulary_logits(b, config, states, head, f"{head}.decoder")


def lm_head(b: GraphBuilder, config: Config, states: Value) -> Value:
    """The masked-language head of RoBERTa and MPNet."""
    states = b.activation(b.linear(states, "lm_head.dense"), "gelu")
    states = b.layer_norm(states, "lm_head.layer_norm", config.layer_norm_eps)
    return vocabulary_logits(b, config, states, "lm_head", "lm_head.decoder")


def bert_classifier(b: GraphBuilder, config: Config, states: Value, first: Value, mask: Value) -> Value:
    """The classification head of BERT: its pooler, then a linear layer."""
    return b.linear(b.op("Tanh", b.linear(first, "pooler.dense")), "classifier")


def classification_head(b: GraphBuilder, config: Config, states: Value, first: Value, mask: Value) -> Value:
    """The classification head of RoBERTa and MPNet."""
    return b.linear(b.op("Tanh", b.linear(first, "classifier.dense")), "classifier.out_proj")


BERT = Architecture("bert.", _bert, bert_masked_lm, bert_classifier)
ROBERTA = Architecture("roberta.", _roberta, lm_head, classification_head)
