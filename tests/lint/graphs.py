"""ONNX graphs that a rule says something about."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from .builders import Shape, identity_graph, model, tensor


def ragged_graph(shape: Shape = ("t",)) -> onnx.ModelProto:
    """Cuts the elements `x` into as many rows as there are lengths `n`."""
    return model(
        [tensor("x", shape), tensor("n", ["r"], TensorProto.INT32)],
        [tensor("y", ["b", "s"])],
        [
            helper.make_node("Shape", ["n"], ["rows"]),
            helper.make_node("Concat", ["rows", "rest"], ["cut"], axis=0),
            helper.make_node("Reshape", ["x", "cut"], ["y"]),
        ],
        [helper.make_tensor("rest", TensorProto.INT64, [1], [-1])],
    )


def sequence_graph() -> onnx.ModelProto:
    """Gives a sequence of tensors, as exported classifiers do with their probabilities."""
    made = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, ["b", 4])
    return model(
        [tensor("x", ["b", 4])],
        [tensor("y", ["b", 4]), made],
        [
            helper.make_node("Identity", ["x"], ["y"]),
            helper.make_node("SequenceConstruct", ["x"], ["parts"]),
        ],
    )


def unshaped_graph() -> onnx.ModelProto:
    """Its output comes out of an operator that ONNX does not know."""
    return model(
        [tensor("x", ["b", 4])],
        [tensor("y", ["b", "d"])],
        [helper.make_node("Mystery", ["x"], ["y"], domain="com.example")],
        custom_domain="com.example",
    )


def two_outputs_graph() -> onnx.ModelProto:
    return model(
        [tensor("x", ["b", 4])],
        [tensor("y", ["b", 4]), tensor("z", ["b", 4])],
        [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["z"])],
    )


def ir(ir_version: int) -> onnx.ModelProto:
    graph = identity_graph()
    graph.ir_version = ir_version
    return graph


def opset(version: int) -> onnx.ModelProto:
    graph = identity_graph()
    graph.opset_import[0].version = version
    return graph


def external_graph() -> onnx.ModelProto:
    """Its weights are in the file `weights.bin`."""
    graph = model(
        [tensor("x", ["b", 4])],
        [tensor("y", ["b", 4])],
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [helper.make_tensor("w", TensorProto.FLOAT, [4], [0.0] * 4)],
    )
    weights = graph.graph.initializer[0]
    weights.ClearField("float_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="weights.bin")
    return graph


def added(
    *, as_input: bool = True, ir_version: int = 8, unshaped: bool = False, initialized: bool = True
) -> onnx.ModelProto:
    """`y = x + w`, where `w` is an initializer, an input, or both."""
    inputs = [tensor("x", None if unshaped else ["b", 4]), *([tensor("w", [4])] if as_input else [])]
    weights = [helper.make_tensor("w", TensorProto.FLOAT, [4], [0.0] * 4)] if initialized else []
    return model(
        inputs,
        [tensor("y", ["b", 4])],
        [helper.make_node("Add", ["x", "w"], ["y"])],
        weights,
        ir_version=ir_version,
    )


def operator(name: str, domain: str = "", version: int = 1) -> onnx.ModelProto:
    """An identity of another operator, its domain imported in this version."""
    graph = model(
        [tensor("x", ["b", 4])], [tensor("y", ["b", 4])], [helper.make_node(name, ["x"], ["y"], domain=domain)]
    )
    if domain:
        graph.opset_import.append(helper.make_opsetid(domain, version))
    return graph


def imported(domain: str, version: int) -> onnx.ModelProto:
    """An identity that imports what it does not use."""
    graph = identity_graph()
    graph.opset_import.append(helper.make_opsetid(domain, version))
    return graph
