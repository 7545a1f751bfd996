"""A float16 ONNX graph as a GPU computes it, on a CPU: every float16 tensor is rounded, and its magnitude is measured.

ONNX Runtime's CPU provider has no float16 kernels for most operators. It casts to float32 around them and drops the
casts between two of them, so that numbers which overflow on a GPU pass through unharmed. Here the casts are written
into the graph: each operator computes in float32, as kernels on a GPU accumulate; its result is measured, rounded to
float16 and cast back. Nothing is left of type float16 but the rounding itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, shape_inference
from sie_frontend.rows import Array

from sie_triton.half_precision.ranges import Ranges
from sie_triton.verify.model_runner import SPINNING, Graph, Timed

Node: TypeAlias = Any  # protobuf's classes carry no types

# Protobuf refuses messages of 2 GiB.
INLINE_BYTES = 1_500_000_000
# Operators through which a mask's far numbers reach the scores and stay what they are. Softmax ends them.
_CARRIERS = frozenset(
    {
        *("Add", "Max", "Min", "Sub", "Where"),
        *("Cast", "CastLike", "Concat", "Expand", "Identity", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"),
    }
)
# How many of an operator's inputs decide its values; the others lend their shape or their type.
_VALUES_READ: Mapping[str, int] = {"Shape": 0, "Size": 0, "CastLike": 1}


def open_rounded(ranges: Ranges, _: Any, path: Path, timed: Timed | None) -> Graph:
    """Open the float16 graph at `path`; each run notes its tensors' magnitudes in `ranges`."""
    name = path.parent.parent.name
    rounded = _Rounded(onnx.load(str(path)), _float16_values(path))
    session = _session(rounded.model, path.parent, None if timed is None else timed.threads)
    traits = rounded.traits
    peaks = {value: ranges.watch(name, value, rounded.made_by[value]) for value in rounded.watched}
    for tensor, magnitude in rounded.weights.items():
        weight = ranges.watch(name, tensor, "the checkpoint")
        weight.masking = True  # what lies in the file does not grow with another text: it must be finite
        ranges.note(weight, magnitude)
    nodes = rounded.order

    def run(inputs: Mapping[str, Array], outputs: Sequence[str]) -> Sequence[Array]:
        results = session.run([*outputs, *(_peak_name(value) for value in peaks)], dict(inputs))
        measured = dict(zip(peaks, (float(value) for value in results[len(outputs) :]), strict=True))
        for value in traits.masking(nodes, measured, ranges):
            if value in peaks:
                peaks[value].masking = True
        for value, magnitude in measured.items():
            ranges.note(peaks[value], magnitude)
        return list(results[: len(outputs)])

    return run


def _float16_values(path: Path) -> frozenset[str]:
    """The values of type float16, by inference: weights beside the file are not read for it."""
    inferred = shape_inference.infer_shapes(onnx.load(str(path), load_external_data=False)).graph
    return frozenset(
        value.name
        for value in (*inferred.value_info, *inferred.input, *inferred.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16
    )


@dataclass(slots=True)
class _Traits:
    """Which values stem from weights or states, and the single numbers among the constants."""

    data: set[str] = field(default_factory=set)
    numbers: dict[str, float] = field(default_factory=dict)

    def masking(self, nodes: Sequence[Node], measured: Mapping[str, float], ranges: Ranges) -> set[str]:
        """The values that hold a mask's far numbers, given all magnitudes: on their own or added to scores.

        A mask is computed from inputs and single numbers; whatever has seen a weight or a state is data.
        """
        far = {name for name, number in self.numbers.items() if ranges.far_out(number)}
        for node in nodes:
            carried = node.op_type in _CARRIERS and any(name in far for name in node.input)
            for name in node.output:
                of_mask = name not in self.data and ranges.far_out(measured.get(name, 0.0))
                if carried or of_mask:
                    far.add(name)
        return far


class _Rounded:
    """The graph rewritten. `watched` are its float16 values in their order, `made_by` tells of each one's node."""

    def __init__(self, model: onnx.ModelProto, float16: frozenset[str]) -> None:
        self.model = model
        self.order: list[Node] = list(model.graph.node)
        self.traits = _traits(model.graph)
        self.made_by: dict[str, str] = {}
        self.weights: dict[str, float] = {}
        self.watched: list[str] = []
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT16:
                self.weights[tensor.name] = float(np.max(np.abs(numpy_helper.to_array(tensor)), initial=0))
                tensor.CopyFrom(_widened(tensor))
        self._rewrite(float16)

    def _rewrite(self, float16: frozenset[str]) -> None:
        graph = self.model.graph
        nodes = []
        seen_weight = ""
        kept = {tensor.name for tensor in graph.initializer}
        # Names that the exporter gives carry no meaning; the checkpoint's do.
        named = {name for name in kept if "." in name}
        for node in self.order:
            _widen_attributes(node)
            seen_weight = next((name for name in node.input if name in named), seen_weight)
            half = [name for name in node.output if name in float16]
            nodes.append(_with_raw_outputs(node, half))
            for name in half:
                self.watched.append(name)
                self.made_by[name] = f"`{node.name or node.op_type}`" + (
                    f" behind `{seen_weight}`" if seen_weight else ""
                )
                nodes += _observed(name)
        for name in self.watched:
            graph.output.append(helper.make_tensor_value_info(_peak_name(name), TensorProto.FLOAT, []))
        del graph.node[:]
        graph.node.extend(nodes)
        del graph.value_info[:]


def _traits(graph: onnx.GraphProto) -> _Traits:
    traits = _Traits()
    for tensor in graph.initializer:
        if tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16):
            if int(np.prod(tensor.dims)) == 1:
                traits.numbers[tensor.name] = float(np.abs(numpy_helper.to_array(tensor)).max())
            else:
                traits.data.add(tensor.name)
    integers = (TensorProto.INT64, TensorProto.INT32)
    traits.data.update(v.name for v in graph.input if v.type.tensor_type.elem_type not in integers)
    for node in graph.node:
        read = node.input[: _VALUES_READ.get(node.op_type)]
        if any(name in traits.data for name in read):
            traits.data.update(node.output)
    return traits


def _widened(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


def _widen_attributes(node: Node) -> None:
    """float32 in place of float16 wherever a node names the type."""
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
            attribute.i = TensorProto.FLOAT
        elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
            attribute.t.CopyFrom(_widened(attribute.t))


def _with_raw_outputs(node: Node, half: Sequence[str]) -> Node:
    changed = type(node)()
    changed.CopyFrom(node)
    changed.output[:] = [_raw_name(name) if name in half else name for name in node.output]
    return changed


def _observed(name: str) -> Iterator[Node]:
    """Measure a result before it is rounded, so that what overflows is still a number; then round it."""
    raw, magnitudes, half = _raw_name(name), f"{name}:magnitudes", f"{name}:half"
    yield helper.make_node("Abs", [raw], [magnitudes])
    yield helper.make_node("ReduceMax", [magnitudes], [_peak_name(name)], keepdims=0)
    yield helper.make_node("Cast", [raw], [half], to=TensorProto.FLOAT16)
    yield helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT)


def _raw_name(name: str) -> str:
    return f"{name}:raw"


def _peak_name(name: str) -> str:
    return f"{name}:peak"


def _session(model: onnx.ModelProto, folder: Path, threads: int | None) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry(SPINNING, "0")
    # Nothing is fused, and no pair of casts is optimized away.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if threads is not None:
        options.intra_op_num_threads = threads
    providers = ["CPUExecutionProvider"]
    if model.ByteSize() <= INLINE_BYTES:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place) / "rounded.onnx"
        onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=1024)
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
