"""What the ONNX Runtime backend reads of `parameters` and `optimization`, and which values it understands."""

from __future__ import annotations

from collections.abc import Mapping

from sie_triton.backends.received import read_integer

INTEGERS = ("intra_op_thread_count", "inter_op_thread_count", "execution_mode")
BOOLEANS = ("enable_mem_arena", "enable_mem_pattern")
EXECUTION_MODES = (0, 1)
"""One operator after the other, or branches in parallel."""

CUDA_CHOICES: Mapping[str, tuple[str, ...]] = {
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
}
"""Options of the CUDA provider that are names in its accelerator, and in `parameters` their places in these rows."""
CUDA_PARAMETERS = ("gpu_mem_limit", *CUDA_CHOICES, "do_copy_in_default_stream")
"""Options of the CUDA provider that a model with any `parameters` takes from there, never from its accelerator."""

DEVICE_INITIALIZERS = "session.use_device_allocator_for_initializers"
ARENA_SHRINKAGE = "memory.enable_memory_arena_shrinkage"
KNOWN_KEYS = (*INTEGERS, *BOOLEANS, *CUDA_PARAMETERS, DEVICE_INITIALIZERS, ARENA_SHRINKAGE)

GPU_ACCELERATORS = ("tensorrt", "cuda")
CPU_ACCELERATORS = ("openvino",)

GRAPH_LEVELS: Mapping[int, str] = {-1: "ORT_ENABLE_BASIC", 1: "ORT_ENABLE_EXTENDED", 2: "ORT_DISABLE_ALL"}
"""`optimization { graph { level } }` -> ONNX Runtime's name of it."""
OTHER_GRAPH_LEVEL = "ORT_ENABLE_ALL"
"""What every other number means, 0 included."""


def cuda_choice(key: str, code: str) -> str | None:
    """The name that a code in `parameters` stands for; None where it stands for nothing."""
    names, number = CUDA_CHOICES[key], read_integer(code)
    return names[number] if number is not None and 0 <= number < len(names) else None
