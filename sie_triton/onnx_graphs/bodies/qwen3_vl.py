"""Qwen3-VL (Bai et al., 2025): Qwen3 reads what a vision transformer sees, in place of some of its words.

What several layers of the tower see is added to the first layers of the decoder.
"""

from __future__ import annotations

import numpy as np
from sie_frontend.mixed.rows import IMAGE_GROUPS, IMAGE_PLACES, PATCHES, TABLE_ROWS, TABLE_WEIGHTS

from sie_triton.facts import Sighted
from sie_triton.onnx_graphs.bodies.architecture import Architecture, Config, Frame
from sie_triton.onnx_graphs.bodies.decoder import Biases
from sie_triton.onnx_graphs.bodies.sighted import (
    Axes,
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


def interleaved(sections: list[int], count: int) -> Axes:
    """Which of time, row and column each frequency turns by, in turns as far as there are sections."""
    axes = np.zeros(count, np.int64)
    for axis in (1, 2):
        axes[axis : sections[axis] * 3 : 3] = axis
    return axes


def _see(b: GraphBuilder, config: Config, sighted: Sighted) -> Seen:
    vision = config.vision_config
    levels = patch_levels(b, PATCHES, sighted)
    states = patch_states(b, vision, levels, sighted, "visual.patch_embed.proj", bias=True)
    table = b.weight("visual.pos_embed.weight", (vision.num_position_embeddings, vision.hidden_size))
    taken = b.op("Gather", table, TABLE_ROWS, axis=0)
    shares = b.op("Unsqueeze", b.to_body(TABLE_WEIGHTS), b.ints(3))
    states = b.op("Add", states, b.op("ReduceSum", b.op("Mul", taken, shares), b.ints(2), keepdims=0))
    rope = patch_rotations(b, vision.hidden_size // vision.num_heads)
    sight = sightings(b, IMAGE_GROUPS, IMAGE_PLACES, rope)
    deeper = []
    for number in range(vision.depth):
        name = f"visual.blocks.{number}"
        read = b.layer_norm(states, f"{name}.norm1", NORM_EPS)
        states = b.op("Add", states, tower_attention(b, vision, read, sight, f"{name}.attn"))
        read = b.layer_norm(states, f"{name}.norm2", NORM_EPS)
        grown = b.activation(b.linear(read, f"{name}.mlp.linear_fc1"), vision.hidden_act)
        states = b.op("Add", states, b.linear(grown, f"{name}.mlp.linear_fc2"))
        if number in vision.deepstack_visual_indexes:
            place = vision.deepstack_visual_indexes.index(number)
            deeper.append(_merged(b, vision, states, f"visual.deepstack_merger_list.{place}", joined_first=True))
    return Seen(_merged(b, vision, states, "visual.merger", joined_first=False), tuple(deeper))


def _merged(b: GraphBuilder, vision: Config, states: Value, name: str, *, joined_first: bool) -> Value:
    """Squares of patches as one state each; `joined_first`: they are normalised together."""
    width = vision.hidden_size * vision.spatial_merge_size**2

    def joined(value: Value) -> Value:
        return b.op("Reshape", value, b.ints(0, -1, width))

    read = b.layer_norm(joined(states) if joined_first else states, f"{name}.norm", NORM_EPS)
    grown = b.activation(b.linear(read if joined_first else joined(read), f"{name}.linear_fc1"), "gelu")
    return b.linear(grown, f"{name}.linear_fc2", shape=(vision.out_hidden_size, width))


def _mixed(b: GraphBuilder, config: Config, frame: Frame, sighted: Sighted) -> Value:
    text = config.text_config
    bias = bool(getattr(text, "attention_bias", False))
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    axes = interleaved(text.rope_parameters.get("mrope_section", [24, 20, 20]), width // 2)
    seen = _see(b, config, sighted)
    return SightedDecoder(b, config, frame, seen, Biases(bias, bias), axes, head_norms=True).states()


def _text(b: GraphBuilder, config: Config, frame: Frame) -> Value:
    raise AssertionError("texts go where pictures go")


QWEN3_VL = Architecture("model.language_model.", _text, mixed=_mixed, parts=("model.", "language_model."), decodes=True)
