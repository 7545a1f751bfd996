"""The graph formats that Triton serves, a row each.

What only one layer knows of a format is a table there, by the format's name: a writer (`export.tracer.WRITERS`), what
its backend reads (`repository.config`), a runtime to verify it with (`verify.model_runner.RUNTIMES`, and
`half_precision.measure.half_runtimes`) and one to serve it with (`serving.machines.RUNTIMES`). Tests hold them
complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Format = Literal["onnx", "torchscript"]
Precision = Literal["float32", "float16", "bfloat16", "int8"]
Device = Literal["cpu", "cuda"]
Engine = Literal["onnxruntime", "openvino"]

DEFAULT_FORMAT: Format = "onnx"
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "bfloat16", "int8")
# What only CPUs are measured in; a build for CUDA too chooses there as if it had not been asked for.
CPU_ONLY: frozenset[Precision] = frozenset({"int8"})
ENGINES: tuple[Engine, ...] = ("onnxruntime", "openvino")
"""What computes ONNX graphs on a CPU."""
DEVICES: tuple[Device, ...] = ("cpu", "cuda")


@dataclass(frozen=True, slots=True)
class GraphFormat:
    """How Triton knows a format: its backend and platform, its file, how a graph's tensors are called, what it can do.

    Several formats may share a backend; the platform tells them apart.

    `precisions` are those that a graph can have inside. `indexed_names`: the backend finds tensors by the position that
    their name ends with, `NAME__INDEX`, so that only an ensemble can give them their public names. `packs`: whether
    graphs for CPUs can compute padding only where tokens meet. `accelerated`: whether the backend reads accelerators
    from the configuration, so that TensorRT can take graphs. `own_threads`: whether each instance can have a number of
    threads of its own. `half_as_served`: whether what is watched in half precision is the graph as it is served, not
    one with more rounding. `written`: whether graphs can be written from a checkpoint's tensors, without torch.
    """

    name: Format
    backend: str
    platform: str
    suffix: str
    precisions: tuple[Precision, ...]
    indexed_names: bool = False
    packs: bool = False
    accelerated: bool = False
    own_threads: bool = False
    half_as_served: bool = False
    written: bool = False

    def filename(self, precision: Precision) -> str:
        """The graph's file in a version folder. float32 has Triton's default name."""
        return f"model{self.suffix}" if precision == "float32" else f"model.{precision}{self.suffix}"

    def tensor_name(self, name: str, index: int) -> str:
        """What the backend calls the `index`th input, or output, of a graph."""
        return f"{name}__{index}" if self.indexed_names else name


_ROWS = (
    GraphFormat(
        "onnx",
        backend="onnxruntime",
        platform="onnxruntime_onnx",
        suffix=".onnx",
        # ONNX Runtime has no bfloat16 kernels for a CPU, so that nothing of bfloat16 could be verified there.
        precisions=("float32", "float16", "int8"),
        packs=True,
        accelerated=True,
        own_threads=True,
        written=True,
    ),
    GraphFormat(
        "torchscript",
        backend="pytorch",
        platform="pytorch_libtorch",
        suffix=".pt",
        precisions=("float32", "float16", "bfloat16"),
        indexed_names=True,
        half_as_served=True,
    ),
)
FORMATS: Mapping[str, GraphFormat] = {row.name: row for row in _ROWS}
"""By name, as it stands in manifests."""


def format_of(backend: str, platform: str) -> GraphFormat:
    """The format of a graph's `config.pbtxt`. Without a platform, a backend means the first of its formats.

    Raises `LookupError` for a graph that none of them is.
    """
    for row in FORMATS.values():
        if row.backend == backend and platform in (row.platform, ""):
            return row
    raise LookupError(f"backend `{backend}`, platform `{platform}`")
