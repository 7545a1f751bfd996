"""Rules on one configuration: names, tensors, sequences, variants."""

from __future__ import annotations

from onnx import TensorProto, helper

from lint.builders import ENSEMBLE, identity_config, identity_graph, model, replaced, tensor
from lint.builds import Build, copies, foreign, variant
from lint.configs import PYTHON_MODEL, group, with_w
from lint.graphs import added

from .case import GPU, Case, texts


def sequence(values: str) -> Build:
    """A sequence model with a start flag."""
    control = f"control [ {{ kind: CONTROL_SEQUENCE_START {values} }} ]"
    graph = model(
        [tensor("x", ["b", 4]), tensor("start", ["b", 1], TensorProto.INT32)],
        [tensor("y", ["b", 4])],
        [helper.make_node("Identity", ["x"], ["y"])],
    )
    more = f'sequence_batching {{ control_input [ {{ name: "start" {control} }} ] }}'
    return copies(identity_config(more=more), graph)


def sequences(*controls: str) -> Build:
    """A Python model with these sequence controls."""
    body = ", ".join(f'{{ name: "c{index}" control [ {{ {text} }} ] }}' for index, text in enumerate(controls))
    text = identity_config(
        backend='backend: "python"', parameters="", more=f"sequence_batching {{ control_input [ {body} ] }}"
    )
    return lambda r: r.add("copy", text, files={"1/model.py": PYTHON_MODEL})


START = "kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ]"
END = "kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ]"


def correlation(data_type: str) -> str:
    return f"kind: CONTROL_SEQUENCE_CORRID {data_type}"


CASES: dict[str, Case] = {
    "L101": texts(identity_config(more="max_batchsize: 4"), line=8),
    "L102": Case(
        lambda r: r.reference(ensemble=replaced(ENSEMBLE, "step [", "max_inflight_requests: 4 step [")),
        lambda r: r.reference(ensemble=replaced(ENSEMBLE, "step [", "max_inflight_requests: 4 step [")),
        triton="25.10",
        good_triton="25.11",
    ),
    "L103": texts(identity_config(backend='backend: "onnxruntime" platform: "pytorch_libtorch"'), line=2),
    "L104": texts(identity_config("kopie"), line=1),
    "L105": texts(identity_config("acme/copy"), line=1),
    "L106": texts(
        identity_config(max_batch_size=None, dims="[ -1, 4 ]"), identity_config(max_batch_size=0, dims="[ -1, 4 ]")
    ),
    "L107": texts(identity_config(max_batch_size=-1), line=3),
    "L108": texts(replaced(identity_config(), "data_type: TYPE_FP32 ", ""), line=4),
    "L109": texts(identity_config(dims="[ 0 ]"), line=4),
    "L110": texts(
        identity_config(more_input="reshape { shape: [ 3 ] }"), identity_config(more_input="reshape { shape: [ 4 ] }")
    ),
    "L111": texts(identity_config(more='input { name: "x" data_type: TYPE_FP32 dims: 4 }'), line=8),
    "L112": texts(identity_config(more_input="format: FORMAT_NCHW")),
    "L113": texts(identity_config(more_input="is_shape_tensor: true")),
    "L114": Case(
        copies(identity_config(data_type="TYPE_BF16"), identity_graph(kind=TensorProto.BFLOAT16)),
        copies(identity_config(data_type="TYPE_BF16"), identity_graph(kind=TensorProto.BFLOAT16)),
        triton="26.02",
        good_triton="26.03",
    ),
    "L115": texts('name: "copy"\nbackend: "onnxruntime"\nmax_batch_size: 8\n'),
    "L116": texts(
        identity_config(more="response_cache { enable: true } model_transaction_policy { decoupled: true }"),
        identity_config(more="response_cache { enable: true }"),
    ),
    "L118": Case(
        copies(identity_config(data_type="TYPE_STRING"), identity_graph(kind=TensorProto.STRING)),
        copies(identity_config()),
    ),
    "L119": Case(
        copies(with_w("optional: true"), added()),
        copies(with_w("optional: true", batching=False), added()),
        line=8,
    ),
    "L120": Case(sequence("int32_false_true: [ 0 ]"), sequence("int32_false_true: [ 0, 1 ]")),
    "L121": Case(
        variant(identity_config(), replaced(identity_config(), "TYPE_FP32", "TYPE_FP16")),
        variant(identity_config(), group("kind: KIND_GPU count: 1")),
        machine=GPU,
        line=4,
    ),
    "L122": Case(sequences(START, START), sequences(START, END)),
    "L123": Case(sequences(correlation("data_type: TYPE_FP32")), sequences(correlation("data_type: TYPE_STRING"))),
    "L124": Case(
        foreign(identity_config(backend='backend: "onnxrutime"', parameters=""), "model.onnx"),
        foreign(identity_config(backend='backend: "mine"', parameters=""), "libtriton_mine.so"),
        line=2,
    ),
}
