"""DistilBERT (Sanh et al., 2019)."""

from __future__ import annotations

from sie_triton.onnx_graphs.attention import attention, join_heads, padding_penalty, split_heads
from sie_triton.onnx_graphs.bodies.architecture import Architecture, Config, Frame
from sie_triton.onnx_graphs.bodies.bert import WORDS, vocabulary_logits
from sie_triton.onnx_graphs.builder import GraphBuilder, Value

EPS = 1e-12


def _body(b: GraphBuilder, config: Config, frame: Frame) -> Value:
    ids = frame.inputs.ids
    positions = b.op("Gather", b.weight("embeddings.position_embeddings.weight"), b.positions(ids), axis=0)
    states = b.op("Add", b.op("Gather", b.weight(WORDS), ids, axis=0), positions)
    states = b.layer_norm(states, "embeddings.LayerNorm", EPS)
    penalty = padding_penalty(b, frame.inputs.mask)
    for number in range(config.n_layers):
        states = _layer(b, config, states, penalty, f"transformer.layer.{number}")
    return states


def _layer(b: GraphBuilder, config: Config, states: Value, penalty: Value, name: str) -> Value:
    width, heads = config.dim, config.n_heads
    query, key, value = (
        b.linear(states, f"{name}.attention.{part}_lin", shape=(width, width)) for part in ("q", "k", "v")
    )
    scaled = b.op("Mul", query, b.body_number((width // heads) ** -0.5))
    split = [split_heads(b, flat, heads, width // heads) for flat in (scaled, key, value)]
    mixed = join_heads(b, attention(b, *split, penalty), width)
    attended = b.linear(mixed, f"{name}.attention.out_lin")
    states = b.layer_norm(b.op("Add", attended, states), f"{name}.sa_layer_norm", EPS)
    grown = b.activation(b.linear(states, f"{name}.ffn.lin1"), config.activation)
    return b.layer_norm(b.op("Add", b.linear(grown, f"{name}.ffn.lin2"), states), f"{name}.output_layer_norm", EPS)


def _masked_lm(b: GraphBuilder, config: Config, states: Value) -> Value:
    states = b.activation(b.linear(states, "vocab_transform"), config.activation)
    states = b.layer_norm(states, "vocab_layer_norm", EPS)
    return vocabulary_logits(b, config, states, "vocab_projector", "vocab_projector")


def _classifier(b: GraphBuilder, config: Config, states: Value, first: Value, mask: Value) -> Value:
    return b.linear(b.op("Relu", b.linear(first, "pre_classifier")), "classifier")


DISTILBERT = Architecture("distilbert.", _body, _masked_lm, _classifier)
