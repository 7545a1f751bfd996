"""Sessions of ONNX Runtime over one graph; imported only where it computes, since its library takes 20 MB."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from sie_triton.backends.onnxruntime.parameters import ARENA_SHRINKAGE, GRAPH_LEVELS, OTHER_GRAPH_LEVEL
from sie_triton.backends.onnxruntime.signature import GraphTensor
from sie_triton.backends.onnxruntime.types import BY_RUNTIME_NAME
from sie_triton.backends.received import ReceivedConfig
from sie_triton.embedded.backends.onnxruntime.mapped import LARGEST_BYTES, open_mapped
from sie_triton.embedded.cuda_options import cuda_options

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_SPINNING = "session.intra_op.allow_spinning"
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


class SessionError(Exception):
    """ONNX Runtime cannot compute the graph as the configuration asks; the message says why."""


class Sessions:
    """The session of all streams, and beside it one of several threads for runs that are alone.

    `run(outputs, feed, run_options)` gives arrays in the order of the outputs' names, in ONNX Runtime's own memory;
    `run_alone` is the same, or None where there is one session. Raises `SessionError`.
    """

    def __init__(
        self,
        path: Path,
        config: ReceivedConfig,
        *,
        device_id: int | None = None,
        alone_threads: int = 0,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._alone_threads = alone_threads
        self._warn = warn
        self.gpu = _CUDA in ort.get_available_providers()
        on_cuda = self.gpu and device_id is not None
        providers: list[Any] = [_CPU]
        if on_cuda:
            if "tensorrt" in config.gpu_accelerators:
                raise SessionError("the accelerator `tensorrt` is not served by the embedded server")
            try:
                providers = [(_CUDA, cuda_options(config, device_id or 0)), _CPU]
            except ValueError as error:
                raise SessionError(str(error)) from None
        self.run_alone: Any = None
        try:
            session = self._mapped(path, providers) or ort.InferenceSession(
                path, self._session_options(), providers=providers
            )
        except _ORT_ERRORS as error:
            raise SessionError(f"ONNX Runtime does not load the graph: {error}") from None
        if on_cuda and _CUDA not in session.get_providers():
            raise SessionError(
                "ONNX Runtime could not use CUDA, the server's log says why; its libraries may be missing"
            )
        self._session = session
        self.run: Any = session._sess.run  # InferenceSession.run adds checks that `signature_refusals` has made once
        self.run_options = self._make_run_options()
        self.inputs = [_graph_tensor(node) for node in session.get_inputs()]
        self.outputs = [_graph_tensor(node) for node in session.get_outputs()]
        self.overridable = [node.name for node in session.get_overridable_initializers()]

    def _mapped(self, path: Path, providers: list[Any]) -> ort.InferenceSession | None:
        """The session of all streams, beside one of several threads; None without these."""
        several = self._alone_threads > 1 and self._config.integer("intra_op_thread_count", 1) <= 1
        if not several or providers != [_CPU] or self._config.op_libraries:
            return None
        if sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*")) > LARGEST_BYTES:
            return None
        try:
            session, alone = open_mapped(path, self._session_options, (1, self._alone_threads))
        except Exception as error:  # ONNX Runtime's bindings raise no type of their own; the model is served without
            self._warn(f"runs that are alone have one thread: {error}")
            return None
        self.run_alone = alone._sess.run
        return session

    def _session_options(self) -> ort.SessionOptions:
        options = ort.SessionOptions()
        level = GRAPH_LEVELS.get(self._config.graph_level, OTHER_GRAPH_LEVEL)
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        # Where the C++ backend leaves 0 (all cores it sees) we take 1: instances share the machine.
        options.intra_op_num_threads = self._config.integer("intra_op_thread_count", 0) or 1
        options.inter_op_num_threads = self._config.integer("inter_op_thread_count", 0) or 1
        if self._config.integer("execution_mode", 0):
            options.execution_mode = ort.ExecutionMode.ORT_PARALLEL
        options.enable_cpu_mem_arena = self._config.boolean("enable_mem_arena", True)
        options.enable_mem_pattern = self._config.boolean("enable_mem_pattern", True)
        # Idle threads that spin take the cores of the other instances: without, two instances of two threads on two
        # cores ran 2.3 times as many batches, and a mostly idle one used a quarter of the CPU time.
        options.add_session_config_entry(_SPINNING, self._config.parameters.get(_SPINNING) or "0")
        options.log_severity_level = 3
        for library in self._config.op_libraries:
            options.register_custom_ops_library(library)
        return options

    def _make_run_options(self) -> ort.RunOptions | None:
        shrinkage = self._config.parameters.get(ARENA_SHRINKAGE)
        if not shrinkage:
            return None
        options = ort.RunOptions()
        options.add_run_config_entry(ARENA_SHRINKAGE, shrinkage)
        return options


def _graph_tensor(node: ort.NodeArg) -> GraphTensor:
    if node.type not in BY_RUNTIME_NAME:
        return GraphTensor(node.name, "", (), kind=node.type)
    return GraphTensor(node.name, BY_RUNTIME_NAME[node.type], tuple(node.shape))
