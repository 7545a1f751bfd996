"""Small ONNX graphs and model repositories for this family's tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, FLOAT16, BOOL = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BOOL
INT32, INT64 = TensorProto.INT32, TensorProto.INT64

Tensor = tuple[str, int, Sequence[int | str]]


def graph(
    nodes: Sequence[
        tuple[str, Sequence[str], Sequence[str]] | tuple[str, Sequence[str], Sequence[str], dict[str, Any]]
    ],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    constants: dict[str, Any] | None = None,
    *,
    ir_version: int = 8,
    opset: int = 17,
) -> Any:
    """An ONNX model from `(operator, inputs, outputs[, attributes])` nodes and `(name, type, shape)` tensors."""
    made = [helper.make_node(node[0], node[1], node[2], **(node[3] if len(node) == 4 else {})) for node in nodes]
    return helper.make_model(
        helper.make_graph(
            made,
            "test",
            [helper.make_tensor_value_info(*tensor) for tensor in inputs],
            [helper.make_tensor_value_info(*tensor) for tensor in outputs],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=ir_version,
    )


def doubling(datatype: int = FLOAT, shape: Sequence[int | str] = ("batch", "length"), **versions: Any) -> Any:
    """`y = x + x`."""
    return graph([("Add", ["x", "x"], ["y"])], [("x", datatype, shape)], [("y", datatype, shape)], **versions)


def add_model(repository: Path, name: str, config: str, model: Any = None, filename: str = "model.onnx") -> None:
    """Write a model's folder. `model` is an ONNX model, raw bytes, or None for a version folder without a file."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(config)
    if isinstance(model, bytes):
        (version / filename).write_bytes(model)
    elif model is not None:
        onnx.save(model, version / filename)


def onnx_config(inputs: str, outputs: str, rest: str = "", *, rows: int = 8) -> str:
    """A config.pbtxt for the `onnxruntime` backend; `inputs` and `outputs` are bodies of their lists."""
    return f"""
        backend: "onnxruntime"
        max_batch_size: {rows}
        input [ {inputs} ]
        output [ {outputs} ]
        instance_group [ {{ kind: KIND_CPU count: 1 }} ]
        {rest}
    """


DOUBLING_CONFIG = onnx_config(
    '{ name: "x" data_type: TYPE_FP32 dims: [ -1 ] }', '{ name: "y" data_type: TYPE_FP32 dims: [ -1 ] }'
)
