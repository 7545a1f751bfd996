"""How NVIDIA's ONNX Runtime backend turns a configuration into options of the CUDA provider.

Read in the backend's sources. Four options in `parameters` win: a configuration that has any `parameters` loses what
its accelerator says of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sie_triton.backends.onnxruntime.parameters import CUDA_CHOICES, CUDA_PARAMETERS, cuda_choice
from sie_triton.backends.received import ReceivedConfig


def accelerators(config: Mapping[str, Any]) -> Mapping[str, Mapping[str, str]]:
    """The `gpu_execution_accelerator`s by name, with their parameters, of a configuration as Triton's API gives it."""
    return ReceivedConfig.of(config).gpu_accelerators


def cuda_options(config: ReceivedConfig, device_id: int) -> dict[str, str]:
    """Options for `CUDAExecutionProvider`, as ONNX Runtime takes them.

    Raises:
        ValueError: a code in `parameters` stands for nothing; the message names its key.
    """
    options = dict(config.gpu_accelerators.get("cuda", {}))
    if config.parameters:
        options = {key: value for key, value in options.items() if key not in CUDA_PARAMETERS}
        for key in config.parameters.keys() & set(CUDA_PARAMETERS):
            options[key] = _option(key, config.parameters[key])
    return {**options, "device_id": str(device_id)}


def _option(key: str, text: str) -> str:
    if key not in CUDA_CHOICES:
        return text
    name = cuda_choice(key, text)
    if name is None:
        raise ValueError(f"parameter `{key}` is `{text}`, not 0 to {len(CUDA_CHOICES[key]) - 1}")
    return name
