"""Rules on `parameters` and the graph level as the onnxruntime backend reads them."""

from __future__ import annotations

from collections.abc import Iterator

from sie_triton.backends.onnxruntime.parameters import (
    BOOLEANS,
    CUDA_CHOICES,
    DEVICE_INITIALIZERS,
    EXECUTION_MODES,
    GRAPH_LEVELS,
    INTEGERS,
    KNOWN_KEYS,
    cuda_choice,
)
from sie_triton.backends.received import read_boolean, read_integer
from sie_triton.backends.releases import Release
from sie_triton.lint.embedded import is_for_embedded
from sie_triton.lint.rule import LintSubject, Problem, rule
from sie_triton.lint.wording import did_you_mean

# Keys that belong to the server or to batching, whatever the backend.
_FOREIGN_KEYS = frozenset({"TRITON_BATCH_STRATEGY_PATH"})
_SWITCHES = (*BOOLEANS, "do_copy_in_default_stream")


def _written(s: LintSubject) -> Iterator[tuple[str, str, int | None]]:
    """Parameters of an ONNX model with their lines."""
    if s.is_onnx:
        for key, value in s.config.parameters.items():
            yield key, value, s.config.lines.entry(("parameters",), key)


@rule(
    "L701",
    "error",
    title="a parameter is no integer",
    explanation="The onnxruntime backend refuses thread counts and modes that it cannot read as integers.",
    hint='write an integer, as a string: `string_value: "2"`',
    scope="repository",
)
def _integers(s: LintSubject) -> Iterator[Problem]:
    for key, value, line in _written(s):
        if key in INTEGERS and read_integer(value) is None:
            yield Problem(f"`{key}` is `{value}`, which is no integer", line)


@rule(
    "L702",
    "error",
    title="`execution_mode` is neither 0 nor 1",
    explanation="0 runs operators one after the other, 1 runs branches in parallel; anything else is refused.",
    hint="write 0 or 1",
    scope="repository",
)
def _execution_mode(s: LintSubject) -> Iterator[Problem]:
    for key, value, line in _written(s):
        number = read_integer(value)
        if key == "execution_mode" and number is not None and number not in EXECUTION_MODES:
            yield Problem(f"`execution_mode` is {number}", line)


@rule(
    "L703",
    "warning",
    title="a parameter that nobody reads",
    explanation="The onnxruntime backend looks up the keys that it knows and ignores all others in silence.",
    hint="correct the key, or remove it",
    scope="repository",
)
def _known_keys(s: LintSubject) -> Iterator[Problem]:
    for key, _, line in _written(s):
        if key not in KNOWN_KEYS and key not in _FOREIGN_KEYS and not is_for_embedded(s, key):
            meant = did_you_mean(key, KNOWN_KEYS)
            yield Problem(f"`{key}` is no key that the onnxruntime backend reads{meant}", line)


@rule(
    "L704",
    "warning",
    title="the device allocator for initializers is not read yet",
    explanation=f"`{DEVICE_INITIALIZERS}` is read from 25.02 on and ignored in silence before.",
    hint="remove the key, or serve with 25.02 or newer",
    scope="repository",
    until=Release(25, 2),
)
def _device_initializers(s: LintSubject) -> Iterator[Problem]:
    for key, _, line in _written(s):
        if key == DEVICE_INITIALIZERS:
            yield Problem(f"`{key}` is not read by Triton {s.release}", line)


@rule(
    "L706",
    "error",
    title="a parameter has an impossible value",
    explanation="The backend refuses values that it cannot read.",
    hint="write `0` or `1` for switches, the numeric code for choices, bytes for limits",
    scope="repository",
)
def _values(s: LintSubject) -> Iterator[Problem]:
    for key, value, line in _written(s):
        if key in _SWITCHES and read_boolean(value) is None:
            yield Problem(f"`{key}` is `{value}`, which is no boolean", line)
        elif key in CUDA_CHOICES and cuda_choice(key, value) is None:
            codes = ", ".join(map(str, range(len(CUDA_CHOICES[key]))))
            yield Problem(f"`{key}` is `{value}`, not one of {codes}", line)
        elif key == "gpu_mem_limit" and not value.isdigit():
            yield Problem(f"`gpu_mem_limit` is `{value}`, which is no number of bytes", line)


@rule(
    "L710",
    "warning",
    title="an unknown graph optimization level",
    explanation="-1 is basic, 1 is extended, 2 switches optimization off; every other number means all.",
    hint="write -1, 1 or 2, or remove the level",
    scope="repository",
)
def _graph_level(s: LintSubject) -> Iterator[Problem]:
    level = s.config.received.graph_level
    if s.is_onnx and level not in (0, *GRAPH_LEVELS):
        yield Problem(f"`optimization.graph.level` is {level}", s.line("optimization", "graph", "level"))


@rule(
    "L711",
    "info",
    title="threads between operators are not used",
    explanation="`inter_op_thread_count` counts only where `execution_mode` is 1.",
    hint="remove it, or set `execution_mode` to `1` for graphs with wide branches",
    scope="repository",
)
def _inter_op(s: LintSubject) -> Iterator[Problem]:
    for key, value, line in _written(s):
        if key == "inter_op_thread_count" and read_integer(s.config.parameters.get("execution_mode", "0")) != 1:
            yield Problem(f"`inter_op_thread_count` is {value} while `execution_mode` is sequential", line)
