"""Rules on `parameters` and the graph level as the onnxruntime backend reads them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator

from sie_triton.lint.release import Release
from sie_triton.lint.rule import Problem, Rule, Subject

_INTEGERS = ("intra_op_thread_count", "inter_op_thread_count", "execution_mode")
_BOOLEANS = ("enable_mem_arena", "enable_mem_pattern")
_SWITCHES = (*_BOOLEANS, "do_copy_in_default_stream")
CUDA_PARAMETERS = ("gpu_mem_limit", "arena_extend_strategy", "cudnn_conv_algo_search", "do_copy_in_default_stream")
_CHOICES = {"cudnn_conv_algo_search": ("0", "1", "2"), "arena_extend_strategy": ("0", "1")}
_DEVICE_INITIALIZERS = "session.use_device_allocator_for_initializers"
KNOWN_KEYS = (*_INTEGERS, *_BOOLEANS, *CUDA_PARAMETERS, _DEVICE_INITIALIZERS, "memory.enable_memory_arena_shrinkage")
# Keys that belong to the server or to batching, whatever the backend.
_FOREIGN_KEYS = frozenset({"TRITON_BATCH_STRATEGY_PATH"})


def _written(s: Subject) -> Iterator[tuple[str, str, int | None]]:
    """Parameters of an ONNX model with their lines."""
    if s.is_onnx:
        for key, value in s.config.parameters.items():
            yield key, value, s.config.lines.entry(("parameters",), key)


def _is_integer(text: str) -> bool:
    """Whether the backend can read `text` as a C `int`."""
    return re.fullmatch(r"\s*[+-]?[0-9]{1,10}\s*", text) is not None and abs(int(text)) < 2**31


def integers(s: Subject) -> Iterator[Problem]:
    """Numbers are numbers."""
    for key, value, line in _written(s):
        if key in _INTEGERS and not _is_integer(value):
            yield Problem(f"`{key}` is `{value}`, which is no integer", line)


def execution_mode(s: Subject) -> Iterator[Problem]:
    """The execution mode is 0 or 1."""
    for key, value, line in _written(s):
        if key == "execution_mode" and _is_integer(value) and int(value) not in (0, 1):
            yield Problem(f"`execution_mode` is {int(value)}", line)


def known_keys(s: Subject) -> Iterator[Problem]:
    """Keys that the backend reads."""
    for key, _, line in _written(s):
        if key not in KNOWN_KEYS and key not in _FOREIGN_KEYS:
            close = difflib.get_close_matches(key, KNOWN_KEYS, n=1)
            did_you_mean = f"; did you mean `{close[0]}`?" if close else ""
            yield Problem(f"`{key}` is no key that the onnxruntime backend reads{did_you_mean}", line)


def device_initializers(s: Subject) -> Iterator[Problem]:
    """The device allocator for initializers, before it was read."""
    for key, _, line in _written(s):
        if key == _DEVICE_INITIALIZERS:
            yield Problem(f"`{key}` is not read by Triton {s.release}", line)


def values(s: Subject) -> Iterator[Problem]:
    """Values of the remaining keys."""
    for key, value, line in _written(s):
        if key in _SWITCHES and value.lower() not in ("true", "false", "0", "1"):
            yield Problem(f"`{key}` is `{value}`, which is no boolean", line)
        elif key in _CHOICES and value.strip() not in _CHOICES[key]:
            yield Problem(f"`{key}` is `{value}`, not one of {', '.join(_CHOICES[key])}", line)
        elif key == "gpu_mem_limit" and not value.isdigit():
            yield Problem(f"`gpu_mem_limit` is `{value}`, which is no number of bytes", line)


def graph_level(s: Subject) -> Iterator[Problem]:
    """The graph optimization level is one of four."""
    level = s.config.message.optimization.graph.level
    if s.is_onnx and level not in (-1, 0, 1, 2):
        yield Problem(f"`optimization.graph.level` is {level}", s.line("optimization", "graph", "level"))


def inter_op(s: Subject) -> Iterator[Problem]:
    """Threads between operators count in parallel mode only."""
    for key, value, line in _written(s):
        if key == "inter_op_thread_count" and s.config.parameters.get("execution_mode", "0").strip() != "1":
            yield Problem(f"`inter_op_thread_count` is {value} while `execution_mode` is sequential", line)


def rules() -> Iterable[Rule]:
    """The rules of this file. They look at the repository, since the model file alone may tell the backend."""
    return (
        Rule(
            "L701",
            "error",
            "a parameter is no integer",
            "The onnxruntime backend refuses thread counts and modes that it cannot read as integers.",
            'write an integer, as a string: `string_value: "2"`',
            integers,
            scope="repository",
        ),
        Rule(
            "L702",
            "error",
            "`execution_mode` is neither 0 nor 1",
            "0 runs operators one after the other, 1 runs branches in parallel; anything else is refused.",
            "write 0 or 1",
            execution_mode,
            scope="repository",
        ),
        Rule(
            "L703",
            "warning",
            "a parameter that nobody reads",
            "The onnxruntime backend looks up the keys that it knows and ignores all others in silence.",
            "correct the key, or remove it",
            known_keys,
            scope="repository",
        ),
        Rule(
            "L704",
            "warning",
            "the device allocator for initializers is not read yet",
            f"`{_DEVICE_INITIALIZERS}` is read from 25.02 on and ignored in silence before.",
            "remove the key, or serve with 25.02 or newer",
            device_initializers,
            scope="repository",
            until=Release(25, 2),
        ),
        Rule(
            "L706",
            "error",
            "a parameter has an impossible value",
            "The backend refuses values that it cannot read.",
            "write `0` or `1` for switches, the numeric code for choices, bytes for limits",
            values,
            scope="repository",
        ),
        Rule(
            "L710",
            "warning",
            "an unknown graph optimization level",
            "-1 is basic, 1 is extended, 2 switches optimization off; every other number means all.",
            "write -1, 1 or 2, or remove the level",
            graph_level,
            scope="repository",
        ),
        Rule(
            "L711",
            "info",
            "threads between operators are not used",
            "`inter_op_thread_count` counts only where `execution_mode` is 1.",
            "remove it, or set `execution_mode` to `1` for graphs with wide branches",
            inter_op,
            scope="repository",
        ),
    )
