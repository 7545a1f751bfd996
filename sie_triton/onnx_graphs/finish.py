"""From a built or traced ONNX graph to the file that the oldest supported Triton loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx

from sie_triton.onnx_graphs.packing import pack
from sie_triton.planning.plan import GraphPlan
from sie_triton.planning.tensors import ATTENTION_MASK, INPUT_IDS, SPARSE_IDS, SPARSE_WEIGHTS, Tensor

Message: TypeAlias = Any  # a NodeProto or a TensorProto: protobuf's classes carry no types

# ONNX Runtime 1.19 (Triton 24.10) reads IR versions up to 10 and opsets up to 21; newer ones read these too.
IR_VERSION = 10
OPSET = 18
# Triton's names of the element types that graphs of ours take and give.
DATATYPES = {
    "INT64": onnx.TensorProto.INT64,
    "FP32": onnx.TensorProto.FLOAT,
    "UINT8": onnx.TensorProto.UINT8,
}
# Protobuf refuses messages of 2 GiB; beyond this the weights lie beside the graph, where ONNX Runtime maps them.
EXTERNAL_DATA_BYTES = 1_500_000_000
VOCABULARY_WEIGHTS = Tensor("vocabulary_weights", "FP32", ("batch", "vocabulary"))


class ExportError(Exception):
    """The graph cannot be exported, or what came out is not what was planned."""


def raw_outputs(graph: GraphPlan) -> tuple[Tensor, ...]:
    """What the nodes must give: the planned outputs, and weights over the vocabulary where they are compacted."""
    return _wide(graph.outputs) if _compacted(graph) else graph.outputs


def save_onnx(model: onnx.ModelProto, graph: GraphPlan, path: Path, *, kept: set[str], packing: bool) -> float | None:
    """Finish `model` and write `path`; equal graphs give equal bytes. Raises `ExportError`.

    The model gives `raw_outputs` and has inferred shapes; `kept` are the initializers that are the checkpoint's tensors
    and keep their names. With `packing`, padding is computed only where tokens meet, if the graph is of that kind: then
    the cost of a padded position comes back, as `packing.pack` tells it.
    """
    padding_cost = pack(model, INPUT_IDS, ATTENTION_MASK) if packing else None
    _normalize(model, replace(graph, outputs=raw_outputs(graph)))
    if _compacted(graph):
        _compact(model, graph)
    _order(model.graph, kept)
    save_whole(model, path)
    return padding_cost


def save_whole(model: onnx.ModelProto, path: Path) -> None:
    """Write a finished graph, large weights beside it, and check what was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if model.ByteSize() > EXTERNAL_DATA_BYTES:
        onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024)
    else:
        path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))


def _compacted(graph: GraphPlan) -> bool:
    return any(head.compacted for head in graph.heads)


