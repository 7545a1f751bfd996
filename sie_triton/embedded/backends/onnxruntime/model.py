"""The `onnxruntime` backend of the embedded server: the model repository's `model.onnx` on pip's ONNX Runtime.

On the CPU; on CUDA where the configuration asks for `KIND_GPU` and `onnxruntime-gpu` is what pip installed. Tensors
pass through the host's memory either way.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from sie_triton.backends.embedded import WIDEST_ROW
from sie_triton.backends.onnxruntime.header import read_header
from sie_triton.embedded.alone import QuickerWay
from sie_triton.embedded.backends.onnxruntime.refusals import header_refusals, signature_refusals
from sie_triton.embedded.batching import Array, Arrays
from sie_triton.embedded.openvino_engine import ACCELERATOR, OpenVinoError, OpenVinoGraph, installed, wanted_precision
from sie_triton.embedded.python_model import BatchedModel, DlpackInput, row_major

_set_destructor = ctypes.pythonapi.PyCapsule_SetDestructor
_set_destructor.argtypes = [ctypes.py_object, ctypes.c_void_p]


class TritonPythonModel(BatchedModel):
    """`model.onnx`, opened by one engine, which all streams run."""

    default_filename = "model.onnx"
    may_be_directory = True
    _run: Any
    _alone: Any = None
    _run_options: Any

    def load(self, path: Path) -> list[str]:
        """Open the graph and compare its signature with the configuration by the C++ backend's rules."""
        try:
            header = read_header(path)
        except ValueError as error:
            return [str(error)]
        if reasons := header_refusals(self.config, header):
            return reasons
        if ACCELERATOR in self.config.cpu_accelerators and not self.on_gpu and self._openvino_serves():
            return self._open_openvino(path)
        return self._open_session(path)

    def _openvino_serves(self) -> bool:
        """Whether OpenVINO is there; without it ONNX Runtime computes, and the log says so."""
        if installed():
            return True
        self._warn(
            "the configuration asks for OpenVINO, which is not installed: ONNX Runtime computes it, in float32 or as "
            "the graph says (`pip install 'sie-triton[openvino]'`)"
        )
        return False

    def _open_openvino(self, path: Path) -> list[str]:
        """Compile the graph by OpenVINO; return why that is not possible, or what NVIDIA's backend would refuse."""
        try:
            precision = wanted_precision(self.config.cpu_accelerators[ACCELERATOR])
            threads = self.config.integer("intra_op_thread_count", 0) or 1
            alone = self.alone_threads if threads == 1 and self.alone_threads > 1 else 0
            graph = OpenVinoGraph(
                path,
                threads=threads,
                precision=precision,
                streams=self.stream_count,
                alone_threads=alone,
                widest_row=self.config.integer(WIDEST_ROW, 0),
            )
        except (OpenVinoError, ValueError) as error:
            return [str(error)]
        if graph.computes_in != precision:
            self._warn(f"this processor does not multiply {precision}: OpenVINO computes in {graph.computes_in}")
        self._run = lambda outputs, feed, _: graph.run(outputs, feed)
        if alone:
            self._alone = lambda outputs, feed, _: graph.run_alone(outputs, feed)
            self._way = QuickerWay()
        self._run_options = None
        return signature_refusals(self.config, graph.inputs, graph.outputs, gpu=False)

    def _open_session(self, path: Path) -> list[str]:
        """Open ONNX Runtime's sessions; return why that is not possible, or what NVIDIA's backend would refuse."""
        from sie_triton.embedded.backends.onnxruntime.session import SessionError, Sessions

        try:
            sessions = Sessions(
                path,
                self.config,
                device_id=self.device_id if self.on_gpu else None,
                alone_threads=self.alone_threads,
                warn=self._warn,
            )
        except SessionError as error:
            return [str(error)]
        self._run, self._run_options = sessions.run, sessions.run_options
        if sessions.run_alone is not None:
            self._alone, self._way = sessions.run_alone, QuickerWay()
        return signature_refusals(
            self.config, sessions.inputs, sessions.outputs, overridable=sessions.overridable, gpu=sessions.gpu
        )

    def _warn(self, what: str) -> None:
        pb_utils.Logger.log_warn(f"model `{self.name}`: {what}")

    def run_alone(self, feed: Arrays, outputs: Sequence[str]) -> Arrays:
        """By one thread or by several, whichever took less of late."""
        if self._alone is None:
            return self.run(feed, outputs)
        size = sum(array.size for array in feed.values())
        way, begun = self._way.choose(size), time.perf_counter()
        found = (self._alone if way else self._run)(list(outputs), feed, self._run_options)
        self._way.took(size, way, time.perf_counter() - begun)
        return dict(zip(outputs, found, strict=True))

    def decode(self, tensor: DlpackInput) -> Array:
        """A view of the shared memory."""
        return np.from_dlpack(tensor)

    def encode(self, array: Array) -> Any:
        """A DLPack capsule of `array`.

        The stub renames a capsule that it has taken to something else than the standard says, whereupon numpy's
        destructor reports an error for each tensor; the stub calls the tensor's own deleter, so none is needed.
        """
        if not array.size:
            array = np.lib.stride_tricks.as_strided(array, strides=row_major(array.shape, array.itemsize))
        capsule = array.__dlpack__()
        _set_destructor(capsule, None)
        return capsule

    def concatenate(self, parts: Sequence[Array]) -> Array:
        """Join along the first axis."""
        return np.concatenate(parts)

    def run(self, feed: Arrays, outputs: Sequence[str]) -> Arrays:
        """One session run; the arrays are ONNX Runtime's own memory."""
        return dict(zip(outputs, self._run(list(outputs), feed, self._run_options), strict=True))
