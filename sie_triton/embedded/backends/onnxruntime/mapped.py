"""A graph whose weights several sessions share: packed once for this machine, and mapped from a file.

ONNX Runtime lays out the factors of products anew for its kernels, a copy for each session. Written beside an optimized
graph they are mapped instead, so that a second session costs only what its runs do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime as ort

from sie_triton.embedded.mapped_files import give_back_memory, own_folder

LARGEST_BYTES = 256 << 20
"""What is larger is computed by all threads anyway, and the file would take long to write."""
_WEIGHTS = "weights.bin"
_SMALLEST_MAPPED = "1024"


def open_mapped(
    path: Path, options: Callable[[], ort.SessionOptions], threads: Sequence[int]
) -> list[ort.InferenceSession]:
    """A session for each number of threads over the graph at `path`, on the CPU. Raises as ONNX Runtime and `OSError`.

    Those of more than one thread spin while they compute, and stop when a run ends. The files are gone when this
    returns: what is mapped stays as long as a session has it.
    """
    with own_folder() as folder:
        graph = folder / "model.onnx"
        _write(path, options(), graph)
        return [_open(graph, options(), count) for count in threads]


def _write(path: Path, options: ort.SessionOptions, graph: Path) -> None:
    options.optimized_model_filepath = str(graph)
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", _SMALLEST_MAPPED
    )
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    give_back_memory()


def _open(graph: Path, options: ort.SessionOptions, threads: int) -> ort.InferenceSession:
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is optimized already
    options.intra_op_num_threads = threads
    if threads > 1:
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
