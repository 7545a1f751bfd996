"""The graph formats that Triton serves, a row each; a new one also needs a writer in `export` and a runtime in
`model_runner`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Format = Literal["onnx", "torchscript"]
Precision = Literal["float32", "float16", "bfloat16"]
Device = Literal["cpu", "cuda"]

DEFAULT_FORMAT: Format = "onnx"
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "bfloat16")
DEVICES: tuple[Device, ...] = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class GraphFormat:
    """How Triton knows a format: its backend, its file, and how a graph's tensors are called.

    `precisions` are those that a graph can have inside. `indexed_names`: the backend finds tensors by the position that
    their name ends with, `NAME__INDEX`, so that only an ensemble can give them their public names. `packs`: whether
    graphs for CPUs can compute padding only where tokens meet. `accelerated`: whether the backend reads accelerators
    from the configuration, so that TensorRT can take graphs.
    """

    name: Format
    backend: str
    platform: str
    suffix: str
    precisions: tuple[Precision, ...]
    indexed_names: bool = False
    packs: bool = False
    accelerated: bool = False

    def filename(self, precision: Precision) -> str:
        """The graph's file in a version folder. float32 has Triton's default name."""
        return f"model{self.suffix}" if precision == "float32" else f"model.{precision}{self.suffix}"

    def tensor_name(self, name: str, index: int) -> str:
        """What the backend calls the `index`th input, or output, of a graph."""
        return f"{name}__{index}" if self.indexed_names else name


FORMATS: Mapping[Format, GraphFormat] = {
    "onnx": GraphFormat(
        "onnx",
        backend="onnxruntime",
        platform="onnxruntime_onnx",
        suffix=".onnx",
        # ONNX Runtime has no bfloat16 kernels for a CPU, so that nothing of bfloat16 could be verified there.
        precisions=("float32", "float16"),
        packs=True,
        accelerated=True,
    ),
    "torchscript": GraphFormat(
        "torchscript",
        backend="pytorch",
        platform="pytorch_libtorch",
        suffix=".pt",
        precisions=("float32", "float16", "bfloat16"),
        indexed_names=True,
    ),
}
