"""ONNX Runtime for tests, which run side by side: a second thread would spin and take the core of another test."""

from __future__ import annotations

from pathlib import Path

import onnxruntime


def session(graph: Path | bytes) -> onnxruntime.InferenceSession:
    """A session on the CPU over the file, or over the bytes of a model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
