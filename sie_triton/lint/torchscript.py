"""Rules on `parameters` of TorchScript models as the pytorch backend reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from sie_triton.lint.accelerators import did_you_mean
from sie_triton.lint.rule import Problem, Rule, Subject

_BOOLEANS = (
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
_THREADS = ("INTRA_OP_THREAD_COUNT", "INTER_OP_THREAD_COUNT")
_KEYS = (*_BOOLEANS, *_THREADS)


def is_torchscript(s: Subject) -> bool:
    """Whether the C++ pytorch backend runs the model from TorchScript."""
    return s.backend == "pytorch" and s.config.message.platform != "torch_aoti" and not s.config.message.runtime


def _written(s: Subject) -> Iterator[tuple[str, str, int | None]]:
    """Parameters of a TorchScript model with their lines."""
    for key, value in s.config.parameters.items() if is_torchscript(s) else ():
        yield key, value, s.config.lines.entry(("parameters",), key)


def known_keys(s: Subject) -> Iterator[Problem]:
    """Keys that the backend reads."""
    for key, _, line in _written(s):
        if key not in _KEYS:
            text = f"`{key}` is no key that the pytorch backend reads{did_you_mean(key.upper(), _KEYS)}"
            yield Problem(text, line)


def values(s: Subject) -> Iterator[Problem]:
    """Values that the backend can read."""
    for key, value, line in _written(s):
        if key in _BOOLEANS and value.lower() not in ("true", "false", "1", "0"):
            yield Problem(f"`{key}` is `{value}`, which is no boolean", line)
        elif key in _THREADS and not re.fullmatch(r"\s*[+-]?[0-9]{1,9}\s*", value):
            yield Problem(f"`{key}` is `{value}`, which is no integer", line)


def threads_agree(s: Subject) -> Iterator[Problem]:
    """Thread counts, which are the process's, are the same in all TorchScript models."""
    for key, value, line in _written(s):
        if key not in _THREADS:
            continue
        for model in s.repository.models.values():
            for config in model.configs:
                other = Subject(s.repository, model, config, s.release, s.machine)
                theirs = config.parameters.get(key) if is_torchscript(other) else None
                if config.path.name == s.config.path.name and theirs not in (None, value):
                    yield Problem(f"`{key}` is {value} here and {theirs} in `{model.name}`", line)


def recompiles(s: Subject) -> Iterator[Problem]:
    """Varying shapes and the optimizing executor."""
    varying = s.config.max_batch_size > 1 or any(-1 in t.dims for t in s.config.inputs)
    if is_torchscript(s) and varying and "DISABLE_OPTIMIZED_EXECUTION" not in s.config.parameters:
        yield Problem("shapes vary, and `DISABLE_OPTIMIZED_EXECUTION` is not written", s.line("parameters"))


def rules() -> Iterable[Rule]:
    """The rules of this file. They look at the repository, since the model file alone may tell the backend."""
    return (
        Rule(
            "L726",
            "warning",
            "a parameter that the pytorch backend does not read",
            "The pytorch backend's keys are in capitals; all others, those of the onnxruntime backend too, are ignored "
            "in silence.",
            "correct the key, or remove it",
            known_keys,
            scope="repository",
        ),
        Rule(
            "L727",
            "error",
            "a parameter that the pytorch backend cannot read",
            "Switches are `true`, `false`, `1` or `0`, thread counts are integers; the backend refuses anything else.",
            "write `true` or `false`, or an integer, as a string",
            values,
            scope="repository",
        ),
        Rule(
            "L728",
            "warning",
            "TorchScript thread counts that contradict each other",
            "PyTorch has one pool of threads in a process. The model that is loaded first sets its size, for all.",
            "write the same count in every TorchScript model",
            threads_agree,
            scope="repository",
        ),
        Rule(
            "L729",
            "info",
            "TorchScript may compile again while requests wait",
            "The optimizing executor profiles the first runs and specialises the graph to their shapes: requests of "
            "new shapes may take seconds.",
            "measure, and write `DISABLE_OPTIMIZED_EXECUTION` as `true`, or as `false` to say that it is meant",
            recompiles,
            scope="repository",
        ),
    )
