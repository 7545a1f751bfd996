"""A packed graph gives what the padded one gives, whatever lies in the padding, and computes fewer positions."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import parser, shape_inference

from export_onnx.one_layer import LAYER, MAXIMUM, MEAN, SIGNATURE, VOCABULARY, WIDTH, graph
from sie_triton.onnx_graphs.packing import PADDING_COST, pack

pytestmark = pytest.mark.export


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
