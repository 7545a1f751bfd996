"""The linter's view of a graph equals the view of ONNX Runtime, which is what Triton compares with."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from sie_triton.lint.onnx_graph import OnnxGraph, OnnxGraphError

from .builders import encoder_graph, identity_graph, model, pooling_graph, tensor
from .graphs import external_graph, ragged_graph, sequence_graph, two_outputs_graph

onnxruntime = pytest.importorskip("onnxruntime")

_RUNTIME_TYPES = {
    "tensor(float)": "TYPE_FP32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(int32)": "TYPE_INT32",
    "tensor(bool)": "TYPE_BOOL",
    "tensor(string)": "TYPE_STRING",
}


def reshaped_graph(output: tuple[str | int, ...]) -> onnx.ModelProto:
    """Reshapes to rows of 4 through a computed shape, which only data propagation can follow."""
    return model(
        [tensor("x", ["b", 2, 2])],
        [tensor("y", output)],
        [
            helper.make_node("Shape", ["x"], ["shape"]),
            helper.make_node("Gather", ["shape", "zero"], ["batch"]),
            helper.make_node("Concat", ["batch", "four"], ["rows"], axis=0),
            helper.make_node("Reshape", ["x", "rows"], ["y"]),
        ],
        [
            helper.make_tensor("zero", TensorProto.INT64, [1], [0]),
            helper.make_tensor("four", TensorProto.INT64, [1], [4]),
        ],
    )


def overridable_graph() -> onnx.ModelProto:
    """Its input `w` has a default."""
    return model(
        [tensor("x", ["b", 4]), tensor("w", [4])],
        [tensor("y", ["b", "d"])],
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [helper.make_tensor("w", TensorProto.FLOAT, [4], [1.0] * 4)],
    )


GRAPHS = {
    "encoder": encoder_graph(),
    "encoder, undeclared width": encoder_graph(hidden=("b", "s", "width")),
    "encoder, undeclared shape": encoder_graph(hidden=None),
    "pooling": pooling_graph(),
    "dynamic": identity_graph(("b", "n"), output=("b", "m")),
    "narrower input": identity_graph(("b", 4), output=("b", "m")),
    "computed shape": reshaped_graph(("b", "rest")),
    "ragged": ragged_graph(),
    "two outputs": two_outputs_graph(),
    "overridable initializer": overridable_graph(),
    "strings": identity_graph(kind=TensorProto.STRING),
    "vector": identity_graph(("b",), output=("b",)),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_signature_equals_onnx_runtimes(name: str, tmp_path: Path) -> None:
    onnx.save(GRAPHS[name], tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    graph = OnnxGraph.open(tmp_path / "model.onnx")
    for ours, theirs in ((graph.inputs, session.get_inputs()), (graph.outputs, session.get_outputs())):
        expected = {
            t.name: (_RUNTIME_TYPES[t.type], tuple(d if isinstance(d, int) else -1 for d in t.shape)) for t in theirs
        }
        assert {n: (t.data_type, t.dims) for n, t in ours.items()} == expected
    assert set(graph.overridable) == {t.name for t in session.get_overridable_initializers()}


def test_weights_are_dropped_before_inference_and_not_needed(tmp_path: Path) -> None:
    weights = helper.make_tensor("w", TensorProto.FLOAT, [64, 64], bytes(64 * 64 * 4), raw=True)
    graph = model(
        [tensor("x", ["b", 64])], [tensor("y", ["b", "d"])], [helper.make_node("MatMul", ["x", "w"], ["y"])], [weights]
    )
    onnx.save(graph, tmp_path / "model.onnx")
    assert OnnxGraph.open(tmp_path / "model.onnx").outputs["y"].dims == (-1, 64)


def test_external_weights_are_named_and_not_opened(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(external_graph().SerializeToString())
    graph = OnnxGraph.open(tmp_path / "model.onnx")
    assert graph.external_files == ("weights.bin",)
    assert graph.outputs["y"].dims == (-1, 4)


def test_sequences_are_told_from_tensors(tmp_path: Path) -> None:
    onnx.save(sequence_graph(), tmp_path / "model.onnx")
    kinds = {n: t.kind for n, t in OnnxGraph.open(tmp_path / "model.onnx").declared_outputs.items()}
    assert kinds == {"y": "tensor", "parts": "sequence"}


@pytest.mark.parametrize("raw", [b"", b"\x00" * 64, b"not a graph at all"])
def test_other_files_are_refused(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(raw)
    with pytest.raises(OnnxGraphError, match="ONNX"):
        OnnxGraph.open(tmp_path / "model.onnx")
