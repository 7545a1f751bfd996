"""Decoders of Llama's kind: Llama (Touvron et al., 2023), Mistral (Jiang et al., 2023), Qwen2 and Qwen3.

Norms by root mean square (Zhang and Sennrich, 2019), rotary positions, keys and values that several queries share
(Ainslie et al., 2023), a gated feed-forward layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sie_triton.onnx_graphs.attention import (
    Rotary,
    hidden_future,
    hidden_outside,
    joined,
    padding_penalty,
    rotary,
    rotated,
)
from sie_triton.onnx_graphs.bodies.architecture import Architecture, Config, Frame, default_rope
from sie_triton.onnx_graphs.builder import GraphBuilder, Value
from sie_triton.onnx_graphs.declined import Declined

WORDS = "embed_tokens.weight"


@dataclass(frozen=True, slots=True)
class Biases:
    """Which projections of attention have a bias, and whether the feed-forward layer has."""

    qkv: bool = False
    output: bool = False
    mlp: bool = False


@dataclass(frozen=True, slots=True)
class _Shape:
    """Sizes of attention: heads of queries, of keys, and how wide a head is."""

    heads: int
    key_heads: int
    width: int


@dataclass(frozen=True, slots=True)
class Sight:
    """What attention in a layer knows of positions: their rotations, and `[batch, 1, 1, 1 or sequence, sequence]`, far
    numbers where a query does not see a key.
    """

    rope: Rotary
    penalty: Value | None


def _decoder(biases: Callable[[Config], Biases], *, head_norms: bool = False) -> Architecture:
    def body(b: GraphBuilder, config: Config, frame: Frame) -> Value:
        return DecoderBody(b, config, frame, biases(config), head_norms=head_norms).states()

    return Architecture("model.", body, decodes=True)


class DecoderBody:
    """One decoder on its way into a graph, of Llama's kind where a subclass does not say otherwise."""

    def __init__(self, b: GraphBuilder, config: Config, frame: Frame, biases: Biases, *, head_norms: bool) -> None:
        self._b = b
        self._config = config
        self._frame = frame
        self._biases = biases
        self._head_norms = head_norms
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        self._shape = _Shape(heads, getattr(config, "num_key_value_heads", None) or heads, width)

    def states(self) -> Value:
        """The last states, normalised."""
        sights = self._sights()
        states = self._embedded()
        for number, sight in enumerate(sights):
            states = self._layer(states, sight, f"layers.{number}")
        return self._norm(states, "norm")

    def _sights(self) -> list[Sight]:
        """One for each layer."""
        _check_window(self._config, self._frame.max_length)
        theta, factor = default_rope(self._config.rope_parameters)
        rope = rotary(self._b, self._frame.inputs.ids, theta, self._shape.width, factor)
        return [Sight(rope, self._penalty())] * self._config.num_hidden_layers

    def _penalty(self, window: int | None = None) -> Value | None:
        """No key further away than `window`, none that is padding, and none behind the query unless both sides count;
        no number is further away than one penalty alone.
        """
        b, inputs = self._b, self._frame.inputs
        penalty = padding_penalty(b, inputs.mask)
        if window is not None:
            penalty = joined(b, penalty, hidden_outside(b, inputs.ids, window))
        if not self._both_sides():
            penalty = joined(b, penalty, hidden_future(b, inputs.ids))
        return b.op("Unsqueeze", penalty, b.ints(2))

    def _both_sides(self) -> bool:
        return self._frame.bidirectional or getattr(self._config, "is_causal", True) is False

    def _embedded(self) -> Value:
        return self._b.op("Gather", self._b.weight(WORDS), self._frame.inputs.ids, axis=0)

    def _norm(self, states: Value, name: str) -> Value:
        b = self._b
        return b.op("Mul", b.to_body(self._normed(states)), b.weight(f"{name}.weight"))

    def _normed(self, states: Value) -> Value:
        """Divided by the root of the mean square, in float32."""
        b = self._b
        wide = b.from_body(states)
        square = b.op("ReduceMean", b.op("Mul", wide, wide), b.ints(-1), keepdims=1)
        root = b.op("Sqrt", b.op("Add", square, b.number(self._config.rms_norm_eps)))
        return b.op("Div", wide, root)

    def _layer(self, states: Value, sight: Sight, name: str) -> Value:
        b = self._b
        normed = self._norm(states, f"{name}.input_layernorm")
        states = b.op("Add", states, self._attention(normed, sight, f"{name}.self_attn"))
        normed = self._norm(states, f"{name}.post_attention_layernorm")
        return b.op("Add", states, self._feed_forward(normed, f"{name}.mlp", self._config.hidden_act))

    def _feed_forward(self, normed: Value, name: str, activation: str) -> Value:
        b, config = self._b, self._config
        size, bias = (config.intermediate_size, config.hidden_size), self._biases.mlp
        gate = b.activation(b.linear(normed, f"{name}.gate_proj", bias=bias, shape=size), activation)
        grown = b.op("Mul", gate, b.linear(normed, f"{name}.up_proj", bias=bias, shape=size))
        return b.linear(grown, f"{name}.down_proj", bias=bias)

    def _scale(self) -> float:
        """What scores are multiplied by."""
        return float(self._shape.width**-0.5)

    def _attention(self, states: Value, sight: Sight, name: str) -> Value:
        """Queries `[batch, key heads, queries a key, sequence, width]` against keys that they share."""
        b, shape = self._b, self._shape
        shared = shape.heads // shape.key_heads
        query = self._heads(states, f"{name}.q", (shape.key_heads, shared))
        key = self._heads(states, f"{name}.k", (shape.key_heads, 1))
        value = self._heads(states, f"{name}.v", (shape.key_heads, 1))
        query = b.op("Mul", rotated(b, query, sight.rope, shape.width), b.body_number(self._scale()))
        key = b.op("Transpose", rotated(b, key, sight.rope, shape.width), perm=[0, 1, 2, 4, 3])
        scores = self._scores(query, key)
        if sight.penalty is not None:
            scores = b.op("Add", scores, sight.penalty)
        shares = b.to_body(b.op("Softmax", b.from_body(scores), axis=-1))
        mixed = b.op("Transpose", b.op("MatMul", shares, value), perm=[0, 3, 1, 2, 4])
        flat = b.op("Reshape", mixed, b.ints(0, 0, shape.heads * shape.width))
        return b.linear(flat, f"{name}.o_proj", bias=self._biases.output)

    def _scores(self, query: Value, key: Value) -> Value:
        """`[…, sequence, width]` times `[…, width, sequence]`."""
        return self._b.op("MatMul", query, key)

    def _heads(self, states: Value, name: str, heads: tuple[int, int]) -> Value:
        """`[batch, key heads, queries a key, sequence, width]`."""
        b, width = self._b, self._shape.width
        size = (heads[0] * heads[1] * width, self._config.hidden_size)
        flat = b.linear(states, f"{name}_proj", bias=self._biases.qkv, shape=size)
        split = b.op("Reshape", flat, b.ints(0, 0, *heads, width))
        if self._head_norms and not name.endswith(".v"):
            split = self._norm(split, f"{name}_norm")
        return b.op("Transpose", split, perm=[0, 2, 3, 1, 4])


def _check_window(config: Config, max_length: int) -> None:
    """Attention to a window is written only where the window holds the longest text."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    slides = "sliding_attention" in kinds if kinds else window is not None
    if slides and (window is None or max_length > window):
        raise Declined(f"`sliding_window` is {window}, and texts have up to {max_length} tokens")


def biases_by_config(config: Config) -> Biases:
    """Llama's: what the configuration says, and none where it says nothing."""
    bias = bool(getattr(config, "attention_bias", False))
    return Biases(bias, bias, bool(getattr(config, "mlp_bias", False)))


LLAMA = _decoder(biases_by_config)
MISTRAL = _decoder(lambda config: Biases())
QWEN2 = _decoder(lambda config: Biases(qkv=True))
QWEN3 = _decoder(biases_by_config, head_norms=True)