def _wide(outputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The outputs as the module gives them: one vocabulary-wide tensor in place of ids and weights."""
    traced = (VOCABULARY_WEIGHTS if tensor.name == SPARSE_IDS else tensor for tensor in outputs)
    return tuple(tensor for tensor in traced if tensor.name != SPARSE_WEIGHTS)


def _compact(model: onnx.ModelProto, graph: GraphPlan) -> None:
    """Vocabulary-wide weights to ids and weights, exactly: as many of the largest as the fullest row has above zero.

    The tracer cannot express a `k` that the data decide, so these nodes are added by hand.
    """
    node, weights = onnx.helper.make_node, VOCABULARY_WEIGHTS.name
    constants = {
        "compact_zero": np.zeros((), np.float32),
        "compact_row": np.ones(1, np.int64),
        "compact_one": np.ones((), np.int64),
    }
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, name) for name, v in constants.items())
    model.graph.node.extend(
        [
            node("Greater", [weights, "compact_zero"], ["compact_positive"]),
            node("Cast", ["compact_positive"], ["compact_counted"], to=onnx.TensorProto.INT64),
            node("ReduceSum", ["compact_counted", "compact_row"], ["compact_per_row"], keepdims=0),
            node("ReduceMax", ["compact_per_row"], ["compact_fullest"], keepdims=0),
            # An empty row still gives one column: tensors without elements are trouble on the way.
            node("Max", ["compact_fullest", "compact_one"], ["compact_k"]),
            node("Reshape", ["compact_k", "compact_row"], ["compact_terms"]),
            node("TopK", [weights, "compact_terms"], [SPARSE_WEIGHTS, SPARSE_IDS], axis=1),
        ]
    )
    del model.graph.output[:]
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(tensor.name, DATATYPES[tensor.datatype], list(tensor.axes))
        for tensor in graph.outputs
    )


def _order(graph: onnx.GraphProto, kept: set[str]) -> None:
    """Nodes in the order in which the outputs need them, values named by that order, initializers by their first use.

    transformers makes masks and rotary tables in loops over sets of strings, whose order differs between processes:
    equal graphs would come out as different bytes. Initializers that are the checkpoint's tensors (`kept`) keep their
    names.
    """
    made_by = {value: place for place, node in enumerate(graph.node) for value in node.output if value}
    order: dict[int, None] = {}
    waiting = [made_by[value.name] for value in reversed(graph.output)]
    while waiting:
        place = waiting[-1]
        needed = [made_by[name] for name in graph.node[place].input if name in made_by]
        missing = [other for other in needed if other not in order]
        if missing and place not in order:
            waiting += missing[::-1]
        else:
            order[waiting.pop()] = None
    nodes = [graph.node[place] for place in order]
    if any(attribute.type == onnx.AttributeProto.GRAPH for node in nodes for attribute in node.attribute):
        return  # a graph inside a node may use values of this one by name
    fixed = {value.name for value in (*graph.input, *graph.output)} | kept
    names: dict[str, str] = {}

    def renamed(name: str) -> str:
        if not name or name in fixed:
            return name
        return names.setdefault(name, f"value_{len(names)}")

    initializers = {tensor.name for tensor in graph.initializer}
    used: dict[str, None] = {}
    for number, node in enumerate(nodes):
        used.update(dict.fromkeys(name for name in node.input if name in initializers))
        node.name = f"{node.op_type}_{number}"
        for field in (node.input, node.output):
            field[:] = [renamed(name) for name in field]
    ordered = [_copied(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(ordered)
    # Weights stay where they are: of a large model nobody can afford them twice.
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name not in used:
            del graph.initializer[place]
    by_use = {name: place for place, name in enumerate(used)}
    graph.initializer.sort(key=lambda tensor: by_use[tensor.name])
    for tensor in graph.initializer:
        tensor.name = renamed(tensor.name)


def _copied(message: Message) -> Message:
    """A message that outlives the list it is in."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _normalize(model: onnx.ModelProto, graph: GraphPlan) -> None:
    """Fix what decides whether Triton loads the graph, and drop what differs from one machine to the next."""
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version, model.doc_string = "sie-triton", "", ""
    del model.metadata_props[:]
    # Names of Python frames and paths of this machine are of no use to a server.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    del model.graph.value_info[:]
    model.graph.name = graph.triton_model
    for values, tensors in ((model.graph.input, graph.inputs), (model.graph.output, graph.outputs)):
        if [value.name for value in values] != [tensor.name for tensor in tensors]:
            raise ExportError(
                f"`{graph.triton_model}` came out with {[v.name for v in values]}, planned {[t.name for t in tensors]}"
            )
        for value, tensor in zip(values, tensors, strict=True):
            _declare(value, tensor)


def _declare(value: onnx.ValueInfoProto, tensor: Tensor) -> None:
    """Write the planned axes into the graph: Triton compares its configuration with the declared shapes."""
    expected = DATATYPES[tensor.datatype]
    actual = value.type.tensor_type
    if actual.elem_type != expected or len(actual.shape.dim) != len(tensor.axes):
        raise ExportError(f"`{tensor.name}` came out as {onnx.helper.printable_type(value.type)}, planned {tensor}")
    for dim, axis in zip(actual.shape.dim, tensor.axes, strict=True):
        if isinstance(axis, int) and dim.HasField("dim_value") and dim.dim_value != axis:
            raise ExportError(f"`{tensor.name}` came out {dim.dim_value} wide, planned {axis}")
        dim.Clear()
        if isinstance(axis, int):
            dim.dim_value = axis
        else:
            dim.dim_param = axis
