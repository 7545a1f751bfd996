"""What language models that see have in common: patches to states, attention between them, and words among them.

Whoever calls the graph computes, from the sizes of the pictures, where every patch and every token stands: the graph
has no shape of its own for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from onnx import TensorProto
from sie_frontend.mixed.rows import PATCH_IMAGES, PATCH_POSITIONS, POSITION_IDS

from sie_triton.facts import Sighted
from sie_triton.onnx_graphs.attention import Rotary, attention, join_heads, penalty_where, rotated, split_heads
from sie_triton.onnx_graphs.bodies.architecture import Config, Frame, expect
from sie_triton.onnx_graphs.bodies.decoder import WORDS, Biases, DecoderBody, Sight
from sie_triton.onnx_graphs.builder import GraphBuilder, Value
from sie_triton.onnx_graphs.pixels import LEVELS, level_values

# The base of a tower's rotary positions, which configurations older than transformers 5 leave out.
_TOWER_BASE = 10_000.0


Axes: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.int64]]"
"""Which of time, row and column each frequency turns by."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the tower gives, `[batch, merged patches, width]` each: what stands for words, and what is added later."""

    features: Value
    deeper: tuple[Value, ...]


def patch_levels(b: GraphBuilder, patches: Value, sighted: Sighted) -> Value:
    """Patches `[batch, patches, 3 * edge * edge]` of uint8, as the numbers that their levels stand for."""
    table = b.given("level_values", level_values(sighted.pixels).reshape(-1))
    first = np.repeat(np.arange(3, dtype=np.int32) * LEVELS, sighted.patch_size**2)
    rows = b.op("Add", b.op("Cast", patches, to=TensorProto.INT32), b.constant(first))
    return b.to_body(b.op("Gather", table, rows, axis=0))


def patch_states(b: GraphBuilder, vision: Config, levels: Value, sighted: Sighted, name: str, *, bias: bool) -> Value:
    """The linear layer over each patch. A picture is a film that stands still: its frames are equal."""
    frames, edge, width = vision.temporal_patch_size, vision.patch_size, vision.hidden_size
    expect(vision, "patch_size", sighted.patch_size)
    expect(vision, "spatial_merge_size", sighted.merge_size)
    kernel = b.tensors.read(f"{name}.weight", (width, 3, frames, edge, edge))
    summed = kernel.astype(np.float64).sum(2).astype(np.float32).reshape(width, -1)
    product = b.op("MatMul", levels, b.given(f"{name}.summed", summed.T, b.precision))
    return b.op("Add", product, b.weight(f"{name}.bias", (width,))) if bias else product


def patch_rotations(b: GraphBuilder, width: int) -> Rotary:
    """The rotations of each patch, `[batch, 1, patches, width]`: half of the frequencies for rows, half for columns."""
    half = width // 2
    steps = 1.0 / (_TOWER_BASE ** (np.arange(0, half, 2, dtype=np.float32) / np.float32(half)))
    places = b.op("Unsqueeze", b.cast(PATCH_POSITIONS, "float32"), b.ints(3))
    angles = b.op("Mul", places, b.constant(steps.astype(np.float32)[None]))
    flat = b.op("Unsqueeze", b.op("Reshape", angles, b.ints(0, 0, half)), b.ints(1))
    both = b.op("Concat", flat, flat, axis=-1)
    return Rotary(b.op("Cos", both), b.op("Sin", both))


@dataclass(frozen=True, slots=True)
class Sightings:
    """Patches in groups that look at each other: where each place's patch is, and where each patch's place is.

    `members` is `[batch, groups * places, 1]`, `places` `[batch, patches, 1]`, `length` how many places a group has.
    `rope` turns by the positions of the members, and `penalty` `[batch * groups, 1, places, places]` hides those of
    other pictures.
    """

    members: Value
    places: Value
    length: Value
    rope: Rotary
    penalty: Value


def sightings(b: GraphBuilder, groups: Value, places: Value, rope: Rotary) -> Sightings:
    """What a layer of the tower needs of the groups `[batch, groups, places]`; `rope` is that of the patches."""
    length = b.op("Slice", b.op("Shape", groups), b.ints(2), b.ints(3))
    flat = b.op("Reshape", groups, b.ints(0, -1))
    members = b.op("Unsqueeze", b.op("Max", flat, b.ints(0)), b.ints(2))
    number = b.op("GatherND", PATCH_IMAGES, members, batch_dims=1)
    number = b.op("Where", b.op("Less", flat, b.ints(0)), b.ints(-1), number)
    rows = b.op("Reshape", number, b.op("Concat", b.ints(-1), length, axis=0))

    def placed(turn: Value) -> Value:
        taken = b.op("GatherND", b.op("Squeeze", turn, b.ints(1)), members, batch_dims=1)
        width = b.op("Slice", b.op("Shape", turn), b.ints(3), b.ints(4))
        return b.op("Reshape", taken, b.op("Concat", b.ints(-1, 1), length, width, axis=0))

    turned = Rotary(placed(rope.cos), placed(rope.sin))
    return Sightings(members, b.op("Unsqueeze", places, b.ints(2)), length, turned, _apart(b, rows))


