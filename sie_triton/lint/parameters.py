"""Rules on `parameters` and `optimization` as the onnxruntime backend reads them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from sie_triton.lint.instances import groups
from sie_triton.lint.release import Release
from sie_triton.lint.rule import Problem, Rule, Subject

_INTEGERS = ("intra_op_thread_count", "inter_op_thread_count", "execution_mode")
_BOOLEANS = ("enable_mem_arena", "enable_mem_pattern")
_CUDA = ("gpu_mem_limit", "arena_extend_strategy", "cudnn_conv_algo_search", "do_copy_in_default_stream")
_CHOICES = {"cudnn_conv_algo_search": ("0", "1", "2"), "arena_extend_strategy": ("0", "1")}
_DEVICE_INITIALIZERS = "session.use_device_allocator_for_initializers"
KNOWN_KEYS = (*_INTEGERS, *_BOOLEANS, *_CUDA, _DEVICE_INITIALIZERS, "memory.enable_memory_arena_shrinkage")
# Keys that belong to the server or to batching, whatever the backend.
_FOREIGN_KEYS = frozenset({"TRITON_BATCH_STRATEGY_PATH"})

_TENSORRT_KEYS = (
    "precision_mode",
    "max_workspace_size_bytes",
    "int8_calibration_table_name",
    "int8_use_native_calibration_table",
    "trt_max_partition_iterations",
    "trt_min_subgraph_size",
    "trt_dla_enable",
    "trt_dla_core",
    "trt_engine_cache_enable",
    "trt_engine_cache_path",
    "trt_engine_cache_prefix",
    "trt_dump_subgraphs",
    "trt_force_sequential_engine_build",
    "trt_context_memory_sharing_enable",
    "trt_layer_norm_fp32_fallback",
    "trt_timing_cache_enable",
    "trt_timing_cache_path",
    "trt_force_timing_cache",
    "trt_detailed_build_log",
    "trt_build_heuristics_enable",
    "trt_sparsity_enable",
    "trt_builder_optimization_level",
    "trt_auxiliary_streams",
    "trt_tactic_sources",
    "trt_extra_plugin_lib_paths",
    "trt_profile_min_shapes",
    "trt_profile_max_shapes",
    "trt_profile_opt_shapes",
    "trt_cuda_graph_enable",
    "trt_dump_ep_context_model",
    "trt_ep_context_file_path",
    "trt_ep_context_embed_mode",
)
_PROFILE_KEYS = ("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes")


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


def cuda_defaults(s: Subject) -> Iterator[Problem]:
    """CUDA options in the accelerator that a `parameters` block resets."""
    if not s.is_onnx or not s.config.parameters:
        return
    for path, accelerator in _accelerators(s, "gpu"):
        if accelerator.name == "cuda":
            for key in sorted(set(accelerator.parameters) & set(_CUDA) - set(s.config.parameters)):
                text = f"`{key}` of the CUDA accelerator is reset to its default by the `parameters` of the model"
                yield Problem(text, s.config.lines.entry((*path, "parameters"), key) or s.line(*path))


def values(s: Subject) -> Iterator[Problem]:
    """Values of the remaining keys."""
    for key, value, line in _written(s):
        if key in _BOOLEANS and value.lower() not in ("true", "false", "0", "1"):
            yield Problem(f"`{key}` is `{value}`, which is no boolean", line)
        elif key in _CHOICES and value.strip() not in _CHOICES[key]:
            yield Problem(f"`{key}` is `{value}`, not one of {', '.join(_CHOICES[key])}", line)
        elif key == "gpu_mem_limit" and not value.isdigit():
            yield Problem(f"`gpu_mem_limit` is `{value}`, which is no number of bytes", line)


def _accelerators(s: Subject, device: str) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Execution accelerators of `gpu` or `cpu`, with where they stand."""
    field = f"{device}_execution_accelerator"
    entries = getattr(s.config.message.optimization.execution_accelerators, field)
    for index, accelerator in enumerate(entries):
        yield ("optimization", "execution_accelerators", field, index), accelerator


def _tensorrt(s: Subject) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if s.is_onnx:
        yield from ((path, a) for path, a in _accelerators(s, "gpu") if a.name == "tensorrt")


def tensorrt_cached(s: Subject) -> Iterator[Problem]:
    """TensorRT engines are kept."""
    for path, accelerator in _tensorrt(s):
        enabled = accelerator.parameters.get("trt_engine_cache_enable", "").lower() in ("1", "true")
        if not enabled or not accelerator.parameters.get("trt_engine_cache_path"):
            yield Problem("the TensorRT accelerator has no engine cache", s.line(*path))


