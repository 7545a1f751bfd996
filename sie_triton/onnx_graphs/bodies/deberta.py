"""DeBERTa v2 and v3 (He et al., 2020 and 2021): scores of what tokens are and of how far they are apart.

Which keys count the mask says: states in padding are not blanked, since nobody reads them, so that they can be packed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from sie_triton.onnx_graphs.attention import Inputs, attention, distances, join_heads, padding_penalty, split_heads
from sie_triton.onnx_graphs.bodies.architecture import Architecture, Config, Frame, expect
from sie_triton.onnx_graphs.bodies.bert import WORDS, bert_masked_lm, feed_forward
from sie_triton.onnx_graphs.builder import Array, GraphBuilder, Value
from sie_triton.onnx_graphs.declined import Declined

# Content to position, and position to content.
C2P, P2C = "c2p", "p2c"


@dataclass(frozen=True, slots=True)
class _Places:
    """Where a score finds its distance among the embeddings of distances, `[2 * span, hidden]`.

    The embeddings are float32. `first` and `end`, each `[1]`, are the rows that texts of this length need; `index`
    `[batch, heads, sequence, sequence]` counts from the first of them.
    """

    embeddings: Value
    first: Value
    end: Value
    index: Value


def _body(b: GraphBuilder, config: Config, frame: Frame) -> Value:
    heads, width = config.num_attention_heads, config.hidden_size
    expect(config, "attention_head_size", width // heads, default=width // heads)
    inputs = frame.inputs
    embedded = _embeddings(b, config, inputs)
    penalty = padding_penalty(b, inputs.mask)
    places = _places(b, config, frame) if config.relative_attention else None
    states = embedded
    for number in range(config.num_hidden_layers):
        states = _layer(b, config, states, penalty, places, f"encoder.layer.{number}")
        if number == 0 and getattr(config, "conv_kernel_size", 0) > 0:
            states = _convolved(b, config, inputs.mask, embedded, states)
    return states


def _embeddings(b: GraphBuilder, config: Config, inputs: Inputs) -> Value:
    states = b.op("Gather", b.weight(WORDS), inputs.ids, axis=0)
    if config.position_biased_input:
        table = b.weight("embeddings.position_embeddings.weight")
        states = b.op("Add", states, b.op("Gather", table, b.positions(inputs.ids), axis=0))
    if config.type_vocab_size > 0:
        table = b.weight("embeddings.token_type_embeddings.weight")
        types = inputs.types or b.constant(np.array(0, np.int64))
        states = b.op("Add", states, b.op("Gather", table, types, axis=0))
    narrow = getattr(config, "embedding_size", config.hidden_size)
    if narrow != config.hidden_size:
        states = b.linear(states, "embeddings.embed_proj", bias=False, shape=(config.hidden_size, narrow))
    return b.layer_norm(states, "embeddings.LayerNorm", config.layer_norm_eps)


def _places(b: GraphBuilder, config: Config, frame: Frame) -> _Places:
    buckets, most = _buckets_of(config)
    span = buckets if buckets > 0 else most
    embeddings = b.from_body(b.weight("encoder.rel_embeddings.weight", (2 * span, config.hidden_size)))
    norms = [name.strip() for name in getattr(config, "norm_rel_ebd", "none").lower().split("|")]
    if set(norms) - {"none", "layer_norm"}:
        raise Declined(f"`norm_rel_ebd` is {config.norm_rel_ebd!r}")
    if "layer_norm" in norms:
        embeddings = b.layer_norm(embeddings, "encoder.LayerNorm", config.layer_norm_eps, precision="float32")

    furthest = frame.max_length - 1
    # By how far a key lies behind its query: the further, the smaller is the row.
    away = np.arange(furthest, -furthest - 1, -1)
    rows = b.constant(np.clip((_buckets(away, buckets, most) if buckets > 0 else away) + span, 0, 2 * span - 1))
    ids = frame.inputs.ids
    batch, length = b.ops("Split", b.op("Shape", ids), b.ints(1, 1), outputs=2, axis=0)
    first = b.op("Gather", rows, b.op("Add", length, b.ints(furthest - 1)), axis=0)
    last = b.op("Gather", rows, b.op("Sub", b.ints(furthest + 1), length), axis=0)
    found = b.op("Gather", rows, b.op("Add", distances(b, ids), b.ints(furthest)), axis=0)
    shape = b.op("Concat", batch, b.ints(config.num_attention_heads), length, length, axis=0)
    # Half as wide, since it is as large as all scores of a layer.
    counted = b.op("Cast", b.op("Sub", found, first), to=TensorProto.INT32)
    index = b.op("Expand", counted, shape)
    return _Places(embeddings, first, b.op("Add", last, b.ints(1)), index)


def _buckets_of(config: Config) -> tuple[int, int]:
    """How many buckets there are on either side, none or fewer for one a distance; and the furthest distance."""
    odd = set(config.pos_att_type or ()) - {C2P, P2C}
    if odd:
        raise Declined(f"`pos_att_type` is {config.pos_att_type}")
    most = config.max_relative_positions
    if most < 1:
        most = config.max_position_embeddings
    buckets = getattr(config, "position_buckets", -1)
    if buckets > 0 and not 2 <= buckets // 2 < most - 1:
        raise Declined(f"`position_buckets` is {buckets}, and distances go to {most}")
    return buckets, most


def _buckets(away: Array, count: int, most: int) -> Array:
    """The bucket of each distance: half of them near the query, each for one distance, then by logarithm.

    In float32 as the authors' code, with logarithms rounded as exactly as torch's.
    """
    half = count // 2
    size = np.maximum(np.abs(away), half)
    far, furthest = (_log(np.asarray(share / half)) for share in (size, np.float64(most - 1)))
    grown = np.ceil(far / furthest * np.float32(half - 1)) + np.float32(half)
    found: Array = np.where(size <= half, away, grown * np.sign(away)).astype(np.int64)
    return found


def _log(share: Array) -> Array:
    found: Array = np.log(share.astype(np.float32).astype(np.float64)).astype(np.float32)
    return found


def _layer(b: GraphBuilder, config: Config, states: Value, penalty: Value, places: _Places | None, name: str) -> Value:
    heads, width = config.num_attention_heads, config.hidden_size
    own, size = f"{name}.attention.self", (width, width)
    query, key, value = (b.linear(states, f"{own}.{part}_proj", shape=size) for part in ("query", "key", "value"))
    kinds = config.pos_att_type or ()
    scale = (width // heads * (1 + len({C2P, P2C} & set(kinds)))) ** -0.5
    query = b.op("Mul", query, b.body_number(scale))
    query, key, value = (split_heads(b, flat, heads, width // heads) for flat in (query, key, value))
    biases = []
    if places is not None and C2P in kinds:
        embedded = _distances_of(b, config, places, f"{own}.{_projection(config, 'key')}")
        found = b.op("MatMul", query, b.op("Transpose", embedded, perm=[0, 2, 1]))
        biases.append(b.op("GatherElements", found, places.index, axis=3))
    if places is not None and P2C in kinds:
        embedded = _distances_of(b, config, places, f"{own}.{_projection(config, 'query')}", scale)
        found = b.op("MatMul", embedded, b.op("Transpose", key, perm=[0, 1, 3, 2]))
        biases.append(b.op("GatherElements", found, places.index, axis=2))
    for bias in biases:
        b.known(bias, "batch", heads, "sequence", "sequence")
    mixed = join_heads(b, attention(b, query, key, value, *biases, penalty), width)
    attended = b.linear(mixed, f"{name}.attention.output.dense")
    return feed_forward(b, config, states, attended, name, f"{name}.attention.output.LayerNorm")


def _projection(config: Config, part: str) -> str:
    return f"{part}_proj" if getattr(config, "share_att_key", False) else f"pos_{part}_proj"


def _distances_of(b: GraphBuilder, config: Config, places: _Places, name: str, scale: float = 1.0) -> Value:
    """`[heads, rows, head]`: the embeddings of the distances there are, as keys or as queries.

    Projected all at once, since runtimes do that when they load the graph, and in float32: ONNX Runtime 1.32 crashes
    where it folds a linear layer in float16.
    """
    heads, width = config.num_attention_heads, config.hidden_size
    flat = b.op("MatMul", places.embeddings, b.from_body(b.transposed(name, (width, width))))
    flat = b.op("Add", flat, b.from_body(b.weight(f"{name}.bias")))
    flat = b.to_body(b.op("Mul", flat, b.number(scale)))
    split = b.op("Transpose", b.op("Reshape", flat, b.ints(0, heads, width // heads)), perm=[1, 0, 2])
    return b.op("Slice", split, places.first, places.end, b.ints(1))


def _convolved(b: GraphBuilder, config: Config, mask: Value, embedded: Value, states: Value) -> Value:
    """The first layer's states plus a convolution over the embeddings, where padding counts as nothing."""
    kernel = config.conv_kernel_size
    if kernel % 2 == 0:
        raise Declined(f"`conv_kernel_size` is {kernel}")
    width, groups = config.hidden_size, getattr(config, "conv_groups", 1)
    real = b.op("Mul", embedded, b.op("Unsqueeze", b.cast(mask, b.precision), b.ints(2)))
    weight = b.weight("encoder.conv.conv.weight", (width, width // groups, kernel))
    wide = b.op(
        "Conv",
        b.op("Transpose", real, perm=[0, 2, 1]),
        weight,
        b.weight("encoder.conv.conv.bias"),
        group=groups,
        kernel_shape=[kernel],
        pads=[kernel // 2] * 2,
    )
    mixed = b.known(b.op("Transpose", wide, perm=[0, 2, 1]), "batch", "sequence", width)
    grown = b.activation(mixed, getattr(config, "conv_act", "tanh"))
    return b.layer_norm(b.op("Add", states, grown), "encoder.conv.LayerNorm", config.layer_norm_eps)


def _masked_lm(b: GraphBuilder, config: Config, states: Value) -> Value:
    """The head of `legacy` checkpoints, which is BERT's, or the authors' own, whose decoder is always tied."""
    if config.legacy:
        return bert_masked_lm(b, config, states)
    head = "lm_predictions.lm_head"
    states = b.activation(b.linear(states, f"{head}.dense"), config.hidden_act)
    states = b.layer_norm(states, f"{head}.LayerNorm", config.layer_norm_eps)
    logits = b.op("MatMul", states, b.op("Transpose", b.weight(WORDS), perm=[1, 0]))
    return b.op("Add", logits, b.weight(f"{head}.bias"))


def _classifier(b: GraphBuilder, config: Config, states: Value, first: Value, mask: Value) -> Value:
    return b.linear(b.activation(b.linear(first, "pooler.dense"), config.pooler_hidden_act), "classifier")


DEBERTA = Architecture("deberta.", _body, _masked_lm, _classifier)
