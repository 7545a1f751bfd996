"""Builds one ONNX graph, operator by operator. Values are names; shapes are batch first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import helper, numpy_helper

from sie_triton.formats import Precision
from sie_triton.onnx_graphs.declined import Declined
from sie_triton.onnx_graphs.finish import DATATYPES, OPSET
from sie_triton.onnx_graphs.tensors import CheckpointTensors
from sie_triton.planning.tensors import Tensor

Value: TypeAlias = str
Array: TypeAlias = NDArray[Any]

_NUMPY: Final[dict[Precision, DTypeLike]] = {"float32": np.float32, "float16": np.float16}
_ONNX: Final[dict[Precision, int]] = {"float32": onnx.TensorProto.FLOAT, "float16": onnx.TensorProto.FLOAT16}
# transformers' names of activations and torch's, which take no argument.
ACTIVATIONS: Final = {
    "gelu": "gelu",
    "GELU": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "identity": "identity",
    "linear": "identity",
    "quick_gelu": "quick_gelu",
    "Identity": "identity",
    "relu": "Relu",
    "ReLU": "Relu",
    "sigmoid": "Sigmoid",
    "Sigmoid": "Sigmoid",
    "silu": "silu",
    "swish": "silu",
    "SiLU": "silu",
    "tanh": "Tanh",
    "Tanh": "Tanh",
}


class GraphBuilder:
    """Nodes and initializers of one graph. `precision` is that of the transformer; what is small beside it is float32.

    A weight is an initializer under its name in the checkpoint.
    """

    def __init__(self, tensors: CheckpointTensors, precision: Precision = "float32") -> None:
        if precision not in _NUMPY:
            raise Declined(f"graphs in {precision} are not written")
        self.tensors = tensors
        self.precision: Precision = precision
        self._nodes: list[Any] = []
        self._initializers: dict[str, Any] = {}
        self._kept: set[str] = set()
        self._known: list[Any] = []

    # --- constants and weights ---

    def constant(self, value: Array) -> Value:
        """An array as it is; equal arrays are one initializer."""
        told = value.tobytes().hex() if value.size <= 16 else len(self._initializers)
        name = f"constant_{value.dtype}_{list(value.shape)}_{told}"
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def ints(self, *values: int) -> Value:
        """`[n]`, int64."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: float, like: Precision = "float32") -> Value:
        """A scalar."""
        return self.constant(np.array(value, _NUMPY[like]))

    def body_number(self, value: float) -> Value:
        """A scalar in the transformer's precision."""
        return self.number(value, self.precision)

    def weight(self, name: str, shape: Sequence[int] | None = None, *, precision: Precision | None = None) -> Value:
        """A tensor of the checkpoint. Raises `Declined` where it has none, or none of this shape."""
        return self._own(name, lambda: self.tensors.read(name, shape), precision)

    def _own(self, name: str, read: Any, precision: Precision | None) -> Value:
        precision = precision or self.precision
        # A head beside a body of half precision has the same tensor in float32.
        key = name if precision == self.precision else f"{name}.{precision}"
        if key not in self._initializers:
            # What has no place in half precision becomes infinite, and is found when the graph is measured.
            with np.errstate(over="ignore"):
                array = np.asarray(read(), dtype=_NUMPY[precision], order="C")
            self._initializers[key] = numpy_helper.from_array(array, key)
            self._kept.add(key)
        return key

    def given(self, name: str, array: Array, precision: Precision = "float32") -> Value:
        """An array of the checkpoint that is in a file of its own, or was made of its tensors, under a name of ours."""
        return self._own(name, lambda: array, precision)

    # --- operators ---

    def op(self, op_type: str, *inputs: Value, **attributes: Any) -> Value:
        """A node with one output."""
        return self.ops(op_type, *inputs, outputs=1, **attributes)[0]

    def ops(self, op_type: str, *inputs: Value, outputs: int, **attributes: Any) -> list[Value]:
        """A node with several outputs."""
        names = [f"{op_type}_{len(self._nodes)}_{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(op_type, list(inputs), names, **attributes))
        return names

    def cast(self, value: Value, precision: Precision) -> Value:
        """To a precision."""
        return self.op("Cast", value, to=_ONNX[precision])

    def to_body(self, value: Value) -> Value:
        """float32 states in the transformer's precision."""
        return value if self.precision == "float32" else self.cast(value, self.precision)

    def from_body(self, value: Value) -> Value:
        """States of the transformer in float32."""
        return value if self.precision == "float32" else self.cast(value, "float32")

    def linear(
        self,
        value: Value,
        name: str,
        *,
        bias: bool = True,
        shape: Sequence[int] | None = None,
        precision: Precision | None = None,
    ) -> Value:
        """`value` times the checkpoint's weight `[out, in]`, plus its bias `[out]`; `name` is without the last part."""
        product = self.op("MatMul", value, self.transposed(name, shape, precision))
        return self.op("Add", product, self.weight(f"{name}.bias", precision=precision)) if bias else product

    def transposed(self, name: str, shape: Sequence[int] | None = None, precision: Precision | None = None) -> Value:
        """The weight of a linear layer, `[out, in]` in the checkpoint, as `[in, out]`."""
        found = f"{name}.weight"
        return self._own(found, lambda: self.tensors.read(found, shape).T, precision)

    def layer_norm(
        self, value: Value, name: str, eps: float, *, bias: bool = True, precision: Precision | None = None
    ) -> Value:
        """Layer norm over the last axis, with the checkpoint's scale and bias."""
        scale = self.weight(f"{name}.weight", precision=precision)
        shift = [self.weight(f"{name}.bias", precision=precision)] if bias else []
        return self.op("LayerNormalization", value, scale, *shift, axis=-1, epsilon=eps)

    def activation(self, value: Value, name: str, precision: Precision | None = None) -> Value:
        """An activation by transformers' name or torch's. Raises `Declined` for one that is not written here."""
        kind = ACTIVATIONS.get(name)
        precision = precision or self.precision
        if kind == "identity":
            return value
        if kind == "silu":
            return self.op("Mul", value, self.op("Sigmoid", value))
        if kind == "quick_gelu":
            return self.op("Mul", value, self.op("Sigmoid", self.op("Mul", value, self.number(1.702, precision))))
        if kind == "gelu":
            return self._gelu(value, precision)
        if kind == "gelu_tanh":
            return self._gelu_tanh(value, precision)
        if kind is None:
            raise Declined(f"the activation `{name}` is not written")
        return self.op(kind, value)

    def _gelu(self, value: Value, precision: Precision) -> Value:
        """x/2 (1 + erf(x/√2)), in the nodes that runtimes fuse."""
        inner = self.op("Erf", self.op("Div", value, self.number(float(np.sqrt(2)), precision)))
        grown = self.op("Mul", value, self.op("Add", inner, self.number(1, precision)))
        return self.op("Mul", grown, self.number(0.5, precision))

    def _gelu_tanh(self, value: Value, precision: Precision) -> Value:
        """x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))."""
        cube = self.op("Mul", self.op("Mul", value, value), value)
        inner = self.op("Add", value, self.op("Mul", cube, self.number(0.044715, precision)))
        tanh = self.op("Tanh", self.op("Mul", inner, self.number(float(np.sqrt(2 / np.pi)), precision)))
        grown = self.op("Mul", value, self.op("Add", tanh, self.number(1, precision)))
        return self.op("Mul", grown, self.number(0.5, precision))

    def positions(self, ids: Value) -> Value:
        """0, 1, 2 … as many as a row has places: `[sequence]`, int64."""
        length = self.op("Gather", self.op("Shape", ids), self.constant(np.array(1, np.int64)), axis=0)
        zero, one = (self.constant(np.array(number, np.int64)) for number in (0, 1))
        places = self.op("Range", zero, length, one)
        # Inference cannot know that a length is that of a row.
        self._known.append(helper.make_tensor_value_info(places, onnx.TensorProto.INT64, ["sequence"]))
        return places

    def known(self, value: Value, *axes: int | str) -> Value:
        """A value in the transformer's precision, with a shape that inference cannot know."""
        self._known.append(helper.make_tensor_value_info(value, _ONNX[self.precision], list(axes)))
        return value

    # --- the graph ---

    def finish(
        self, name: str, inputs: Sequence[Tensor], outputs: Sequence[tuple[Value, Tensor]]
    ) -> tuple[onnx.ModelProto, set[str]]:
        """The model with inferred shapes, and the names of initializers that are the checkpoint's.

        Raises `Declined` where shapes contradict each other, or the planned outputs.
        """
        for value, tensor in outputs:
            # A value may be another output's too, and an output has its own name.
            self._nodes.append(helper.make_node("Identity", [value], [tensor.name]))
        graph = helper.make_graph(
            self._nodes, name, [_declared(t) for t in inputs], [_declared(t) for _, t in outputs], []
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        self._infer(model)
        model.graph.initializer.extend(self._initializers.values())
        # They were copied, and of a large model nobody can afford them twice.
        self._initializers.clear()
        return model, self._kept

    def _infer(self, model: onnx.ModelProto) -> None:
        """Add what shapes can be inferred. Large weights stand as inputs for it, so that nobody copies them."""
        bare = onnx.ModelProto()
        bare.CopyFrom(model)
        bare.graph.value_info.extend(self._known)
        for tensor in self._initializers.values():
            if int(np.prod(tensor.dims)) <= 64:
                bare.graph.initializer.append(tensor)
            else:
                bare.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        try:
            inferred = onnx.shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
        except onnx.shape_inference.InferenceError as error:
            raise Declined(f"its tensors do not fit together: {str(error).strip().splitlines()[-1]}") from error
        model.graph.value_info.extend(inferred.graph.value_info)


def _declared(tensor: Tensor) -> Any:
    return helper.make_tensor_value_info(tensor.name, DATATYPES[tensor.datatype], list(tensor.axes))
