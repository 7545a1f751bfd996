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
import onnxruntime as ort
import triton_python_backend_utils as pb_utils
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from sie_triton.backends.embedded import WIDEST_ROW
from sie_triton.backends.onnxruntime.header import read_header
from sie_triton.backends.onnxruntime.parameters import ARENA_SHRINKAGE, GRAPH_LEVELS, OTHER_GRAPH_LEVEL
from sie_triton.backends.onnxruntime.signature import GraphTensor
from sie_triton.backends.onnxruntime.types import BY_RUNTIME_NAME
from sie_triton.embedded.alone import QuickerWay
from sie_triton.embedded.backends.onnxruntime.mapped import LARGEST_BYTES, open_mapped
from sie_triton.embedded.backends.onnxruntime.refusals import header_refusals, signature_refusals
from sie_triton.embedded.batching import Array, Arrays
from sie_triton.embedded.cuda_options import cuda_options
from sie_triton.embedded.openvino_engine import ACCELERATOR, OpenVinoError, OpenVinoGraph, installed, wanted_precision
from sie_triton.embedded.python_model import BatchedModel, DlpackInput, row_major

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_SPINNING = "session.intra_op.allow_spinning"
_set_destructor = ctypes.pythonapi.PyCapsule_SetDestructor
_set_destructor.argtypes = [ctypes.py_object, ctypes.c_void_p]
# ONNX Runtime's exceptions have no common base of their own.
_ORT_ERRORS = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class TritonPythonModel(BatchedModel):
    """One session over `model.onnx`, which all streams run."""

    default_filename = "model.onnx"
    may_be_directory = True
    _run: Any
    _alone: Any = None
    _run_options: ort.RunOptions | None

    def load(self, path: Path) -> list[str]:
        """Open a session and compare its signature with the configuration by the C++ backend's rules."""
        try:
            header = read_header(path)
        except ValueError as error:
            return [str(error)]
        if reasons := header_refusals(self.config, header):
            return reasons
        if ACCELERATOR in self.config.cpu_accelerators and not self.on_gpu and self._openvino_serves():
            return self._open_openvino(path)
        gpu = _CUDA in ort.get_available_providers()
        if reasons := self._open(path, on_cuda=gpu and self.on_gpu):
            return reasons
        return signature_refusals(
            self.config,
            [_graph_tensor(node) for node in self._session.get_inputs()],
            [_graph_tensor(node) for node in self._session.get_outputs()],
            overridable=[node.name for node in self._session.get_overridable_initializers()],
            gpu=gpu,
        )

    def _openvino_serves(self) -> bool:
        """Whether OpenVINO is there; without it ONNX Runtime computes, and the log says so."""
        if installed():
            return True
        pb_utils.Logger.log_warn(
            f"model `{self.name}`: the configuration asks for OpenVINO, which is not installed: ONNX Runtime computes "
            "it, in float32 or as the graph says (`pip install 'sie-triton[openvino]'`)"
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
            pb_utils.Logger.log_warn(
                f"model `{self.name}`: this processor does not multiply {precision}: OpenVINO computes in "
                f"{graph.computes_in}"
            )
        self._run = lambda outputs, feed, _: graph.run(outputs, feed)
        if alone:
            self._alone = lambda outputs, feed, _: graph.run_alone(outputs, feed)
            self._way = QuickerWay()
        self._run_options = None
        return signature_refusals(self.config, graph.inputs, graph.outputs, gpu=False)

    def _open(self, path: Path, *, on_cuda: bool) -> list[str]:
        """Make the session; return why that is not possible."""
        providers: list[Any] = [_CPU]
        if on_cuda:
            if "tensorrt" in self.config.gpu_accelerators:
                return ["the accelerator `tensorrt` is not served by the embedded server"]
            try:
                providers = [(_CUDA, cuda_options(self.config, self.device_id)), _CPU]
            except ValueError as error:
                return [str(error)]
        try:
            self._session = self._mapped(path, providers) or ort.InferenceSession(
                path, self._session_options(), providers=providers
            )
        except _ORT_ERRORS as error:
            return [f"ONNX Runtime does not load the graph: {error}"]
        if on_cuda and _CUDA not in self._session.get_providers():
            return ["ONNX Runtime could not use CUDA, the server's log says why; its libraries may be missing"]
        self._run = self._session._sess.run  # InferenceSession.run adds checks that `signature_refusals` has made once
        self._run_options = self._make_run_options()
        return []

    def _mapped(self, path: Path, providers: list[Any]) -> ort.InferenceSession | None:
        """The session of all streams, beside one of several threads for runs that are alone; None without these."""
        several = self.alone_threads > 1 and self.config.integer("intra_op_thread_count", 1) <= 1
        if not several or providers != [_CPU] or self.config.op_libraries:
            return None
        if sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")) > LARGEST_BYTES:
            return None
        try:
            session, alone = open_mapped(path, self._session_options, (1, self.alone_threads))
        except Exception as error:  # ONNX Runtime's bindings raise no type of their own; the model is served without
            pb_utils.Logger.log_warn(f"model `{self.name}`: runs that are alone have one thread: {error}")
            return None
        self._alone = alone._sess.run
        self._way = QuickerWay()
        return session

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

    def _session_options(self) -> ort.SessionOptions:
        options = ort.SessionOptions()
        level = GRAPH_LEVELS.get(self.config.graph_level, OTHER_GRAPH_LEVEL)
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        # Where the C++ backend leaves 0 (all cores it sees) we take 1: instances share the machine.
        options.intra_op_num_threads = self.config.integer("intra_op_thread_count", 0) or 1
        options.inter_op_num_threads = self.config.integer("inter_op_thread_count", 0) or 1
        if self.config.integer("execution_mode", 0):
            options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
        options.enable_cpu_mem_arena = self.config.boolean("enable_mem_arena", True)
        options.enable_mem_pattern = self.config.boolean("enable_mem_pattern", True)
        # Idle threads that spin take the cores of the other instances: without, two instances of two threads on two
        # cores ran 2.3 times as many batches, and a mostly idle one used a quarter of the CPU time.
        options.add_session_config_entry(_SPINNING, self.config.parameters.get(_SPINNING) or "0")
        options.log_severity_level = 3
        for library in self.config.op_libraries:
            options.register_custom_ops_library(library)
        return options

    def _make_run_options(self) -> ort.RunOptions | None:
        shrinkage = self.config.parameters.get(ARENA_SHRINKAGE)
        if not shrinkage:
            return None
        options = ort.RunOptions()
        options.add_run_config_entry(ARENA_SHRINKAGE, shrinkage)
        return options


def _graph_tensor(node: ort.NodeArg) -> GraphTensor:
    if node.type not in BY_RUNTIME_NAME:
        return GraphTensor(node.name, "", (), kind=node.type)
    return GraphTensor(node.name, BY_RUNTIME_NAME[node.type], tuple(node.shape))
