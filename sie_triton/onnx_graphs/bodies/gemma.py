"""Gemma 2 and Gemma 3 (Google DeepMind, 2024 and 2025), EmbeddingGemma among them (Vera et al., 2025).

Decoders of Llama's kind, with norms before and behind each part of a layer, norms whose weights count from one, word
embeddings times the root of their width, and layers that see a window between layers that see everything. Gemma 2
limits its scores softly; Gemma 3 norms its heads, has other rotary positions in windows, and may look both ways.
"""

from __future__ import annotations

from sie_triton.onnx_graphs.attention import Rotary, rotary
from sie_triton.onnx_graphs.bodies.architecture import Architecture, Config, Frame, default_rope, expect
from sie_triton.onnx_graphs.bodies.decoder import Biases, DecoderBody, Sight
from sie_triton.onnx_graphs.builder import GraphBuilder, Value
from sie_triton.onnx_graphs.declined import Declined

WINDOW, WHOLE = "sliding_attention", "full_attention"


def _gemma2(b: GraphBuilder, config: Config, frame: Frame) -> Value:
    # transformers' eager attention does not read it, and others do.
    expect(config, "use_bidirectional_attention", None, False)
    return _Gemma2(b, config, frame, _biases(config), head_norms=False).states()


def _gemma3(b: GraphBuilder, config: Config, frame: Frame) -> Value:
    # Gemma 3 has none, and transformers' class ignores it.
    expect(config, "attn_logit_softcapping", None)
    return _Gemma3(b, config, frame, _biases(config), head_norms=True).states()


def _biases(config: Config) -> Biases:
    return Biases(config.attention_bias, config.attention_bias)


class GemmaBody(DecoderBody):
    """What all of them have in common: words times the root of their width, and norms whose weights count from one."""

    def _embedded(self) -> Value:
        return self._b.op("Mul", super()._embedded(), self._b.body_number(self._config.hidden_size**0.5))

    def _norm(self, states: Value, name: str) -> Value:
        """Rounded behind the weights."""
        b = self._b
        scale = b.given(f"{name}.scale", 1 + b.tensors.read(f"{name}.weight"))
        return b.to_body(b.op("Mul", self._normed(states), scale))


class _Gemma(GemmaBody):
    """What the later ones have in common."""

    def _sights(self) -> list[Sight]:
        kinds = self._config.layer_types
        if odd := sorted(set(kinds) - {WINDOW, WHOLE}):
            raise Declined(f"layers of the kind `{odd[0]}` are not written")
        sights = {kind: Sight(self._rope(kind), self._penalty(self._reach(kind))) for kind in sorted(set(kinds))}
        return [sights[kind] for kind in kinds]

    def _rope(self, kind: str) -> Rotary:
        theta, factor = default_rope(self._rope_parameters(kind))
        return rotary(self._b, self._frame.inputs.ids, theta, self._shape.width, factor)

    def _rope_parameters(self, kind: str) -> Config:
        return self._config.rope_parameters

    def _reach(self, kind: str) -> int | None:
        """How far away a key may be in a layer of this kind; None for any distance."""
        if kind == WHOLE or self._frame.bidirectional:
            return None  # whoever asks for both sides gives transformers one mask for all layers
        window = self._config.sliding_window
        if not window:
            raise Declined(f"`sliding_window` is {window}, and layers have a window")
        # transformers counts the query itself, except where `is_causal` was turned off.
        return int(window) if getattr(self._config, "is_causal", True) is False else int(window) - 1

    def _layer(self, states: Value, sight: Sight, name: str) -> Value:
        b = self._b
        attended = self._attention(self._norm(states, f"{name}.input_layernorm"), sight, f"{name}.self_attn")
        states = b.op("Add", states, self._norm(attended, f"{name}.post_attention_layernorm"))
        normed = self._norm(states, f"{name}.pre_feedforward_layernorm")
        grown = self._feed_forward(normed, f"{name}.mlp", self._config.hidden_activation)
        return b.op("Add", states, self._norm(grown, f"{name}.post_feedforward_layernorm"))

    def _scale(self) -> float:
        return float(self._config.query_pre_attn_scalar**-0.5)


class _Gemma2(_Gemma):
    def _scores(self, query: Value, key: Value) -> Value:
        """Bent by a hyperbolic tangent, so that none is larger than the cap."""
        b, cap = self._b, self._config.attn_logit_softcapping
        scores = super()._scores(query, key)
        if cap is None:
            return scores
        return b.op("Mul", b.op("Tanh", b.op("Div", scores, b.body_number(cap))), b.body_number(cap))


class _Gemma3(_Gemma):
    def _rope_parameters(self, kind: str) -> Config:
        return self._config.rope_parameters[kind]

    def _both_sides(self) -> bool:
        return bool(self._config.use_bidirectional_attention) or super()._both_sides()


GEMMA2 = Architecture("model.", _gemma2, decodes=True)
GEMMA3 = Architecture("model.", _gemma3, decodes=True)
