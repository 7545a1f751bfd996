"""The `onnxruntime` backend of the embedded server: the model repository's `model.onnx` on pip's ONNX Runtime.

On the CPU; on CUDA where the configuration asks for `KIND_GPU` and `onnxruntime-gpu` is what pip installed. Tensors
pass through the host's memory either way.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from sie_triton.embedded.batching import Array, Arrays
from sie_triton.embedded.cuda_options import accelerators, cuda_options
from sie_triton.embedded.model_config import boolean_parameter, integer_parameter, text_parameter
from sie_triton.embedded.onnx_header import read_header
from sie_triton.embedded.onnxruntime_rules import DATATYPES, GraphTensor, refusals
from sie_triton.embedded.python_model import BatchedModel, DlpackInput, row_major

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_SPINNING = "session.intra_op.allow_spinning"
_ARENA_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
_set_destructor = ctypes.pythonapi.PyCapsule_SetDestructor
_set_destructor.argtypes = [ctypes.py_object, ctypes.c_void_p]
# `optimization { graph { level } }` as the C++ backend reads it; any other number, 0 included, means everything.
_LEVELS = {
    -1: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


class TritonPythonModel(BatchedModel):
    """One session over `model.onnx`."""

    default_filename = "model.onnx"
    may_be_directory = True

    def load(self, path: Path) -> list[str]:
        """Open a session and compare its signature with the configuration by the C++ backend's rules."""
        header = read_header(path)
        # The rules for parameters first, without a graph: a session cannot be made from wrong ones.
        versions_and_parameters = refusals(
            {"parameters": self.config.get("parameters", {})}, (), (), ir_version=header.ir_version, opset=header.opset
        )
        if versions_and_parameters:
            return versions_and_parameters
        gpu = _CUDA in ort.get_available_providers()
        on_cuda = gpu and self.on_gpu
        providers: list[Any] = [_CPU]
        if on_cuda:
            if "tensorrt" in accelerators(self.config):
                return ["the accelerator `tensorrt` is not served by the embedded server"]
            try:
                providers = [(_CUDA, cuda_options(self.config, self.device_id)), _CPU]
            except ValueError as error:
                return [str(error)]
        self._session = ort.InferenceSession(path, self._session_options(), providers=providers)
        if on_cuda and _CUDA not in self._session.get_providers():
            return ["ONNX Runtime could not use CUDA, the server's log says why; its libraries may be missing"]
        self._run = self._session._sess.run  # InferenceSession.run adds checks that `refusals` has made once
        self._run_options = self._make_run_options()
        return refusals(
            self.config,
            [_graph_tensor(node) for node in self._session.get_inputs()],
            [_graph_tensor(node) for node in self._session.get_outputs()],
            ir_version=header.ir_version,
            opset=header.opset,
            gpu=gpu,
        )

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
        graph = self.config.get("optimization", {}).get("graph", {})
        level = int(graph.get("level", 0))
        options.graph_optimization_level = _LEVELS.get(level, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
        # Where the C++ backend leaves 0 (all cores it sees) we take 1: instances share the machine.
        options.intra_op_num_threads = integer_parameter(self.config, "intra_op_thread_count", 0) or 1
        options.inter_op_num_threads = integer_parameter(self.config, "inter_op_thread_count", 0) or 1
        if integer_parameter(self.config, "execution_mode", 0):
            options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
        options.enable_cpu_mem_arena = boolean_parameter(self.config, "enable_mem_arena", True)
        options.enable_mem_pattern = boolean_parameter(self.config, "enable_mem_pattern", True)
        # Idle threads that spin take the cores of the other instances: without, two instances of two threads on two
        # cores ran 2.3 times as many batches, and a mostly idle one used a quarter of the CPU time.
        options.add_session_config_entry(_SPINNING, text_parameter(self.config, _SPINNING) or "0")
        options.log_severity_level = 3
        return options

    def _make_run_options(self) -> ort.RunOptions | None:
        shrinkage = text_parameter(self.config, _ARENA_SHRINKAGE)
        if not shrinkage:
            return None
        options = ort.RunOptions()
        options.add_run_config_entry(_ARENA_SHRINKAGE, shrinkage)
        return options


def _graph_tensor(node: ort.NodeArg) -> GraphTensor:
    return GraphTensor(node.name, DATATYPES.get(node.type, node.type), tuple(node.shape))
