"""One transformer layer of two heads, as the tracer writes it, with several heads on it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper, parser, shape_inference

WIDTH, VOCABULARY = 4, 9
SIGNATURE = """<ir_version: 10, opset_import: ["" : 18]>
tiny (int64[batch, sequence] input_ids, int64[batch, sequence] attention_mask)"""
# One transformer layer of two heads, as the tracer writes it.
LAYER = """
    embedded = Gather(table, input_ids)
    states = LayerNormalization<axis = -1>(embedded, scale, shift)
    queries_only = MatMul(states, wq)
    queries_flat = Add(queries_only, bias)
    keys_flat = MatMul(states, wk)
    values_flat = MatMul(states, wv)
    heads = Constant<value_ints = [0, 0, 2, 2]>()
    queries_heads = Reshape(queries_flat, heads)
    keys_heads = Reshape(keys_flat, heads)
    values_heads = Reshape(values_flat, heads)
    queries = Transpose<perm = [0, 2, 1, 3]>(queries_heads)
    keys = Transpose<perm = [0, 2, 3, 1]>(keys_heads)
    values = Transpose<perm = [0, 2, 1, 3]>(values_heads)
    scores = MatMul(queries, keys)
    mask = Cast<to = 1>(attention_mask)
    one = Constant<value_float = 1.0>()
    hidden = Sub(one, mask)
    far = Constant<value_float = -1e30>()
    penalty = Mul(hidden, far)
    middle = Constant<value_ints = [1, 2]>()
    penalties = Unsqueeze(penalty, middle)
    seen = Add(scores, penalties)
    shares = Softmax<axis = -1>(seen)
    mixed = MatMul(shares, values)
    turned = Transpose<perm = [0, 2, 1, 3]>(mixed)
    flat = Constant<value_ints = [0, 0, 4]>()
    attended = Reshape(turned, flat)
    projected = MatMul(attended, wo)
    sum = Add(projected, states)
    grown = MatMul(sum, wide)
    left, right = Split<axis = 2, num_outputs = 2>(grown)
    gate = Sigmoid(left)
    gated = Mul(gate, right)
    last = Constant<value_ints = [2]>()
    squares = Mul(gated, gated)
    mean_square = ReduceMean<keepdims = 1>(squares, last_axis)
    root = Sqrt(mean_square)
    final = Div(gated, root)
"""
MEAN = """
    last_axes = Constant<value_ints = [2]>()
    mask_wide = Unsqueeze(mask, last_axes)
    blanked = Mul(final, mask_wide)
    along = Constant<value_ints = [1]>()
    total = ReduceSum<keepdims = 0>(blanked, along)
    count = ReduceSum<keepdims = 0>(mask_wide, along)
    least = Constant<value_float = 1e-9>()
    counted = Max(count, least)
    output = Div(total, counted)
"""
# As a sparse head does: what was blanked decides a maximum, behind one more product.
MAXIMUM = """
    last_axes = Constant<value_ints = [2]>()
    mask_wide = Unsqueeze(mask, last_axes)
    logits = MatMul(final, wo)
    positive = Relu(logits)
    blanked = Mul(positive, mask_wide)
    along = Constant<value_ints = [1]>()
    output = ReduceMax<keepdims = 0>(blanked, along)
"""


def graph(head: str, output: str = "float[batch, 4] output") -> onnx.ModelProto:
    """A model with random weights and inferred shapes, as the packer gets it."""
    model = parser.parse_model(f"{SIGNATURE} => ({output}) {{{LAYER}{head}}}")
    rng = np.random.default_rng(7)
    weights = {name: rng.normal(size=(WIDTH, WIDTH)) for name in ("wq", "wk", "wv", "wo")}
    weights |= {"table": rng.normal(size=(VOCABULARY, WIDTH)), "wide": rng.normal(size=(WIDTH, 2 * WIDTH))}
    weights |= {name: rng.normal(size=WIDTH) for name in ("scale", "shift", "bias")}
    arrays = {name: value.astype(np.float32) for name, value in weights.items()}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in arrays.items())
    model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "last_axis"))
    inferred: onnx.ModelProto = shape_inference.infer_shapes(model, strict_mode=True)
    return inferred
