"""ModernBERT (Warner et al., 2024): rotary positions, gated layers, local attention between global layers."""

from __future__ import annotations

from sie_triton.onnx_graphs.attention import (
    Rotary,
    attention,
    hidden_outside,
    join_heads,
    joined,
    padding_penalty,
    rotary,
    rotated,
    split_heads,
)
from sie_triton.onnx_graphs.bodies.architecture import Architecture, Config, Frame, default_rope, expect
from sie_triton.onnx_graphs.builder import GraphBuilder, Value
from sie_triton.onnx_graphs.declined import Declined

WORDS = "embeddings.tok_embeddings.weight"


def _body(b: GraphBuilder, config: Config, frame: Frame) -> Value:
    ids = frame.inputs.ids
    states = _norm(b, config, b.op("Gather", b.weight(WORDS), ids, axis=0), "embeddings.norm")
    width = config.hidden_size // config.num_attention_heads
    padding = padding_penalty(b, frame.inputs.mask)
    kinds = sorted(set(config.layer_types))
    penalties = {kind: _penalty(b, config, kind, ids, padding) for kind in kinds}
    ropes = {kind: _rope(b, config, kind, ids, width) for kind in kinds}
    for number, kind in enumerate(config.layer_types):
        states = _layer(b, config, states, (penalties[kind], ropes[kind]), number)
    return _norm(b, config, states, "final_norm")


def _penalty(b: GraphBuilder, config: Config, kind: str, ids: Value, padding: Value) -> Value:
    if kind == "full_attention":
        return padding
    if kind != "sliding_attention":
        raise Declined(f"layers of the kind `{kind}` are not written")
    return joined(b, padding, hidden_outside(b, ids, config.sliding_window))


def _rope(b: GraphBuilder, config: Config, kind: str, ids: Value, width: int) -> Rotary:
    theta, factor = default_rope(config.rope_parameters[kind])
    return rotary(b, ids, theta, width, factor)


def _norm(b: GraphBuilder, config: Config, states: Value, name: str) -> Value:
    return b.layer_norm(states, name, config.norm_eps, bias=config.norm_bias)


def _layer(b: GraphBuilder, config: Config, states: Value, kind: tuple[Value, Rotary], number: int) -> Value:
    name = f"layers.{number}"
    # The embeddings are normalised already.
    normed = states if number == 0 else _norm(b, config, states, f"{name}.attn_norm")
    states = b.op("Add", states, _attention(b, config, normed, kind, f"{name}.attn"))
    normed = _norm(b, config, states, f"{name}.mlp_norm")
    size = config.intermediate_size
    grown = b.linear(normed, f"{name}.mlp.Wi", bias=config.mlp_bias, shape=(2 * size, config.hidden_size))
    left, right = b.ops("Split", grown, b.ints(size, size), outputs=2, axis=-1)
    gated = b.op("Mul", b.activation(left, config.hidden_activation), right)
    return b.op("Add", states, b.linear(gated, f"{name}.mlp.Wo", bias=config.mlp_bias))


def _attention(b: GraphBuilder, config: Config, states: Value, kind: tuple[Value, Rotary], name: str) -> Value:
    penalty, rope = kind
    width, heads = config.hidden_size, config.num_attention_heads
    head = width // heads
    together = b.linear(states, f"{name}.Wqkv", bias=config.attention_bias, shape=(3 * width, width))
    flat = b.ops("Split", together, b.ints(width, width, width), outputs=3, axis=-1)
    query, key, value = (split_heads(b, part, heads, head) for part in flat)
    query = b.op("Mul", rotated(b, query, rope, head), b.body_number(head**-0.5))
    mixed = attention(b, query, rotated(b, key, rope, head), value, penalty, wide_softmax=True)
    return b.linear(join_heads(b, mixed, width), f"{name}.Wo", bias=config.attention_bias)


def _head(b: GraphBuilder, config: Config, states: Value) -> Value:
    dense = b.linear(states, "head.dense", bias=config.classifier_bias)
    return _norm(b, config, b.activation(dense, config.classifier_activation), "head.norm")


def _masked_lm(b: GraphBuilder, config: Config, states: Value) -> Value:
    tied = config.tie_word_embeddings or not b.tensors.has("decoder.weight")
    table = b.weight(WORDS if tied else "decoder.weight")
    logits = b.op("MatMul", _head(b, config, states), b.op("Transpose", table, perm=[1, 0]))
    return b.op("Add", logits, b.weight("decoder.bias")) if config.decoder_bias else logits


def _classifier(b: GraphBuilder, config: Config, states: Value, first: Value, mask: Value) -> Value:
    expect(config, "classifier_pooling", "cls", "mean")
    pooled = first if config.classifier_pooling == "cls" else _mean(b, states, mask)
    return b.linear(_head(b, config, pooled), "classifier")


def _mean(b: GraphBuilder, states: Value, mask: Value) -> Value:
    weights = b.cast(mask, b.precision)
    total = b.op("ReduceSum", b.op("Mul", states, b.op("Unsqueeze", weights, b.ints(2))), b.ints(1), keepdims=0)
    return b.op("Div", total, b.op("ReduceSum", weights, b.ints(1), keepdims=1))


MODERNBERT = Architecture("model.", _body, _masked_lm, _classifier)
