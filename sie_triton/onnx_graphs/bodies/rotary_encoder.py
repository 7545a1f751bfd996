"""BERT's layers with rotary positions.

NomicBERT (Nussbaum et al., 2024), GTE (Zhang et al., 2024) and Jina Embeddings v3 (Sturua et al., 2024), each under
transformers' tensor names and under those that its authors published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sie_triton.onnx_graphs.attention import (
    Rotary,
    attention,
    join_heads,
    padding_penalty,
    rotary,
    rotated,
    split_heads,
)
from sie_triton.onnx_graphs.bodies.architecture import Architecture, Config, Frame, default_rope, expect
from sie_triton.onnx_graphs.bodies.bert import (
    WORDS,
    bert_classifier,
    classification_head,
    lm_head,
    types,
    vocabulary_logits,
)
from sie_triton.onnx_graphs.builder import GraphBuilder, Value
from sie_triton.onnx_graphs.declined import Declined


@dataclass(frozen=True, slots=True)
class _TensorNames:
    """One spelling of the tensors. `layers` stands before a layer's number, the others but `embedded` behind it.

    `queries` are queries, keys and values, `grown` what widens the states; each is one name for all, whose rows lie one
    behind the other, or a name for each. In a gated layer what is gated comes before its gate.
    """

    layers: str
    embedded: str
    queries: tuple[str, ...]
    output: str
    attended_norm: str
    grown: tuple[str, ...]
    shrunk: str
    fed_norm: str


def _native(grown: tuple[str, ...], shrunk: str) -> _TensorNames:
    """transformers' own names."""
    return _TensorNames(
        "layers",
        "embeddings.LayerNorm",
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "self_attn.o_proj",
        "post_attention_layernorm",
        grown,
        shrunk,
        "post_mlp_layernorm",
    )


_GATED = _native(("mlp.up_proj", "mlp.gate_proj"), "mlp.down_proj")
_PLAIN = _native(("mlp.fc1",), "mlp.fc2")
_NOMIC = _TensorNames(
    "encoder.layers", "emb_ln", ("attn.Wqkv",), "attn.out_proj", "norm1", ("mlp.fc11", "mlp.fc12"), "mlp.fc2", "norm2"
)
_GTE = _TensorNames(
    "encoder.layer",
    "embeddings.LayerNorm",
    ("attention.qkv_proj",),
    "attention.o_proj",
    "attn_ln",
    ("mlp.up_gate_proj",),
    "mlp.down_proj",
    "mlp_ln",
)
_JINA = _TensorNames(
    "encoder.layers", "emb_ln", ("mixer.Wqkv",), "mixer.out_proj", "norm1", ("mlp.fc1",), "mlp.fc2", "norm2"
)


@dataclass(frozen=True, slots=True)
class _Variant:
    """What tells one architecture from another.

    `only` are settings of its authors' code that transformers' class does not have, with the values that it stands for.
    """

    native: _TensorNames
    published: _TensorNames
    gated: bool
    attention_bias: bool
    grown_bias: bool
    shrunk_bias: bool
    only: Mapping[str, tuple[Any, ...]]

    def body(self, b: GraphBuilder, config: Config, frame: Frame) -> Value:
        """The last states. Raises `Declined`."""
        return _RotaryBody(b, config, frame, self).states()


