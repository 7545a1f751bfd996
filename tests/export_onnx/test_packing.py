"""A packed graph gives what the padded one gives, whatever lies in the padding, and computes fewer positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper, parser, shape_inference

from sie_triton.onnx_graphs.packing import PADDING_COST, pack

pytestmark = pytest.mark.export

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


def packed(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    assert pack(copy, "input_ids", "attention_mask") == PADDING_COST / WIDTH
    onnx.checker.check_model(copy)
    return copy


def run(model: onnx.ModelProto, mask: Any, names: list[str] | None = None) -> list[Any]:
    """Outputs for random ids that depend on the mask's shape alone."""
    ids = np.random.default_rng(mask.size).integers(0, VOCABULARY, mask.shape)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: list[Any] = session.run(names, {"input_ids": ids, "attention_mask": mask})
    return outputs


MEAN_GRAPH, MAXIMUM_GRAPH = graph(MEAN), graph(MAXIMUM)
PAIRS = {"mean": (MEAN_GRAPH, packed(MEAN_GRAPH)), "maximum": (MAXIMUM_GRAPH, packed(MAXIMUM_GRAPH))}


@st.composite
def masks(draw: st.DrawFn) -> Any:
    """Masks of any pattern: padding at the end, at the beginning or between, but some token in every row."""
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    mask = np.array(draw(st.lists(st.integers(0, 1), min_size=rows * columns, max_size=rows * columns)), dtype=np.int64)
    mask = mask.reshape(rows, columns)
    mask[:, draw(st.integers(0, columns - 1))] = 1
    return mask


@pytest.mark.parametrize("head", PAIRS)
@settings(max_examples=40)
@given(mask=masks())
def test_the_outputs_are_those_of_the_padded_graph(head: str, mask: Any) -> None:
    padded_graph, packed_graph = PAIRS[head]
    np.testing.assert_allclose(run(packed_graph, mask)[0], run(padded_graph, mask)[0], rtol=2e-5, atol=2e-6)


def test_padding_is_not_computed_in_the_linear_layers() -> None:
    model = packed(MEAN_GRAPH)
    names = ["queries_flat", "sum", "grown", "gated", "final"]
    for name in names:
        model.graph.output.append(onnx.helper.make_tensor_value_info(f"{name}_packed", onnx.TensorProto.FLOAT, None))
    mask = np.array([[1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]], dtype=np.int64)
    shapes = [array.shape for array in run(model, mask, [f"{name}_packed" for name in names])]
    assert shapes == [(9, 4), (9, 4), (9, 8), (9, 4), (9, 4)]


def test_a_batch_without_any_token_is_computed_too() -> None:
    nothing = np.zeros((2, 3), dtype=np.int64)
    assert np.isfinite(run(PAIRS["mean"][1], nothing)[0]).all()


def test_rows_without_tokens_do_not_disturb_others() -> None:
    mask = np.array([[0, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=np.int64)
    padded_graph, packed_graph = PAIRS["mean"]
    np.testing.assert_allclose(run(packed_graph, mask)[0][1], run(padded_graph, mask)[0][1], rtol=2e-5, atol=2e-6)


def test_token_states_may_be_the_output() -> None:
    model = graph("output = Identity(final)", "float[batch, sequence, 4] output")
    mask = np.array([[1, 1, 1], [1, 0, 0]], dtype=np.int64)
    expected, found = run(model, mask)[0], run(packed(model), mask)[0]
    assert found.shape == expected.shape
    np.testing.assert_allclose(found[mask == 1], expected[mask == 1], rtol=2e-5, atol=2e-6)


def test_a_graph_that_blanks_its_states_from_the_start_is_left_alone() -> None:
    blanked = LAYER.replace(
        "states = LayerNormalization<axis = -1>(embedded, scale, shift)",
        """normal = LayerNormalization<axis = -1>(embedded, scale, shift)
        early = Cast<to = 1>(attention_mask)
        wide_axes = Constant<value_ints = [2]>()
        early_wide = Unsqueeze(early, wide_axes)
        states = Mul(normal, early_wide)""",
    )
    model = graph(MEAN)
    replaced = parser.parse_model(f"{SIGNATURE} => (float[batch, 4] output) {{{blanked}{MEAN}}}")
    replaced.graph.initializer.extend(model.graph.initializer)
    replaced = shape_inference.infer_shapes(replaced, strict_mode=True)
    before = replaced.SerializeToString(deterministic=True)
    assert pack(replaced, "input_ids", "attention_mask") is None
    assert replaced.SerializeToString(deterministic=True) == before


def test_a_graph_without_products_of_token_states_is_left_alone() -> None:
    model = parser.parse_model(
        f"{SIGNATURE} => (int64[batch, sequence] output) {{ output = Mul(input_ids, attention_mask) }}"
    )
    assert pack(model, "input_ids", "attention_mask") is None