def _apart(b: GraphBuilder, numbers: Value) -> Value:
    """`[groups, 1, places, places]`: no patch sees one of another number, such as another picture."""
    rows, columns = (b.op("Unsqueeze", numbers, b.ints(axis)) for axis in (2, 1))
    other = b.op("Not", b.op("Equal", rows, columns))
    return b.op("Unsqueeze", penalty_where(b, other), b.ints(1))


def tower_attention(b: GraphBuilder, vision: Config, states: Value, sight: Sightings, name: str) -> Value:
    """Attention between the patches of each group."""
    width, heads = vision.hidden_size, vision.num_heads
    head = width // heads
    flat = b.op("GatherND", b.linear(states, f"{name}.qkv", shape=(3 * width, width)), sight.members, batch_dims=1)
    flat = b.op("Reshape", flat, b.op("Concat", b.ints(-1), sight.length, b.ints(3 * width), axis=0))
    parts = b.ops("Split", flat, b.ints(width, width, width), outputs=3, axis=-1)
    query, key, value = (split_heads(b, part, heads, head) for part in parts)
    query = b.op("Mul", rotated(b, query, sight.rope, head), b.body_number(head**-0.5))
    mixed = attention(b, query, rotated(b, key, sight.rope, head), value, sight.penalty, wide_softmax=True)
    batch = b.op("Slice", b.op("Shape", states), b.ints(0), b.ints(1))
    rows = b.op("Reshape", join_heads(b, mixed, width), b.op("Concat", batch, b.ints(-1, width), axis=0))
    return b.linear(b.op("GatherND", rows, sight.places, batch_dims=1), f"{name}.proj")


def features_at(b: GraphBuilder, features: Value, pictured: Value) -> Value:
    """For each token its own feature, in order, `[batch, sequence, width]`; anything where no picture is."""
    count = b.op("CumSum", b.op("Cast", pictured, to=TensorProto.INT64), b.constant(np.array(1, np.int64)))
    number = b.op("Max", b.op("Sub", count, b.ints(1)), b.ints(0))
    return b.op("GatherND", features, b.op("Unsqueeze", number, b.ints(2)), batch_dims=1)


def is_pictured(b: GraphBuilder, config: Config, ids: Value) -> Value:
    """Which tokens stand for patches, `[batch, sequence]`."""
    return b.op("Equal", ids, b.constant(np.array(config.image_token_id, np.int64)))


def placed_rotary(b: GraphBuilder, theta: float, width: int, axes: Axes) -> Rotary:
    """Rotations by three positions of each token, `[batch, 1, 1, sequence, width]`; `axes` says by which of them."""
    steps = (1.0 / (theta ** (np.arange(0, width, 2, dtype=np.float32) / np.float32(width)))).astype(np.float32)
    places = b.op("Gather", b.cast(POSITION_IDS, "float32"), b.constant(axes), axis=2)
    angles = b.op("Unsqueeze", b.op("Mul", places, b.constant(steps)), b.ints(1, 2))
    both = b.op("Concat", angles, angles, axis=-1)
    return Rotary(b.op("Cos", both), b.op("Sin", both))


class SightedDecoder(DecoderBody):
    """A decoder over words and what was seen. `config` is that of both, `axes` say which frequency turns by what."""

    def __init__(
        self, b: GraphBuilder, config: Config, frame: Frame, seen: Seen, biases: Biases, axes: Axes, *, head_norms: bool
    ) -> None:
        super().__init__(b, config.text_config, frame, biases, head_norms=head_norms)
        self._seen = seen
        self._axes = axes
        self._pictured = b.op("Unsqueeze", is_pictured(b, config, frame.inputs.ids), b.ints(2))

    def states(self) -> Value:
        """The last states, normalised."""
        b, states = self._b, self._embedded()
        for number, sight in enumerate(self._sights()):
            states = self._layer(states, sight, f"layers.{number}")
            if number < len(self._seen.deeper):
                added = b.op("Where", self._pictured, self._at(self._seen.deeper[number]), b.body_number(0))
                states = b.op("Add", states, added)
        return self._norm(states, "norm")

    def _embedded(self) -> Value:
        b = self._b
        words = b.op("Gather", b.weight(WORDS), self._frame.inputs.ids, axis=0)
        return b.op("Where", self._pictured, self._at(self._seen.features), words)

    def _at(self, features: Value) -> Value:
        return features_at(self._b, features, self._b.op("Squeeze", self._pictured, self._b.ints(2)))

    def _sights(self) -> list[Sight]:
        config = self._config
        expect(config, "use_sliding_window", False, None, default=False)
        parameters = config.rope_parameters
        if parameters.get("rope_type", "default") not in ("default", "mrope"):
            expect(config, "rope_parameters")
        rope = placed_rotary(self._b, float(parameters["rope_theta"]), self._shape.width, self._axes)
        return [Sight(rope, self._penalty())] * config.num_hidden_layers
