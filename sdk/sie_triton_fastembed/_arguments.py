"""Fastembed's arguments that a server leaves without effect: which of them are said so, and how."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from sie_triton_fastembed.common.types import Device, OnnxProvider

_HARMLESS = frozenset(
    {"device_id", "enable_cpu_mem_arena", "extra_session_options", "local_files_only", "mmap", "specific_model_path"}
)


def check_arguments(
    providers: Sequence[OnnxProvider] | None,
    cuda: bool | Device,
    device_ids: list[int] | None,
    others: Mapping[str, Any],
) -> None:
    """Warn of what would mislead; raise `ValueError` for `task_id`, which would give other vectors.

    Silent: the cache's folder, the number of threads, `lazy_load`, `local_files_only` and the options of an ONNX
    Runtime session, because the vectors are the same with and without them.
    """
    refuse_task(others)
    misleading = []
    if cuda is True or cuda == Device.CUDA:
        misleading.append("`cuda`: the server computes, on the device that `sie-triton serve --device` names")
    if any("CPU" not in (entry if isinstance(entry, str) else entry[0]) for entry in providers or ()):
        misleading.append("`providers`: the server computes, and this process runs no ONNX Runtime")
    if device_ids:
        misleading.append("`device_ids`: the server computes, on its own devices")
    if others.get("specific_model_path") is not None:
        misleading.append("`specific_model_path`: the vectors are those of the weights that the server was built from")
    for name in sorted(set(others) - _HARMLESS):
        misleading.append(f"`{name}`: neither Fastembed nor sie_triton_fastembed knows it")
    for text in misleading:
        warn(f"no effect of {text}")


def refuse_task(others: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a `task_id`: without its adapter the vectors would be others."""
    if others.get("task_id") is not None:
        raise ValueError("`task_id` selects a LoRA adapter of jina-embeddings-v3, which sie-triton does not serve")


def warn(text: str) -> None:
    """A `UserWarning` at the line that called this package, however deep we are."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __name__.partition(".")[0]:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, UserWarning, stacklevel=level)
