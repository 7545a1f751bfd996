"""What the PyTorch backend reads of `parameters`."""

from __future__ import annotations

from sie_triton.backends.releases import Release

BOOLEANS = (
    "DISABLE_OPTIMIZED_EXECUTION",
    "INFERENCE_MODE",
    "ENABLE_WEIGHT_SHARING",
    "ENABLE_CACHE_CLEANING",
    "ENABLE_TENSOR_FUSER",
    "ENABLE_JIT_PROFILING",
    "ENABLE_JIT_EXECUTOR",
    "ENABLE_NVFUSER",
    "DISABLE_CUDNN",
)
"""Switches of every release from 24.10 on; a release ignores what it does not know."""
INTER_OP = "INTER_OP_THREAD_COUNT"
THREADS = ("INTRA_OP_THREAD_COUNT", INTER_OP)
"""Sizes of libtorch's pools, which are the process's; only a number above 0 is handed on."""
KNOWN_KEYS = (*BOOLEANS, *THREADS)

SECOND_INTER_OP_SINCE = Release(25, 11)
"""Before this release the server aborts when `INTER_OP` is set a second time in its process."""
