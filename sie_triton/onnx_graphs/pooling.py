"""Between a transformer and its outputs: poolings, unit length, and layers that a checkpoint keeps in files. float32.

Shapes are batch first. Which positions are padding the mask says, and nothing else: rows may be padded on either side.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sie_triton.checkpoint import load_tensors
from sie_triton.facts import DenseLayer, Layer, LayerNormLayer, NormalizeLayer
from sie_triton.onnx_graphs.builder import GraphBuilder, Value
from sie_triton.onnx_graphs.declined import Declined

# torch.nn.functional.normalize's own epsilon; SIE and sentence-transformers use the same.
NORMALIZE_EPS = 1e-12
# What sentence-transformers divides by where no token is attended to.
POOLING_EPS = 1e-9
# torch.nn.LayerNorm's own.
NORM_EPS = 1e-5


def pool(b: GraphBuilder, states: Value, mask: Value, pooling: str) -> Value:
    """Token embeddings `[batch, sequence, hidden]` to `[batch, hidden]`; special tokens count in the mean."""
    if pooling == "cls":
        return first_state(b, states, mask)
    if pooling == "last_token":
        return last_state(b, states, mask)
    weights = b.op("Unsqueeze", b.cast(mask, "float32"), b.ints(2))
    if pooling == "max":
        attended = b.op("Greater", weights, b.number(0))
        least = b.number(float(np.finfo(np.float32).min))
        return b.op("ReduceMax", b.op("Where", attended, states, least), b.ints(1), keepdims=0)
    if pooling == "weightedmean":
        # The first attended token weighs one, the next two, wherever the padding is.
        weights = b.op("Mul", weights, b.op("CumSum", weights, b.constant(np.array(1, np.int64))))
    elif pooling not in ("mean", "mean_sqrt_len"):
        raise Declined(f"the pooling `{pooling}` is not written")
    total = b.op("ReduceSum", b.op("Mul", states, weights), b.ints(1), keepdims=0)
    count = b.op("Max", b.op("ReduceSum", weights, b.ints(1), keepdims=0), b.number(POOLING_EPS))
    return b.op("Div", total, b.op("Sqrt", count) if pooling == "mean_sqrt_len" else count)


def last_state(b: GraphBuilder, states: Value, mask: Value) -> Value:
    """The states of each row's last attended token, `[batch, hidden]`; the first position's if there is none."""
    attended = b.op("Mul", mask, b.positions(mask))
    return _states_at(b, states, b.op("ReduceMax", attended, b.ints(1), keepdims=1))


def first_state(b: GraphBuilder, states: Value, mask: Value) -> Value:
    """The states of each row's first attended token, `[batch, hidden]`; the last position's if there is none."""
    last = b.op("Sub", b.op("Gather", b.op("Shape", mask), b.ints(1), axis=0), b.ints(1))
    from_the_end = b.op("Mul", mask, b.op("Sub", last, b.positions(mask)))
    furthest = b.op("ReduceMax", from_the_end, b.ints(1), keepdims=1)
    return _states_at(b, states, b.op("Sub", last, furthest))


def _states_at(b: GraphBuilder, states: Value, places: Value) -> Value:
    """One position of each row; `places` `[batch, 1]`."""
    return b.op("GatherND", states, places, batch_dims=1)


def normalized(b: GraphBuilder, vectors: Value) -> Value:
    """L2 over the last axis; a zero vector stays zero."""
    length = b.op("ReduceL2", vectors, b.ints(-1), keepdims=1)
    return b.op("Div", vectors, b.op("Max", length, b.number(NORMALIZE_EPS)))


def layer(b: GraphBuilder, vectors: Value, folder: Path, described: Layer) -> Value:
    """A layer of a sentence-transformers or PyLate pipeline, with its weights. Raises `Declined`."""
    match described:
        case DenseLayer():
            return _dense(b, vectors, folder, described)
        case LayerNormLayer():
            name, tensors = described.folder, load_tensors(folder / described.folder / "model.safetensors")
            scale, shift = (b.given(f"{name}.{part}", tensors[f"norm.{part}"]) for part in ("weight", "bias"))
            return b.op("LayerNormalization", vectors, scale, shift, axis=-1, epsilon=NORM_EPS)
        case NormalizeLayer():
            return normalized(b, vectors)


def _dense(b: GraphBuilder, vectors: Value, folder: Path, described: DenseLayer) -> Value:
    """`activation(linear(x))`, plus the input where it is a residual layer."""
    name, tensors = described.folder, load_tensors(folder / described.folder / "model.safetensors")
    product = b.op("MatMul", vectors, b.given(f"{name}.weight", tensors["linear.weight"].T))
    if "linear.bias" in tensors:
        product = b.op("Add", product, b.given(f"{name}.bias", tensors["linear.bias"]))
    grown = b.activation(product, described.activation, "float32")
    if not described.residual:
        return grown
    if "residual.weight" in tensors:
        vectors = b.op("MatMul", vectors, b.given(f"{name}.residual", tensors["residual.weight"].T))
    return b.op("Add", grown, vectors)


def linear_file(b: GraphBuilder, vectors: Value, folder: Path, name: str) -> Value:
    """A head in a file of its own, with `weight` and `bias`. Raises `Declined` if it is not in safetensors."""
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        raise Declined(f"`{name}` is not in safetensors")
    tensors = load_tensors(path)
    product = b.op("MatMul", vectors, b.given(f"{name}.weight", tensors["weight"].T))
    return b.op("Add", product, b.given(f"{name}.bias", tensors["bias"])) if "bias" in tensors else product
