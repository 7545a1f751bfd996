"""What the embedded ONNX Runtime backend refuses, each on a configuration that breaks one rule alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from sie_triton.backends.onnxruntime.header import OnnxHeader
from sie_triton.backends.onnxruntime.signature import GraphTensor
from sie_triton.backends.received import ReceivedConfig
from sie_triton.embedded.backends.onnxruntime.refusals import header_refusals, signature_refusals

IDS = GraphTensor("ids", "TYPE_INT64", ("batch", "length"))
MASK = GraphTensor("mask", "TYPE_INT64", ("batch", "length"))
VECTOR = GraphTensor("vector", "TYPE_FP32", ("batch", 384))
TOKENS = GraphTensor("tokens", "TYPE_FP32", (None, None, 384))


def config(**changes: Any) -> dict[str, Any]:
    return {
        "max_batch_size": 32,
        "input": [
            {"name": "ids", "data_type": "TYPE_INT64", "dims": [-1]},
            {"name": "mask", "data_type": "TYPE_INT64", "dims": ["-1"]},
        ],
        "output": [{"name": "vector", "data_type": "TYPE_FP32", "dims": [384]}],
        "instance_group": [{"kind": "KIND_CPU", "count": 1}],
        **changes,
    }


def refusals(
    configuration: dict[str, Any],
    inputs: Sequence[GraphTensor],
    outputs: Sequence[GraphTensor],
    *,
    overridable: Sequence[str] = (),
    gpu: bool = True,
    operators: Iterable[tuple[str, str]] = (),
    **versions: int,
) -> list[str]:
    """All that is refused, before and after a session is made."""
    received = ReceivedConfig.of(configuration)
    return [
        *header_refusals(received, OnnxHeader(**versions, operators=frozenset(operators), outputs=())),
        *signature_refusals(received, inputs, outputs, overridable=overridable, gpu=gpu),
    ]


def check(
    configuration: dict[str, Any],
    inputs: tuple[GraphTensor, ...] = (IDS, MASK),
    outputs: tuple[GraphTensor, ...] = (VECTOR, TOKENS),
    ir_version: int = 8,
    opset: int = 17,
) -> list[str]:
    return refusals(configuration, inputs, outputs, ir_version=ir_version, opset=opset, gpu=False)


def parameters(**values: str) -> dict[str, Any]:
    return {key: {"string_value": value} for key, value in values.items()}


def one_input(graph: GraphTensor, tensor: dict[str, Any], rows: int = 32) -> list[str]:
    tensor = {"name": graph.name, "data_type": graph.data_type, **tensor}
    return check(config(input=[tensor], max_batch_size=rows), inputs=(graph,), outputs=(VECTOR,))


def one_output(graph: GraphTensor, tensor: dict[str, Any], rows: int = 32) -> list[str]:
    tensor = {"name": graph.name, "data_type": graph.data_type, **tensor}
    return check(config(output=[tensor], max_batch_size=rows), outputs=(graph,))


def on_cpu(name: str) -> dict[str, Any]:
    return {"execution_accelerators": {"cpu_execution_accelerator": [{"name": name}]}}


def graph_of(configuration: dict[str, Any] | None = None, **contents: Any) -> list[str]:
    """A right configuration, before a graph of other contents."""
    return refusals(configuration or config(), (IDS, MASK), (VECTOR,), ir_version=8, opset=17, **contents)


def refusals_of_a_default() -> list[str]:
    listed = {"name": "w", "data_type": "TYPE_FP32", "dims": [4]}
    return graph_of(config(input=[*config()["input"], listed]), overridable=["w"])


SEQUENCE = GraphTensor("s", "", (), kind="seq(tensor(float))")
LIBRARY = {"model_operations": {"op_library_filename": ["libcustom.so"]}}


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(check(config(optimization=on_cpu("openvino"))), id="OpenVINO"),
        pytest.param(graph_of(ml_opset=5, operators={("ai.onnx.ml", "Scaler")}), id="ai.onnx.ml 5"),
        pytest.param(graph_of(operators={("com.microsoft", "MatMulNBits"), ("", "Add")}), id="com.microsoft"),
        pytest.param(graph_of(config(**LIBRARY), operators={("mine", "Op")}), id="a library has it"),
        pytest.param(graph_of(overridable=["w"]), id="a default that is not listed"),
        pytest.param(check(config()), id="a subset of the outputs"),
        pytest.param(check(config(), ir_version=10, opset=21), id="newest versions"),
        pytest.param(one_input(GraphTensor("x", "TYPE_FP32", ("b", "n")), {"dims": [128]}), id="narrowed input"),
        pytest.param(
            one_input(GraphTensor("x", "TYPE_FP32", ("b",)), {"dims": [1], "reshape": {"shape": []}}), id="rank 1"
        ),
        pytest.param(
            one_input(GraphTensor("x", "TYPE_FP32", ("t",)), {"dims": [-1], "allow_ragged_batch": True}), id="ragged"
        ),
        pytest.param(one_output(GraphTensor("y", "TYPE_FP32", ("b", "n")), {"dims": [-1]}), id="dynamic output"),
        pytest.param(check(config(parameters=parameters(intra_op_thread_count="2", execution_mode="1"))), id="numbers"),
        pytest.param(check(config(parameters=parameters(enable_mem_arena="False", unheard_of="x"))), id="booleans"),
        pytest.param(
            refusals(
                config(input=[{"name": "x", "data_type": "TYPE_FP32", "dims": [1]}], max_batch_size=0, output=[]),
                [GraphTensor("x", "TYPE_FP32", ())],
                [],
                ir_version=8,
                opset=17,
            ),
            id="scalar without a batch",
        ),
    ],
)
def test_what_the_backend_loads_is_not_refused(found: list[str]) -> None:
    assert found == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (lambda: check(config(), ir_version=11), "IR version 11"),
        (lambda: check(config(), opset=22), "opset 22"),
        (lambda: check(config(), inputs=(IDS, MASK, GraphTensor("types", "TYPE_INT64", ("b", "n")))), "`types`"),
        (lambda: check(config(), inputs=(IDS,)), "input `mask` is not in the graph, which has `ids`"),
        (
            lambda: one_input(IDS, {"dims": [-1], "data_type": "TYPE_INT32"}),
            "TYPE_INT32 in the configuration, TYPE_INT",
        ),
        (lambda: one_input(GraphTensor("x", "TYPE_FP32", ("b", 384)), {"dims": [-1]}), "[-1, -1] in the configuration"),
        (lambda: one_input(GraphTensor("x", "TYPE_FP32", ("b", 384)), {"dims": [385]}), "[-1, 385]"),
        (lambda: one_input(GraphTensor("x", "TYPE_FP32", ("b", "n")), {"dims": [-1, -1]}), "[-1, -1, -1]"),
        (lambda: one_input(GraphTensor("x", "TYPE_FP32", (1, "n")), {"dims": [-1]}), "fixed first dimension 1"),
        (lambda: one_input(GraphTensor("x", "TYPE_FP32", ()), {"dims": [1]}), "a scalar in the graph"),
        (lambda: one_input(GraphTensor("x", "TYPE_FP32", ("b",)), {"dims": [1]}), "add `reshape { shape: [ ] }`"),
        (lambda: one_input(IDS, {"dims": [-1], "optional": True}), "`optional`"),
        (lambda: one_input(GraphTensor("x", "TYPE_BF16", ("b",)), {"dims": [-1]}), "TYPE_BF16"),
        (lambda: one_input(IDS, {"dims": [-1], "allow_ragged_batch": True}), "ragged input `ids`"),
        (
            lambda: one_input(GraphTensor("x", "TYPE_FP32", (7,)), {"dims": [-1], "allow_ragged_batch": True}),
            "which has [7]",
        ),
        (lambda: one_output(GraphTensor("y", "TYPE_FP32", ("b", "Div_1")), {"dims": [384]}), "declare the number"),
        (lambda: one_output(VECTOR, {"dims": [-1]}), "[-1, 384] in the graph"),
        (lambda: one_output(VECTOR, {"dims": [384], "data_type": "TYPE_FP16"}), "TYPE_FP16 in the configuration"),
        (lambda: one_output(GraphTensor("y", "TYPE_BF16", ("b", 2)), {"dims": [2]}), "before release 26.03"),
        (lambda: one_output(GraphTensor("y", "TYPE_FP32", (4, 384)), {"dims": [384]}), "fixed first dimension 4"),
        (lambda: one_output(GraphTensor("y", "TYPE_FP32", ()), {"dims": [2]}, rows=0), "only ones"),
        (lambda: check(config(), outputs=(TOKENS,)), "output `vector` is not in the graph, which has `tokens`"),
        (lambda: check(config(), outputs=(VECTOR, SEQUENCE)), "seq(tensor(float))"),
        (lambda: check(config(parameters=parameters(intra_op_thread_count="two"))), "`intra_op_thread_count` is `two`"),
        (lambda: check(config(parameters=parameters(inter_op_thread_count=""))), "`inter_op_thread_count`"),
        (lambda: check(config(parameters=parameters(execution_mode="2"))), "`execution_mode` is 2"),
        (lambda: check(config(parameters=parameters(enable_mem_arena="off"))), "`enable_mem_arena` is `off`"),
        (lambda: check(config(instance_group=[{"kind": "KIND_GPU"}])), "KIND_GPU"),
        (lambda: check(config(input=[*config()["input"], config()["input"][0]])), "input `ids` is listed 2 times"),
        (lambda: check(config(optimization=on_cpu("onednn"))), "`onednn` is no `cpu_execution_accelerator`"),
        (lambda: graph_of(ml_opset=6), "opset 6 of `ai.onnx.ml`"),
        (lambda: graph_of(operators={("ai.onnx.contrib", "BertTokenizer")}), "`BertTokenizer` of the domain"),
        (lambda: graph_of(operators={("com.microsoft", "LinearAttention")}), "came with ONNX Runtime 1.27"),
        (lambda: graph_of(operators={("com.microsoft", "Nothing")}), "none of ONNX Runtime's own"),
        (refusals_of_a_default, "input `w` is an initializer of the graph"),
    ],
)
def test_what_the_backend_refuses_is_refused_once_with_its_reason(found: Callable[[], list[str]], words: str) -> None:
    reasons = [reason for reason in found() if words in reason]
    assert len(reasons) == 1, found()
    assert not [reason for reason in found() if "KIND_GPU" in reason and words != "KIND_GPU"]


def test_a_gpu_is_no_reason_where_there_is_one() -> None:
    on_gpu = config(instance_group=[{"kind": "KIND_GPU"}])
    assert refusals(on_gpu, (IDS, MASK), (VECTOR,), ir_version=8, opset=17) == []


COUNT = GraphTensor("count", "TYPE_INT32", (None,))
FLAT = GraphTensor("tokens", "TYPE_INT64", (None,))


def ragged(**changes: Any) -> list[str]:
    entry = {
        "kind": "BATCH_ELEMENT_COUNT",
        "target_name": ["count"],
        "data_type": "TYPE_INT32",
        "source_input": ["tokens"],
        **changes,
    }
    tokens = {"name": "tokens", "data_type": "TYPE_INT64", "dims": [-1], "allow_ragged_batch": True}
    return check(config(input=[tokens], batch_input=[entry]), inputs=(FLAT, COUNT), outputs=(VECTOR,))


def test_a_batch_input_is_one_of_the_graphs_inputs() -> None:
    assert ragged() == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_type": "TYPE_INT64"}, "only TYPE_INT32 and TYPE_FP32"),
        ({"data_type": "TYPE_FP32"}, "TYPE_FP32 in the configuration, TYPE_INT32 in the graph"),
        ({"target_name": ["count", "count2"]}, "one entry per target"),
        ({"target_name": ["other"]}, "the graph's inputs `count` are not in the configuration"),
        ({"source_input": ["other"]}, "`source_input`"),
        ({"kind": "BATCH_SIZE"}, "unknown kind `BATCH_SIZE`"),
    ],
)
def test_batch_inputs_are_refused(changes: dict[str, Any], words: str) -> None:
    assert [reason for reason in ragged(**changes) if words in reason]


def test_a_scattered_output_may_have_another_shape_than_the_graph() -> None:
    entry = {"kind": "BATCH_SCATTER_WITH_INPUT_SHAPE", "target_name": ["y"], "source_input": ["ids"]}
    output = {"name": "y", "data_type": "TYPE_FP32", "dims": [-1]}
    flat = GraphTensor("y", "TYPE_FP32", ("tokens",))
    assert check(config(output=[output], batch_output=[entry]), outputs=(flat,)) == []
    assert check(config(output=[output]), outputs=(flat,)) != []
    assert check(config(output=[output], batch_output=[{**entry, "source_input": ["absent"]}]), outputs=(flat,)) != []


def test_the_rules_import_no_runtime() -> None:
    """A linter must be able to use them where only the compiler is installed."""
    program = (
        "import pkgutil, sys, sie_triton.backends as package\n"
        "for module in pkgutil.walk_packages(package.__path__, 'sie_triton.backends.'): __import__(module.name)\n"
        "import sie_triton.embedded.backends.onnxruntime.refusals, sie_triton.embedded.backends.pytorch.refusals\n"
        "print([m for m in ('numpy', 'onnxruntime', 'onnx', 'torch', 'google', 'msgspec') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"
