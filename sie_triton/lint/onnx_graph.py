"""The signature of an ONNX file, read without its weights and without running it."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sie_triton.backends.onnxruntime.operators import MICROSOFT_DOMAIN, ML_DOMAIN, STANDARD_DOMAINS
from sie_triton.backends.onnxruntime.signature import GraphTensor
from sie_triton.backends.onnxruntime.types import BY_NUMBER

MAX_PROTOBUF_BYTES = 2**31 - 1
"""Protobuf's limit for one message, hence for one `.onnx` file without external data."""

_SHAPE_DATA_BYTES = 1024  # initializers above this are weights, which shape inference never reads

_FLOATS = frozenset({"TYPE_FP16", "TYPE_BF16", "TYPE_FP32", "TYPE_FP64"})
_CONSTANTS = ("Constant", "ConstantOfShape")
_CONSTANT_ELEMENTS = 256
# From here on an initializer that is also a graph input is a default that callers may override.
_OVERRIDABLE_SINCE = 4


class OnnxGraphError(Exception):
    """The file is no ONNX model that can be read."""


@dataclass(frozen=True, slots=True)
class ExternalTensor:
    """A tensor whose bytes lie in another file: from `offset` on, `length` of them (0: not written), `needed` by shape.

    `needed` is None for element types whose size is not known.
    """

    name: str
    location: str
    offset: int
    length: int
    needed: int | None


def can_open() -> bool:
    """Whether the `onnx` package, which reads graphs, is installed."""
    return importlib.util.find_spec("onnx") is not None


