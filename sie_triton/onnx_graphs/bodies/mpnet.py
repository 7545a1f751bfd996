"""MPNet (Song et al., 2020): BERT's layers, with a bias on scores that depends on how far two tokens are apart."""

from __future__ import annotations

import math

import numpy as np

from sie_triton.onnx_graphs.attention import attention, distances, join_heads, padding_penalty, split_heads
from sie_triton.onnx_graphs.bodies.architecture import Architecture, Config, Frame
from sie_triton.onnx_graphs.bodies.bert import WORDS, classification_head, feed_forward, lm_head, roberta_positions
from sie_triton.onnx_graphs.builder import Array, GraphBuilder, Value

# T5's buckets (Raffel et al., 2019), with the distance from which on all are alike.
MAX_DISTANCE = 128
PAD = 1


def _body(b: GraphBuilder, config: Config, frame: Frame) -> Value:
    inputs = frame.inputs
    states = b.op("Gather", b.weight(WORDS), inputs.ids, axis=0)
    states = b.op("Add", states, roberta_positions(b, config, inputs.ids))
    states = b.layer_norm(states, "embeddings.LayerNorm", config.layer_norm_eps)
    penalties = (_bias(b, config, frame), padding_penalty(b, inputs.mask))
    for number in range(config.num_hidden_layers):
        states = _layer(b, config, states, penalties, f"encoder.layer.{number}")
    return states


def _bias(b: GraphBuilder, config: Config, frame: Frame) -> Value:
    """`[1, heads, sequence, sequence]`: the bias of each head by distance, looked up for all distances there are."""
    most = frame.max_length - 1
    buckets = _buckets(np.arange(-most, most + 1), config.relative_attention_num_buckets)
    table = b.op("Gather", b.weight("encoder.relative_attention_bias.weight"), b.constant(buckets), axis=0)
    places = b.op("Add", distances(b, frame.inputs.ids), b.constant(np.array(most, np.int64)))
    return b.op("Unsqueeze", b.op("Transpose", b.op("Gather", table, places, axis=0), perm=[2, 0, 1]), b.ints(0))


def _buckets(distance: Array, count: int) -> Array:
    """The bucket of each distance `key - query`: half of them for either side, exact ones first, then by logarithm."""
    half = count // 2
    exact = half // 2
    size = np.abs(distance)
    with np.errstate(divide="ignore"):
        ratio = np.log(size.astype(np.float32) / exact, dtype=np.float32) / np.float32(math.log(MAX_DISTANCE / exact))
    grown = exact + np.where(size > 0, ratio * (half - exact), 0).astype(np.int64)
    found: Array = np.where(size < exact, size, np.minimum(grown, half - 1)) + np.where(distance > 0, half, 0)
    return found.astype(np.int64)


def _layer(b: GraphBuilder, config: Config, states: Value, penalties: tuple[Value, ...], name: str) -> Value:
    width, heads = config.hidden_size, config.num_attention_heads
    query, key, value = (
        b.linear(states, f"{name}.attention.attn.{part}", shape=(width, width)) for part in ("q", "k", "v")
    )
    scaled = b.op("Mul", query, b.body_number((width // heads) ** -0.5))
    split = [split_heads(b, flat, heads, width // heads) for flat in (scaled, key, value)]
    mixed = join_heads(b, attention(b, *split, *penalties), width)
    attended = b.linear(mixed, f"{name}.attention.attn.o")
    return feed_forward(b, config, states, attended, name, f"{name}.attention.LayerNorm")


MPNET = Architecture("mpnet.", _body, lm_head, classification_head)
