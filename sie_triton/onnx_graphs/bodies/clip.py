"""CLIP (Radford et al., 2021): a causal transformer over tokens and a vision transformer, projected into one space."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from sie_triton.onnx_graphs.attention import (
    attention,
    hidden_future,
    join_heads,
    joined,
    padding_penalty,
    split_heads,
)
from sie_triton.onnx_graphs.bodies.architecture import Architecture, Config, Frame, Towers, expect
from sie_triton.onnx_graphs.builder import GraphBuilder, Value

# Before transformers 4.31 configurations named a wrong end token, and the largest id of a text is its end.
LEGACY_END = 2


def _text(b: GraphBuilder, config: Config, frame: Frame) -> Value:
    text, inputs = config.text_config, frame.inputs
    names = "text_model.embeddings"
    words = b.op("Gather", b.weight(f"{names}.token_embedding.weight"), inputs.ids, axis=0)
    table = b.weight(f"{names}.position_embedding.weight")
    states = b.op("Add", words, b.op("Gather", table, b.positions(inputs.ids), axis=0))
    penalty = joined(b, padding_penalty(b, inputs.mask), hidden_future(b, inputs.ids))
    states = encoder(b, text, states, "text_model.encoder", penalty)
    return b.layer_norm(states, "text_model.final_layer_norm", text.layer_norm_eps)


def _vision(b: GraphBuilder, config: Config, pixels: Value) -> Value:
    """A class token in front of the patches; all states of the last layer, `[batch, 1 + patches, hidden]`."""
    vision, names = config.vision_config, "vision_model.embeddings"
    patches = patch_embeddings(b, vision, pixels, names, bias=False)
    # The class token stands where no patch is: in the first row, its own embedding beside that of the position.
    padded = b.op("Pad", patches, b.ints(0, 1, 0, 0, 0, 0))
    positions = b.tensors.read(f"{names}.position_embedding.weight")
    positions[0] += b.tensors.read(f"{names}.class_embedding", (vision.hidden_size,))
    states = b.op("Add", padded, b.given(f"{names}.position_and_class", positions, b.precision))
    states = b.layer_norm(states, "vision_model.pre_layrnorm", vision.layer_norm_eps)
    return encoder(b, vision, states, "vision_model.encoder")


def patch_embeddings(b: GraphBuilder, vision: Config, pixels: Value, names: str, *, bias: bool) -> Value:
    """Pictures `[batch, 3, size, size]` cut into patches that do not overlap, `[batch, patches, hidden]`."""
    expect(vision, "num_channels", 3)
    edge, width = vision.patch_size, vision.hidden_size
    kernel = [b.weight(f"{names}.patch_embedding.weight", (width, 3, edge, edge))]
    if bias:
        kernel.append(b.weight(f"{names}.patch_embedding.bias", (width,)))
    grid = b.op("Conv", pixels, *kernel, kernel_shape=[edge, edge], strides=[edge, edge])
    count = (vision.image_size // edge) ** 2
    return b.op("Transpose", b.op("Reshape", grid, b.ints(0, width, count)), perm=[0, 2, 1])


def encoder(b: GraphBuilder, tower: Config, states: Value, name: str, *penalties: Value) -> Value:
    """The layers of one tower: each normalises what it reads, and adds what it computes."""
    for number in range(tower.num_hidden_layers):
        layer = f"{name}.layers.{number}"
        read = b.layer_norm(states, f"{layer}.layer_norm1", tower.layer_norm_eps)
        states = b.op("Add", states, self_attention(b, tower, read, f"{layer}.self_attn", *penalties))
        read = b.layer_norm(states, f"{layer}.layer_norm2", tower.layer_norm_eps)
        states = b.op("Add", states, feed_forward(b, tower, read, f"{layer}.mlp"))
    return states


def self_attention(b: GraphBuilder, tower: Config, states: Value, name: str, *penalties: Value) -> Value:
    """Attention between all states of a row, as far as the penalties let them."""
    width, heads = tower.hidden_size, tower.num_attention_heads
    query, key, value = (b.linear(states, f"{name}.{part}_proj", shape=(width, width)) for part in "qkv")
    scaled = b.op("Mul", query, b.body_number((width // heads) ** -0.5))
    split = [split_heads(b, flat, heads, width // heads) for flat in (scaled, key, value)]
    return b.linear(join_heads(b, attention(b, *split, *penalties), width), f"{name}.out_proj")


def feed_forward(b: GraphBuilder, tower: Config, states: Value, name: str) -> Value:
    """Two linear layers."""
    return b.linear(b.activation(b.linear(states, f"{name}.fc1"), tower.hidden_act), f"{name}.fc2")


def _text_vector(b: GraphBuilder, config: Config, states: Value, ids: Value, mask: Value) -> Value:
    """The state at the first end token, projected. What the mask hides is no token."""
    end = config.text_config.eos_token_id
    if end == LEGACY_END:
        marks = b.op("Mul", ids, mask)
    else:
        named = b.op("Equal", ids, b.constant(np.array(end, np.int64)))
        marks = b.op("Mul", b.op("Cast", named, to=TensorProto.INT64), mask)
    place = b.op("ArgMax", marks, axis=1, keepdims=1)
    state = b.op("GatherND", states, place, batch_dims=1)
    return b.linear(state, "text_projection", bias=False, precision="float32")


def _image_vector(b: GraphBuilder, config: Config, states: Value) -> Value:
    """The state of the class token, normalised and projected."""
    first = b.op("Gather", states, b.constant(np.array(0, np.int64)), axis=1)
    norm = b.layer_norm(first, "vision_model.post_layernorm", config.vision_config.layer_norm_eps, precision="float32")
    return b.linear(norm, "visual_projection", bias=False, precision="float32")


CLIP = Architecture("", _text, towers=Towers(_vision, _text_vector, _image_vector))
