"""SigLIP (Zhai et al., 2023) and SigLIP 2 (Tschannen et al., 2025): both towers look at everything, padding too."""

from __future__ import annotations

import numpy as np

from sie_triton.onnx_graphs.attention import attention, join_heads, split_heads
from sie_triton.onnx_graphs.bodies.architecture import Architecture, Config, Frame, Towers, expect
from sie_triton.onnx_graphs.bodies.clip import encoder, feed_forward, patch_embeddings
from sie_triton.onnx_graphs.builder import Array, GraphBuilder, Value


def _text(b: GraphBuilder, config: Config, frame: Frame) -> Value:
    """Texts are padded to one length, and no state is hidden from another."""
    text, names = config.text_config, "text_model.embeddings"
    words = b.op("Gather", b.weight(f"{names}.token_embedding.weight"), frame.inputs.ids, axis=0)
    table = b.weight(f"{names}.position_embedding.weight")
    states = b.op("Add", words, b.op("Gather", table, b.positions(frame.inputs.ids), axis=0))
    states = encoder(b, text, states, "text_model.encoder")
    return b.layer_norm(states, "text_model.final_layer_norm", text.layer_norm_eps)


def _text_vector(b: GraphBuilder, config: Config, states: Value, ids: Value, mask: Value) -> Value:
    """The last state, which may be padding."""
    last = b.op("Gather", states, b.constant(np.array(-1, np.int64)), axis=1)
    return b.linear(last, "text_model.head", precision="float32")


def _vision(b: GraphBuilder, config: Config, pixels: Value) -> Value:
    """What one learned query finds in the patches of the last layer, `[batch, 1, hidden]`."""
    vision, names = config.vision_config, "vision_model.embeddings"
    expect(vision, "vision_use_head", True, default=True)
    patches = patch_embeddings(b, vision, pixels, names, bias=True)
    count = (vision.image_size // vision.patch_size) ** 2
    positions = b.weight(f"{names}.position_embedding.weight", (count, vision.hidden_size))
    states = encoder(b, vision, b.op("Add", patches, positions), "vision_model.encoder")
    states = b.layer_norm(states, "vision_model.post_layernorm", vision.layer_norm_eps)
    found = _probed(b, vision, states)
    read = b.layer_norm(found, "vision_model.head.layernorm", vision.layer_norm_eps)
    return b.op("Add", found, feed_forward(b, vision, read, "vision_model.head.mlp"))


def _probed(b: GraphBuilder, vision: Config, states: Value) -> Value:
    """Attention from the learned query to all states. The three projections are one tensor of the checkpoint."""
    name, width, heads = "vision_model.head", vision.hidden_size, vision.num_attention_heads
    weights = np.split(b.tensors.read(f"{name}.attention.in_proj_weight", (3 * width, width)), 3)
    biases = np.split(b.tensors.read(f"{name}.attention.in_proj_bias", (3 * width,)), 3)
    # The query is the same for every picture, and so is its projection.
    probe = b.tensors.read(f"{name}.probe", (1, 1, width))
    query = (probe @ weights[0].T + biases[0]) * (width // heads) ** -0.5
    split_query = query.reshape(1, 1, heads, width // heads).transpose(0, 2, 1, 3)
    asked = b.given(f"{name}.query", split_query, b.precision)
    key, value = (
        split_heads(b, _projected(b, states, f"{name}.{part}", weight, bias), heads, width // heads)
        for part, weight, bias in zip(("key", "value"), weights[1:], biases[1:], strict=True)
    )
    return b.linear(join_heads(b, attention(b, asked, key, value), width), f"{name}.attention.out_proj")


def _projected(b: GraphBuilder, states: Value, name: str, weight: Array, bias: Array) -> Value:
    product = b.op("MatMul", states, b.given(f"{name}.weight", weight.T, b.precision))
    return b.op("Add", product, b.given(f"{name}.bias", bias, b.precision))


def _image_vector(b: GraphBuilder, config: Config, states: Value) -> Value:
    """The one state that there is."""
    return b.op("Squeeze", states, b.ints(1))


SIGLIP = Architecture("", _text, towers=Towers(_vision, _text_vector, _image_vector))
