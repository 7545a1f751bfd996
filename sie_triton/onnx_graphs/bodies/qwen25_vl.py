"""Qwen2.5-VL (Bai et al., 2025): Qwen2 reads what a vision transformer sees, most of whose layers look into windows.

Attention does not mind in which order the patches are, so it alone takes them window by window.
"""

from __future__ import annotations

import numpy as np
from sie_frontend.mixed.rows import IMAGE_GROUPS, IMAGE_PLACES, PATCHES, WINDOW_GROUPS, WINDOW_PLACES

from sie_triton.facts import Sighted
from sie_triton.onnx_graphs.bodies.architecture import Architecture, Config, Frame, expect
from sie_triton.onnx_graphs.bodies.decoder import Biases
from sie_triton.onnx_graphs.bodies.sighted import (
    Seen,
    SightedDecoder,
    patch_levels,
    patch_rotations,
    patch_states,
    sightings,
    tower_attention,
)
from sie_triton.onnx_graphs.builder import GraphBuilder, Value

NORM_EPS = 1e-6


def _see(b: GraphBuilder, config: Config, sighted: Sighted) -> Seen:
    vision = config.vision_config
    expect(vision, "window_size", sighted.window * sighted.merge_size * sighted.patch_size)
    levels = patch_levels(b, PATCHES, sighted)
    states = patch_states(b, vision, levels, sighted, "visual.patch_embed.proj", bias=False)
    rope = patch_rotations(b, vision.hidden_size // vision.num_heads)
    everything = sightings(b, IMAGE_GROUPS, IMAGE_PLACES, rope)
    windows = sightings(b, WINDOW_GROUPS, WINDOW_PLACES, rope)
    for number in range(vision.depth):
        name = f"visual.blocks.{number}"
        sight = everything if number in vision.fullatt_block_indexes else windows
        read = _normed(b, states, f"{name}.norm1")
        states = b.op("Add", states, tower_attention(b, vision, read, sight, f"{name}.attn"))
        read = _normed(b, states, f"{name}.norm2")
        gate = b.activation(b.linear(read, f"{name}.mlp.gate_proj"), vision.hidden_act)
        grown = b.op("Mul", gate, b.linear(read, f"{name}.mlp.up_proj"))
        states = b.op("Add", states, b.linear(grown, f"{name}.mlp.down_proj"))
    width = vision.hidden_size * vision.spatial_merge_size**2
    squares = b.op("Reshape", _normed(b, states, "visual.merger.ln_q"), b.ints(0, -1, width))
    grown = b.activation(b.linear(squares, "visual.merger.mlp.0"), "gelu")
    return Seen(b.linear(grown, "visual.merger.mlp.2", shape=(vision.out_hidden_size, width)), ())


def _normed(b: GraphBuilder, states: Value, name: str) -> Value:
    """Divided by the root of the mean square, in float32, and scaled."""
    wide = b.from_body(states)
    square = b.op("ReduceMean", b.op("Mul", wide, wide), b.ints(-1), keepdims=1)
    root = b.op("Sqrt", b.op("Add", square, b.number(NORM_EPS)))
    return b.op("Mul", b.to_body(b.op("Div", wide, root)), b.weight(f"{name}.weight"))


def _mixed(b: GraphBuilder, config: Config, frame: Frame, sighted: Sighted) -> Value:
    sections = config.text_config.rope_parameters.get("mrope_section", [16, 24, 24])
    axes = np.repeat(np.arange(3), sections)
    seen = _see(b, config, sighted)
    return SightedDecoder(b, config, frame, seen, Biases(qkv=True), axes, head_norms=False).states()


def _text(b: GraphBuilder, config: Config, frame: Frame) -> Value:
    raise AssertionError("texts go where pictures go")


QWEN25_VL = Architecture(
    "model.language_model.", _text, mixed=_mixed, parts=("model.", "language_model."), decodes=True
)
