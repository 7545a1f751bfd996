"""Rules on ONNX files, and on a configuration and its graph."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from lint.builders import RepositoryBuilder, identity_config, identity_graph, model, replaced, tensor
from lint.builds import Build, copies
from lint.configs import with_w
from lint.graphs import (
    added,
    external_graph,
    imported,
    ir,
    operator,
    opset,
    sequence_graph,
    two_outputs_graph,
    unshaped_graph,
)

from .case import Case, graphs, texts


def with_weights(*, present: bool) -> Build:
    def build(repository: RepositoryBuilder) -> None:
        # `onnx.save` refuses dangling external data, so the bytes are written as they are.
        files: dict[str, str | bytes] = {"1/model.onnx": external_graph().SerializeToString()}
        if present:
            files["1/weights.bin"] = bytes(16)
        repository.add("copy", identity_config(), files=files)

    return build


def sparse_file(size: int) -> Build:
    def build(repository: RepositoryBuilder) -> None:
        file = repository.add("copy", identity_config(), identity_graph()) / "1/model.onnx"
        with file.open("r+b") as opened:
            opened.truncate(size)

    return build


def cut_weights(size: int) -> Build:
    """External weights of 16 bytes from byte 4 on, in a file of `size` bytes."""
    graph = external_graph()
    graph.graph.initializer[0].external_data.add(key="offset", value="4")
    graph.graph.initializer[0].external_data.add(key="length", value="16")
    files: dict[str, str | bytes] = {"1/model.onnx": graph.SerializeToString(), "1/weights.bin": bytes(size)}
    return lambda r: r.add("copy", identity_config(), files=files)


def eight_bits() -> onnx.ModelProto:
    """A product of 32 inputs with weights of 8 bits."""
    node = helper.make_node(
        "MatMulNBits",
        ["x", "codes", "scales"],
        ["y"],
        domain="com.microsoft",
        K=32,
        N=4,
        bits=8,
        block_size=32,
        accuracy_level=4,
    )
    made = model(
        [tensor("x", ["b", 32])],
        [tensor("y", ["b", 4])],
        [node],
        [
            helper.make_tensor("codes", TensorProto.UINT8, [4, 1, 32], bytes(range(128)), raw=True),
            helper.make_tensor("scales", TensorProto.FLOAT, [4], [1.0] * 4),
        ],
    )
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made


CASES: dict[str, Case] = {
    "L202": Case(
        lambda r: r.add(
            "copy", identity_config(), files={"1/model.onnx": b"version https://git-lfs.github.com/spec/v1"}
        ),
        copies(identity_config()),
    ),
    "L203": graphs(ir(11), ir(10), triton="24.10"),
    "L204": graphs(opset(22), opset(21), triton="24.10"),
    "L205": graphs(
        model(
            [tensor("x", ["b", 4]), tensor("left", ["b"])],
            [tensor("y", ["b", 4])],
            [helper.make_node("Identity", ["x"], ["y"])],
        )
    ),
    "L206": texts(identity_config(more='input { name: "extra" data_type: TYPE_FP32 dims: 4 }'), line=8),
    "L207": texts(replaced(identity_config(), "TYPE_FP32", "TYPE_FP16"), line=4),
    "L208": Case(
        copies(identity_config(dims="[ -1 ]", output_dims="[ 4 ]")),
        # a dynamic graph may be narrowed
        copies(identity_config(), identity_graph(("b", "n"), output=("b", 4))),
        line=4,
    ),
    "L209": texts(replaced(identity_config(), '"y"', '"z"'), line=5),
    "L210": texts(replaced(identity_config(), '"y" data_type: TYPE_FP32', '"y" data_type: TYPE_FP16'), line=5),
    "L211": Case(
        copies(identity_config(), identity_graph(("b", "Div_1"), output=("b", "Div_1"))),
        copies(identity_config(output_dims="[ -1 ]"), identity_graph(("b", "Div_1"), output=("b", "Div_1"))),
        line=5,
    ),
    "L212": graphs(identity_graph((8, 4), output=(8, 4)), line=3),
    "L213": Case(
        copies(identity_config(dims="[ 1 ]"), identity_graph(("b",), output=("b",))),
        copies(
            identity_config(dims="[ 1 ]", more_input="reshape { shape: [ ] }", more_output="reshape { shape: [ ] }"),
            identity_graph(("b",), output=("b",)),
        ),
    ),
    "L214": graphs(sequence_graph()),
    "L215": graphs(unshaped_graph()),
    "L216": Case(
        copies(identity_config(data_type="TYPE_BF16"), identity_graph(kind=TensorProto.BFLOAT16)),
        copies(identity_config(data_type="TYPE_BF16"), identity_graph(kind=TensorProto.BFLOAT16)),
        triton="26.02",
        good_triton="26.03",
    ),
    "L217": graphs(two_outputs_graph()),
    "L218": Case(
        copies(with_w(), added()),
        copies(with_w("optional: true", batching=False), added()),
        line=8,
    ),
    "L219": Case(copies(identity_config(), added(as_input=False, unshaped=True)), copies(identity_config(), added())),
    "L220": Case(
        copies(identity_config(), operator("BertTokenizer", "ai.onnx.contrib")),
        copies(
            identity_config(more='model_operations { op_library_filename: "libcustom.so" }'),
            operator("BertTokenizer", "ai.onnx.contrib"),
        ),
    ),
    "L221": graphs(imported("ai.onnx.ml", 6), imported("ai.onnx.ml", 5)),
    "L222": Case(
        copies(with_w("optional: true", batching=False), added(initialized=False)),
        copies(with_w("optional: true", batching=False), added()),
    ),
    "L223": Case(
        copies(identity_config(dims="[ 32 ]", output_dims="[ 4 ]"), eight_bits()),
        copies(identity_config(dims="[ 32 ]", output_dims="[ 4 ]"), eight_bits()),
        triton="25.03",
        good_triton="25.06",
    ),
    "L609": Case(with_weights(present=False), with_weights(present=True)),
    "L610": Case(sparse_file(2**31), copies(identity_config())),
    "L616": Case(cut_weights(19), cut_weights(20)),
}
