"""A graph whose weights several sessions share: packed once for this machine, and mapped from a file.

ONNX Runtime lays out the factors of products anew for its kernels, a copy for each session. Written beside an optimized
graph they are mapped instead, so that a second session costs only what its runs do.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import onnxruntime as ort

from sie_triton.embedded.once import FOLDER_VARIABLE

LARGEST_BYTES = 256 << 20
"""What is larger is computed by all threads anyway, and the file would take long to write."""
_WEIGHTS = "weights.bin"
_BEING_MADE, _LOCKED = "new-mapped-", "mapped-"
_SMALLEST_MAPPED = "1024"


def open_mapped(
    path: Path, options: Callable[[], ort.SessionOptions], threads: Sequence[int]
) -> list[ort.InferenceSession]:
    """A session for each number of threads over the graph at `path`, on the CPU. Raises as ONNX Runtime and `OSError`.

    Those of more than one thread spin while they compute, and stop when a run ends. The files are gone when this
    returns: what is mapped stays as long as a session has it.
    """
    with _own_folder() as folder:
        graph = folder / "model.onnx"
        _write(path, options(), graph)
        return [_open(graph, options(), count) for count in threads]


@contextlib.contextmanager
def _own_folder() -> Iterator[Path]:
    """A folder for the files of this process; what others left that were killed while they had one is removed."""
    if (place := os.environ.get(FOLDER_VARIABLE)) is not None:
        _remove_leavings(Path(place))
    made = Path(tempfile.mkdtemp(prefix=_BEING_MADE, dir=place))
    folder = made.with_name(made.name.replace(_BEING_MADE, _LOCKED, 1))
    lock = os.open(made, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made.rename(folder)
        yield folder
    finally:
        os.close(lock)
        for one in (made, folder):
            shutil.rmtree(one, ignore_errors=True)


def _remove_leavings(place: Path) -> None:
    for folder in place.glob(f"{_LOCKED}*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)


def _write(path: Path, options: ort.SessionOptions, graph: Path) -> None:
    options.optimized_model_filepath = str(graph)
    options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
    options.add_session_config_entry(
        "session.optimized_model_external_initializers_min_size_in_bytes", _SMALLEST_MAPPED
    )
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    # The session held the weights twice; the allocator would keep that memory for later.
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _open(graph: Path, options: ort.SessionOptions, threads: int) -> ort.InferenceSession:
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it is optimized already
    options.intra_op_num_threads = threads
    if threads > 1:
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
