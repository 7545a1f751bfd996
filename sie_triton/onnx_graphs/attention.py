"""What architectures share: masks, rotary positions, scaled dot-product attention."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sie_triton.onnx_graphs.builder import GraphBuilder, Value

# A score beside the type's minimum would overflow to -inf in half precision, and a row of nothing but -inf becomes NaN.
MASK_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Inputs:
    """The graph's inputs, each `[batch, sequence]` and int64; `types` where the plan has it."""

    ids: Value
    mask: Value
    types: Value | None = None


def far(b: GraphBuilder) -> float:
    """What is added to a score that must not count."""
    return float(np.finfo(np.float16 if b.precision == "float16" else np.float32).min) * MASK_SHARE


def padding_penalty(b: GraphBuilder, mask: Value) -> Value:
    """`[batch, 1, 1, sequence]`: far numbers where there is no token."""
    missing = b.op("Sub", b.body_number(1), b.cast(mask, b.precision))
    penalty = b.op("Mul", missing, b.body_number(far(b)))
    return b.op("Unsqueeze", penalty, b.ints(1, 2))


def distances(b: GraphBuilder, ids: Value) -> Value:
    """`[sequence, sequence]`, int64: how far key j lies behind query i, negative in front of it."""
    positions = b.positions(ids)
    return b.op("Sub", b.op("Unsqueeze", positions, b.ints(0)), b.op("Unsqueeze", positions, b.ints(1)))


def penalty_where(b: GraphBuilder, hidden: Value) -> Value:
    """Far numbers where a boolean value is true, zero elsewhere."""
    return b.op("Where", hidden, b.body_number(far(b)), b.body_number(0))


def hidden_future(b: GraphBuilder, ids: Value) -> Value:
    """`[sequence, sequence]`: no query sees a key behind it."""
    return penalty_where(b, b.op("Greater", distances(b, ids), b.constant(np.array(0, np.int64))))


def hidden_outside(b: GraphBuilder, ids: Value, window: int) -> Value:
    """`[sequence, sequence]`: no query sees a key further away than `window`."""
    away = b.op("Abs", distances(b, ids))
    return penalty_where(b, b.op("Greater", away, b.constant(np.array(window, np.int64))))


def joined(b: GraphBuilder, one: Value, other: Value) -> Value:
    """Both penalties, where they meet no further away than one: two would leave the range of half precision."""
    return b.op("Max", b.op("Add", one, other), b.body_number(far(b)))


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotary position embedding (Su et al., 2021), halves rotated: `cos` and `sin` are `[sequence, width]`, float32."""

    cos: Value
    sin: Value


def rotary(b: GraphBuilder, ids: Value, theta: float, width: int, factor: float = 1.0) -> Rotary:
    """The rotations of a head `width` wide: frequencies theta^(-2i/width), divided by `factor`."""
    frequencies = (1.0 / (theta ** (np.arange(0, width, 2, dtype=np.float32) / np.float32(width)))).astype(np.float32)
    steps = b.constant((frequencies / np.float32(factor))[None, :])
    positions = b.op("Unsqueeze", b.cast(b.positions(ids), "float32"), b.ints(1))
    angles = b.op("Mul", positions, steps)
    both = b.op("Concat", angles, angles, axis=-1)
    return Rotary(b.op("Cos", both), b.op("Sin", both))


def rotated(b: GraphBuilder, value: Value, rope: Rotary, width: int) -> Value:
    """`value` `[…, sequence, width]` turned by its positions, computed in float32."""
    wide = b.from_body(value)
    left, right = b.ops("Split", wide, b.ints(width // 2, width // 2), outputs=2, axis=-1)
    turned = b.op("Concat", b.op("Neg", right), left, axis=-1)
    return b.to_body(b.op("Add", b.op("Mul", wide, rope.cos), b.op("Mul", turned, rope.sin)))


def split_heads(b: GraphBuilder, flat: Value, heads: int, width: int) -> Value:
    """`[batch, sequence, heads * width]` to `[batch, heads, sequence, width]`."""
    return b.op("Transpose", b.op("Reshape", flat, b.ints(0, 0, heads, width)), perm=[0, 2, 1, 3])


def join_heads(b: GraphBuilder, mixed: Value, width: int) -> Value:
    """`[batch, heads, sequence, …]` to `[batch, sequence, width]`."""
    return b.op("Reshape", b.op("Transpose", mixed, perm=[0, 2, 1, 3]), b.ints(0, 0, width))


def attention(
    b: GraphBuilder, query: Value, key: Value, value: Value, *penalties: Value, wide_softmax: bool = False
) -> Value:
    """Softmax over the keys of scores that are scaled already, times the values; all `[batch, heads, sequence, width]`.

    With `wide_softmax`, shares are computed in float32 whatever the precision.
    """
    scores = b.op("MatMul", query, b.op("Transpose", key, perm=[0, 1, 3, 2]))
    for penalty in penalties:
        scores = b.op("Add", scores, penalty)
    if wide_softmax:
        shares = b.to_body(b.op("Softmax", b.from_body(scores), axis=-1))
    else:
        shares = b.op("Softmax", scores, axis=-1)
    return b.op("MatMul", shares, value)
