"""What the embedded server can compute on here. `serve`, `up`, `triton` and `doctor` all use this answer."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

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
    if not DRIVER.is_dir():
        return "this machine has no NVIDIA driver"
    obstacles = {"onnx": _without_onnxruntime, "torchscript": _without_torch}
    return next((reason for name in sorted(formats) if (reason := obstacles[name]())), None)


def _without_torch() -> str | None:
    """By the version that pip knows: importing torch takes seconds, and the backend looks again."""
    try:
        release = version("torch")
    except PackageNotFoundError:
        return "torch is not installed"
    return "the installed `torch` is for CPUs; install a build with CUDA" if release.endswith("+cpu") else None


def _without_onnxruntime() -> str | None:
    try:
        import onnxruntime
    except ImportError:
        return "ONNX Runtime is not installed"
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "the installed `onnxruntime` has no CUDA; uninstall it and install `sie-triton[gpu]`"
    return None