def tensorrt_profiles(s: Subject) -> Iterator[Problem]:
    """TensorRT knows the range of shapes."""
    dynamic = s.config.max_batch_size > 1 or any(-1 in t.dims for t in s.config.inputs)
    for path, accelerator in _tensorrt(s):
        missing = [key for key in _PROFILE_KEYS if not accelerator.parameters.get(key)]
        if dynamic and missing:
            keys = ", ".join(f"`{key}`" for key in missing)
            yield Problem(f"the TensorRT accelerator has dynamic shapes and no {keys}", s.line(*path))


def accelerators_known(s: Subject) -> Iterator[Problem]:
    """Accelerators and their keys are the backend's."""
    if not s.is_onnx:
        return
    for device, names in (("gpu", ("tensorrt", "cuda")), ("cpu", ("openvino",))):
        for path, accelerator in _accelerators(s, device):
            if accelerator.name not in names:
                known = ", ".join(f"`{n}`" for n in names)
                yield Problem(
                    f"`{accelerator.name}` is no {device} accelerator; there is {known}", s.line(*path, "name")
                )
    for path, accelerator in _tensorrt(s):
        for key in sorted(set(accelerator.parameters) - set(_TENSORRT_KEYS)):
            close = difflib.get_close_matches(key, _TENSORRT_KEYS, n=1)
            did_you_mean = f"; did you mean `{close[0]}`?" if close else ""
            line = s.config.lines.entry((*path, "parameters"), key) or s.line(*path)
            yield Problem(f"`{key}` is no key of the TensorRT accelerator{did_you_mean}", line)
        mode = accelerator.parameters.get("precision_mode", "FP32")
        if mode not in ("FP32", "FP16", "BF16", "INT8"):
            line = s.config.lines.entry((*path, "parameters"), "precision_mode") or s.line(*path)
            yield Problem(f"`precision_mode` is `{mode}`", line)


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


def cache_outside(s: Subject) -> Iterator[Problem]:
    """Nothing is written beside the models."""
    root = PurePosixPath(s.repository.path.absolute().as_posix())
    for path, accelerator in _tensorrt(s):
        for key in ("trt_engine_cache_path", "trt_timing_cache_path"):
            place = accelerator.parameters.get(key, "")
            if place and (PurePosixPath(place).is_relative_to(root) or not place.startswith("/")):
                line = s.config.lines.entry((*path, "parameters"), key) or s.line(*path)
                yield Problem(f"`{key}` is `{place}`, inside the repository or relative to the server's folder", line)


def accelerator_used(s: Subject) -> Iterator[Problem]:
    """GPU accelerators of models that only run on the CPU."""
    if s.is_onnx and all(g.kind == "KIND_CPU" for g in groups(s)):
        for path, accelerator in _accelerators(s, "gpu"):
            text = f"the GPU accelerator `{accelerator.name}` is ignored: all instances are on the CPU"
            yield Problem(text, s.line(*path))


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
            "L705",
            "warning",
            "a CUDA option is reset",
            "Where a model has any `parameters`, the backend takes memory limit, arena strategy, convolution search "
            "and "
            "copy stream from there, and sets those that are missing to their defaults, over the accelerator's.",
            "write the option in the model's `parameters`, with its numeric code",
            cuda_defaults,
            scope="repository",
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
            "L707",
            "warning",
            "TensorRT engines are built again at every start",
            "Without a cache every load, and every new shape, builds engines: tens of seconds each.",
            "set `trt_engine_cache_enable` to `1` and `trt_engine_cache_path` to a writable folder",
            tensorrt_cached,
            scope="repository",
        ),
        Rule(
            "L708",
            "warning",
            "TensorRT does not know the range of shapes",
            "Without minimum, optimum and maximum shapes the engine is built again whenever a new shape arrives.",
            "write `trt_profile_min_shapes`, `trt_profile_opt_shapes` and `trt_profile_max_shapes` for all inputs",
            tensorrt_profiles,
            scope="repository",
        ),
        Rule(
            "L709",
            "error",
            "an accelerator or its option is unknown",
            "The backend refuses accelerators and TensorRT options that it does not know.",
            "correct the name",
            accelerators_known,
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
        Rule(
            "L712",
            "warning",
            "a cache beside the models",
            "Repositories are mounted read-only, shared or copied to a temporary folder: caches belong elsewhere.",
            "use an absolute path outside the repository",
            cache_outside,
            scope="repository",
        ),
        Rule(
            "L713",
            "warning",
            "a GPU accelerator on the CPU",
            "GPU accelerators are looked at for GPU instances only.",
            "remove the accelerator, or add a KIND_GPU group",
            accelerator_used,
            scope="repository",
        ),
    )