class _RotaryBody:
    """One encoder on its way into a graph."""

    def __init__(self, b: GraphBuilder, config: Config, frame: Frame, variant: _Variant) -> None:
        if hasattr(config, "n_embd"):
            raise Declined("its configuration has GPT-2's keys, which only its authors' code reads")
        expect(config, "is_decoder", False, None)
        for key, allowed in variant.only.items():
            expect(config, key, *allowed, default=allowed[0])
        self._b = b
        self._config = config
        self._frame = frame
        self._variant = variant
        own = any(b.tensors.has(f"{variant.native.layers}.0.{name}.weight") for name in variant.native.queries)
        self._names = variant.native if own else variant.published
        self._heads: int = config.num_attention_heads
        self._head: int = getattr(config, "head_dim", None) or config.hidden_size // self._heads

    def states(self) -> Value:
        """The last states, normalised."""
        b, config, inputs = self._b, self._config, self._frame.inputs
        theta, factor = default_rope(config.rope_parameters)
        states = b.op("Gather", b.weight(WORDS), inputs.ids, axis=0)
        if config.type_vocab_size:
            states = b.op("Add", states, types(b, inputs))
        states = self._norm(states, self._names.embedded)
        rope = rotary(b, inputs.ids, theta, self._head, factor)
        penalty = padding_penalty(b, inputs.mask)
        for number in range(config.num_hidden_layers):
            states = self._layer(states, rope, penalty, f"{self._names.layers}.{number}")
        return states

    def _layer(self, states: Value, rope: Rotary, penalty: Value, name: str) -> Value:
        b, names = self._b, self._names
        attended = self._attention(states, rope, penalty, name)
        states = self._norm(b.op("Add", attended, states), f"{name}.{names.attended_norm}")
        fed = self._linear(self._grown(states, name), f"{name}.{names.shrunk}", bias=self._variant.shrunk_bias)
        return self._norm(b.op("Add", fed, states), f"{name}.{names.fed_norm}")

    def _attention(self, states: Value, rope: Rotary, penalty: Value, name: str) -> Value:
        b, names, bias = self._b, self._names, self._variant.attention_bias
        width = self._heads * self._head
        flat = self._parts(states, name, names.queries, [width] * 3, bias=bias)
        query, key, value = (split_heads(b, part, self._heads, self._head) for part in flat)
        query = b.op("Mul", rotated(b, query, rope, self._head), b.body_number(self._head**-0.5))
        mixed = attention(b, query, rotated(b, key, rope, self._head), value, penalty)
        return self._linear(join_heads(b, mixed, width), f"{name}.{names.output}", bias=bias)

    def _grown(self, states: Value, name: str) -> Value:
        b, variant, size, act = self._b, self._variant, self._config.intermediate_size, self._config.hidden_act
        sizes = [size] * (2 if variant.gated else 1)
        parts = self._parts(states, name, self._names.grown, sizes, bias=variant.grown_bias)
        acted = b.activation(parts[-1], act)
        return b.op("Mul", acted, parts[0]) if variant.gated else acted

    def _parts(
        self, states: Value, name: str, tensors: Sequence[str], sizes: Sequence[int], *, bias: bool
    ) -> list[Value]:
        """Several products of the same states, `sizes` wide, from as many tensors or from one."""
        if len(tensors) == len(sizes):
            pairs = zip(tensors, sizes, strict=True)
            return [self._linear(states, f"{name}.{tensor}", bias=bias, size=size) for tensor, size in pairs]
        together = self._linear(states, f"{name}.{tensors[0]}", bias=bias, size=sum(sizes))
        return self._b.ops("Split", together, self._b.ints(*sizes), outputs=len(sizes), axis=-1)

    def _linear(self, value: Value, name: str, *, bias: bool, size: int | None = None) -> Value:
        """A product with a weight `[size, hidden]`. A bias that transformers' class would not add is `Declined`."""
        b = self._b
        if not bias and b.tensors.has(f"{name}.bias"):
            raise Declined(f"the checkpoint has a bias `{name}.bias`, which `{self._config.model_type}` does not have")
        return b.linear(value, name, bias=bias, shape=None if size is None else (size, self._config.hidden_size))

    def _norm(self, states: Value, name: str) -> Value:
        return self._b.layer_norm(states, name, self._config.layer_norm_eps)


def _nomic_masked_lm(b: GraphBuilder, config: Config, states: Value) -> Value:
    head = "cls.predictions"
    states = b.activation(b.linear(states, f"{head}.transform.dense"), config.hidden_act)
    states = b.layer_norm(states, f"{head}.transform.layer_norm", config.layer_norm_eps)
    return vocabulary_logits(b, config, states, head, f"{head}.decoder")


def _gte_masked_lm(b: GraphBuilder, config: Config, states: Value) -> Value:
    published = b.tensors.has("lm_head.norm.weight")
    states = b.activation(b.linear(states, "lm_head.dense"), "gelu")
    states = b.layer_norm(states, "lm_head.norm" if published else "lm_head.layer_norm", config.layer_norm_eps)
    return vocabulary_logits(b, config, states, "lm_head", "lm_head.decoder")


_NOMIC_BERT = _Variant(
    _GATED,
    _NOMIC,
    gated=True,
    attention_bias=False,
    grown_bias=False,
    shrunk_bias=False,
    only={
        "activation_function": (None, "swiglu"),
        "causal": (False, None),
        "num_experts": (None, 0),
        "parallel_block": (False, None),
        "prenorm": (False, None),
        "rotary_emb_fraction": (1.0,),
        "rotary_emb_interleaved": (False, None),
        "rotary_emb_scale_base": (None,),
        "rotary_scaling_factor": (None,),
        "scale_attn_by_inverse_layer_idx": (False, None),
        "scale_attn_weights": (True,),
        "use_rms_norm": (False, None),
    },
)
_NEW = _Variant(
    _GATED,
    _GTE,
    gated=True,
    attention_bias=True,
    grown_bias=False,
    shrunk_bias=True,
    only={
        "layer_norm_type": ("layer_norm",),
        "logn_attention_scale": (False, None),
        "pack_qkv": (True,),
        "position_embedding_type": ("rope",),
    },
)
_FLASH = _Variant(
    _PLAIN,
    _JINA,
    gated=False,
    attention_bias=True,
    grown_bias=True,
    shrunk_bias=True,
    only={"lora_adaptations": (None,), "position_embedding_type": ("rotary",)},
)

NOMIC_BERT = Architecture("nomic_bert.", _NOMIC_BERT.body, _nomic_masked_lm, bert_classifier)
GTE = Architecture("gte.", _NEW.body, _gte_masked_lm, bert_classifier, published_prefix="new.")
JINA = Architecture("roberta.", _FLASH.body, lm_head, classification_head)