class OnnxGraph:
    """An ONNX file's signature. `inputs` leaves out initializers that callers may override (`overridable`).

    `weights_type` is the floating-point type that most of the weights have; "" where there are none.
    """

    def __init__(self, path: Path, model: Any) -> None:
        self.path = path
        self._model = model
        graph = model.graph
        initializers = {str(i.name) for i in graph.initializer}
        declared = [_tensor(value) for value in graph.input]
        self.inputs = {t.name: t for t in declared if t.name not in initializers}
        self.initializers = frozenset(initializers)
        overridable = initializers if int(model.ir_version) >= _OVERRIDABLE_SINCE else set()
        self.overridable = {t.name: t for t in declared if t.name in overridable}
        self.declared_outputs = {t.name: t for t in map(_tensor, graph.output)}
        self.ir_version = int(model.ir_version)
        self.opset = max((int(o.version) for o in model.opset_import if o.domain in STANDARD_DOMAINS), default=0)
        self.ml_opset = max((int(o.version) for o in model.opset_import if o.domain == ML_DOMAIN), default=0)
        self.custom_operators = tuple(
            sorted({f"{node.domain}.{node.op_type}" for node in graph.node if node.domain not in STANDARD_DOMAINS})
        )
        sizes: dict[str, int] = {}
        for i in graph.initializer:
            data_type = BY_NUMBER.get(i.data_type, "")
            sizes[data_type] = sizes.get(data_type, 0) + math.prod(i.dims)
        self.weights_type = max(_FLOATS, key=lambda name: sizes.get(name, 0)) if _FLOATS & set(sizes) else ""

    @property
    def external_files(self) -> tuple[str, ...]:
        """Where the external tensors lie, relative to the graph's folder."""
        return tuple(sorted({t.location for t in self.external_tensors if t.location}))

    @cached_property
    def external_tensors(self) -> tuple[ExternalTensor, ...]:
        """Every tensor of the graph, of its nodes and of the bodies inside them, that lies in another file."""
        return tuple(_external(t) for t in self._tensors() if t.data_location == 1)  # TensorProto.EXTERNAL

    @cached_property
    def operators(self) -> frozenset[tuple[str, str]]:
        """(domain, type) of all nodes, also inside of loops and branches, without the file's own functions."""
        functions = {(str(f.domain), str(f.name)) for f in self._model.functions}
        return frozenset((str(node.domain), str(node.op_type)) for node in self._nodes()) - functions

    @cached_property
    def block_bits(self) -> frozenset[int]:
        """How many bits the weights of its `MatMulNBits` nodes have."""
        nodes = (node for node in self._nodes() if (node.domain, node.op_type) == (MICROSOFT_DOMAIN, "MatMulNBits"))
        return frozenset(next((int(a.i) for a in node.attribute if a.name == "bits"), 4) for node in nodes)

    def _nodes(self) -> Iterator[Any]:
        pending = [*self._model.graph.node, *(node for f in self._model.functions for node in f.node)]
        while pending:
            node = pending.pop()
            yield node
            for attribute in node.attribute:
                for graph in (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ())):
                    pending += graph.node

    def _tensors(self) -> Iterator[Any]:
        graphs = [self._model.graph]
        for node in self._nodes():
            for attribute in node.attribute:
                yield from (*attribute.tensors, *((attribute.t,) if attribute.HasField("t") else ()))
                graphs += (*attribute.graphs, *((attribute.g,) if attribute.HasField("g") else ()))
        for graph in graphs:
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)

    @classmethod
    def open(cls, path: Path) -> OnnxGraph:
        """Read `path` without external weights.

        Raises:
            OnnxGraphError: the file is unreadable, larger than protobuf allows, or no ONNX model.
        """
        import onnx
        from google.protobuf.message import DecodeError

        try:
            size = path.stat().st_size
            if size > MAX_PROTOBUF_BYTES:
                raise OnnxGraphError(f"the file has {size} bytes, more than the 2 GiB that protobuf can read")
            model = onnx.load(path, load_external_data=False)
        except (OSError, DecodeError, ValueError, RuntimeError) as error:
            raise OnnxGraphError(f"the file cannot be read as ONNX: {error}") from error
        if not model.graph.node and not model.graph.input:
            raise OnnxGraphError("the file cannot be read as ONNX: it holds an empty graph")
        return cls(path, model)

    @cached_property
    def largest_constant(self) -> float:
        """The largest finite magnitude among the small float32 constants, such as masks; 0 without any."""
        import numpy as np
        from onnx import TensorProto, numpy_helper

        tensors = [i for i in self._model.graph.initializer if i.data_location != TensorProto.EXTERNAL]
        for node in self._model.graph.node:
            tensors += [a.t for a in node.attribute if node.op_type in _CONSTANTS and a.name == "value"]
        small = [t for t in tensors if t.data_type == TensorProto.FLOAT and math.prod(t.dims) <= _CONSTANT_ELEMENTS]
        arrays = [np.abs(numpy_helper.to_array(t)) for t in small]
        return max((float(np.max(a, where=np.isfinite(a), initial=0.0)) for a in arrays), default=0.0)

    @cached_property
    def outputs(self) -> dict[str, GraphTensor]:
        """Outputs with the dims that shape inference can add, as ONNX Runtime's loader does.

        Runs inference only where a declaration leaves something open beyond the first (batch) dimension.
        """
        if all(t.kind != "tensor" or (t.dims and -1 not in t.dims[1:]) for t in self.declared_outputs.values()):
            return self.declared_outputs
        import onnx

        for initializer in self._model.graph.initializer:
            if len(initializer.raw_data) > _SHAPE_DATA_BYTES:
                initializer.ClearField("raw_data")
        try:
            inferred = onnx.shape_inference.infer_shapes(self._model, data_prop=True)
        except (RuntimeError, ValueError):  # InferenceError is a RuntimeError: keep what is declared
            return self.declared_outputs
        return {t.name: t for t in map(_tensor, inferred.graph.output)}


def _external(tensor: Any) -> ExternalTensor:
    from onnx import helper

    entries = {str(e.key): str(e.value) for e in tensor.external_data}

    def number(key: str) -> int:
        text = entries.get(key, "0")
        return int(text) if text.isascii() and text.isdigit() else 0

    try:
        size = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, ValueError, TypeError):
        size = 0
    # Types of less than a byte share bytes; numpy has no such types, so what numpy says of them does not count.
    whole = size if tensor.data_type in BY_NUMBER else 0
    needed = math.prod(tensor.dims) * whole if whole else None
    return ExternalTensor(str(tensor.name), entries.get("location", ""), number("offset"), number("length"), needed)


def _tensor(value: Any) -> GraphTensor:
    kind = value.type.WhichOneof("value") or "untyped"
    if kind != "tensor_type":
        return GraphTensor(str(value.name), "", None, kind=kind.removesuffix("_type"))
    tensor = value.type.tensor_type
    data_type = BY_NUMBER.get(tensor.elem_type, f"ONNX type {tensor.elem_type}")
    shape = tuple(_dim(d) for d in tensor.shape.dim) if tensor.HasField("shape") else None
    return GraphTensor(str(value.name), data_type, shape)


def _dim(dim: Any) -> int | str | None:
    """A number, or a symbol or None where there is none."""
    return int(dim.dim_value) if dim.HasField("dim_value") else str(dim.dim_param) or None
