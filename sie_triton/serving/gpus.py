"""What the embedded server can compute on here. `serve`, `up`, `triton` and `doctor` all use this answer."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from sie_triton.formats import FORMATS

DRIVER = Path("/proc/driver/nvidia/gpus")


def gpu_names() -> list[str]:
    """The models of this machine's NVIDIA GPUs, as its driver names them; empty without a driver."""
    names = []
    for path in sorted(DRIVER.glob("*/information")):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        found = [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]
        names += found or [path.parent.name]
    return names


def gpu_obstacle(device: str, formats: Collection[str]) -> str | None:
    """Why the embedded server cannot compute graphs of `formats` on `cuda` or `cuda-tensorrt` here.

    None if nothing is known against it.
    """
    if device != "cuda":
        return "it has no TensorRT"
    if not all(FORMATS[name].embedded_cuda for name in formats):
        return "its TorchScript backend computes on the CPU"
    if not DRIVER.is_dir():
        return "this machine has no NVIDIA driver"
    try:
        import onnxruntime
    except ImportError:
        return "ONNX Runtime is not installed"
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "the installed `onnxruntime` has no CUDA; uninstall it and install `sie-triton[gpu]`"
    return None
