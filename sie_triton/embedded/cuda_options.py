"""How NVIDIA's ONNX Runtime backend turns a configuration into options of the CUDA provider; standard library only.

Read in the backend's sources. Four options in `parameters` are numbers and win: a configuration that has any
`parameters` loses what its accelerator says of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sie_triton.embedded.model_config import integer_parameter, text_parameter

_ARENA = ("kNextPowerOfTwo", "kSameAsRequested")
_SEARCH = ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")
_OVERRIDDEN = ("gpu_mem_limit", "arena_extend_strategy", "cudnn_conv_algo_search", "do_copy_in_default_stream")


def accelerators(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """The `gpu_execution_accelerator`s by name, with their parameters."""
    found = config.get("optimization", {}).get("execution_accelerators", {}).get("gpu_execution_accelerator", ())
    return {entry.get("name", ""): dict(entry.get("parameters", {})) for entry in found}


def cuda_options(config: Mapping[str, Any], device_id: int) -> dict[str, str]:
    """Options for `CUDAExecutionProvider`. Raises `ValueError` for a number that stands for nothing."""
    options = dict(accelerators(config).get("cuda", {}))
    if config.get("parameters"):
        options = {key: value for key, value in options.items() if key not in _OVERRIDDEN}
        for key, names in (("arena_extend_strategy", _ARENA), ("cudnn_conv_algo_search", _SEARCH)):
            number = integer_parameter(config, key, -1)
            if text_parameter(config, key) is not None:
                if not 0 <= number < len(names):
                    raise ValueError(f"parameter `{key}` is `{number}`, not 0 to {len(names) - 1}")
                options[key] = names[number]
        for key in ("gpu_mem_limit", "do_copy_in_default_stream"):
            if (text := text_parameter(config, key)) is not None:
                options[key] = text
    return {**options, "device_id": str(device_id)}
