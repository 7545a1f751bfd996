"""Versions and operators of an ONNX file, against the `onnx` package's own reading."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from embedded.graphs import BOOL, FLOAT, doubling
from onnx import helper

from sie_triton.backends.onnxruntime.header import OnnxHeader, read_header
from sie_triton.lint.onnx_graph import OnnxGraph

tensor = helper.make_tensor_value_info


@pytest.mark.parametrize(("ir_version", "opset"), [(8, 17), (10, 21), (3, 7), (300, 1000)])
def test_versions_are_those_that_onnx_reads(tmp_path: Path, ir_version: int, opset: int) -> None:
    model = doubling(ir_version=ir_version, opset=opset)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    read = onnx.load(path)
    operators = frozenset((node.domain, node.op_type) for node in read.graph.node)
    outputs = tuple(value.name for value in read.graph.output)
    assert read_header(path) == OnnxHeader(read.ir_version, read.opset_import[0].version, 0, operators, outputs)


def test_operators_are_found_in_branches_and_functions(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Scaler", [], ["inner"], domain="ai.onnx.ml")], "branch", [], [tensor("inner", FLOAT, ["n"])]
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3), helper.make_opsetid("mine", 1)]
    own = helper.make_function(
        "mine", "Twice", ["a"], ["b"], [helper.make_node("Gelu", ["a"], ["b"], domain="theirs")], []
    )
    graph = helper.make_graph(
        [
            helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch),
            helper.make_node("Twice", ["y"], ["z"], domain="mine"),
        ],
        "graph",
        [tensor("flag", BOOL, [])],
        [tensor("z", FLOAT, ["n"])],
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=imports, functions=[own]).SerializeToString())
    header = read_header(path)
    assert header.operators == {("", "If"), ("ai.onnx.ml", "Scaler"), ("theirs", "Gelu")}
    assert (header.opset, header.ml_opset) == (17, 3)
    assert OnnxGraph.open(path).operators == header.operators


@pytest.mark.parametrize("content", [b"", b"this is no model", b"\x08"], ids=["empty", "text", "cut short"])
def test_what_is_no_model_is_said_to_be_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.onnx"):
        read_header(path)


def test_a_model_without_its_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(doubling().SerializeToString()[:-20])
    with pytest.raises(ValueError, match="cut short"):
        read_header(path)
