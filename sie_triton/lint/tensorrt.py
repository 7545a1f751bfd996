"""Rules on the TensorRT accelerator of the onnxruntime backend: options, shape profiles, caches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

from sie_triton.lint.accelerators import BOOLEANS, Accelerator, did_you_mean, gpu_accelerators, known
from sie_triton.lint.config import Config
from sie_triton.lint.instances import groups
from sie_triton.lint.release import Release
from sie_triton.lint.repository import Model
from sie_triton.lint.rule import Problem, Rule, Subject

_BOOLEANS = (
    "int8_use_native_calibration_table",
    "trt_dla_enable",
    "trt_engine_cache_enable",
    "trt_dump_subgraphs",
    "trt_force_sequential_engine_build",
    "trt_context_memory_sharing_enable",
    "trt_layer_norm_fp32_fallback",
    "trt_timing_cache_enable",
    "trt_force_timing_cache",
    "trt_detailed_build_log",
    "trt_build_heuristics_enable",
    "trt_sparsity_enable",
    "trt_cuda_graph_enable",
    "trt_dump_ep_context_model",
)
_INTEGERS = (
    "max_workspace_size_bytes",
    "trt_max_partition_iterations",
    "trt_min_subgraph_size",
    "trt_dla_core",
    "trt_builder_optimization_level",
    "trt_auxiliary_streams",
    "trt_ep_context_embed_mode",
)
_PROFILES = ("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes")
_CACHES = ("trt_engine_cache_path", "trt_timing_cache_path")
_KEYS = (
    "precision_mode",
    *_BOOLEANS,
    *_INTEGERS,
    *_PROFILES,
    *_CACHES,
    "int8_calibration_table_name",
    "trt_engine_cache_prefix",
    "trt_tactic_sources",
    "trt_extra_plugin_lib_paths",
    "trt_ep_context_file_path",
)
_PRECISIONS = ("FP32", "FP16", "BF16", "INT8")
_MAX_FLOAT16 = 65504.0

Shape = tuple[int, ...]
Profile = Mapping[str, Shape]


def _tensorrt(s: Subject) -> list[Accelerator]:
    return gpu_accelerators(s, "tensorrt")


def accelerators_known(s: Subject) -> Iterator[Problem]:
    """Accelerators and their keys are the backend's."""
    yield from known(s)
    for accelerator in _tensorrt(s):
        mode = accelerator.parameters.get("precision_mode", "FP32")
        if mode not in _PRECISIONS:
            yield Problem(f"`precision_mode` is `{mode}`", accelerator.line(s, "precision_mode"))
        for key in sorted(set(accelerator.parameters) - set(_KEYS)):
            text = f"`{key}` is no key of the TensorRT accelerator{did_you_mean(key, _KEYS)}"
            yield Problem(text, accelerator.line(s, key))


def options_readable(s: Subject) -> Iterator[Problem]:
    """Options of the TensorRT accelerator have values that backend and ONNX Runtime can read."""
    for accelerator in _tensorrt(s):
        for key, value in accelerator.parameters.items():
            text = ""
            if key in _BOOLEANS and value not in BOOLEANS:
                text = f"`{key}` is `{value}`, which is no boolean"
            elif key in _INTEGERS and not re.fullmatch(r"[+-]?[0-9]{1,20}", value):
                text = f"`{key}` is `{value}`, which is no integer"
            if text:
                yield Problem(text, accelerator.line(s, key))


def bf16(s: Subject) -> Iterator[Problem]:
    """BF16 before ONNX Runtime could ask TensorRT for it."""
    for accelerator in _tensorrt(s):
        if accelerator.parameters.get("precision_mode") == "BF16":
            line = accelerator.line(s, "precision_mode")
            yield Problem(f"`precision_mode` is `BF16` on Triton {s.release}", line)


def cached(s: Subject) -> Iterator[Problem]:
    """TensorRT engines are kept."""
    for accelerator in _tensorrt(s):
        enabled = accelerator.parameters.get("trt_engine_cache_enable", "").lower() in ("1", "true")
        if not enabled or not accelerator.parameters.get("trt_engine_cache_path"):
            yield Problem("the TensorRT accelerator has no engine cache", accelerator.line(s))


def cache_outside(s: Subject) -> Iterator[Problem]:
    """Nothing is written beside the models."""
    root = PurePosixPath(s.repository.path.absolute().as_posix())
    for accelerator in _tensorrt(s):
        for key in _CACHES:
            place = accelerator.parameters.get(key, "")
            if place and (PurePosixPath(place).is_relative_to(root) or not place.startswith("/")):
                text = f"`{key}` is `{place}`, inside the repository or relative to the server's folder"
                yield Problem(text, accelerator.line(s, key))


def _cache(s: Subject, model: Model, config: Config) -> tuple[str, str, str] | None:
    """Folder, prefix and graph file of a configuration that keeps engines: what an engine's file name is made of."""
    other = Subject(s.repository, model, config, s.release, s.machine)
    for accelerator in _tensorrt(other):
        written = accelerator.parameters
        if written.get("trt_engine_cache_enable", "").lower() in ("1", "true"):
            place = PurePosixPath(written.get("trt_engine_cache_path", ""))
            return (str(place), written.get("trt_engine_cache_prefix", ""), model.model_file(config))
    return None


def cache_shared(s: Subject) -> Iterator[Problem]:
    """No two models find each other's engines."""
    ours = _cache(s, s.model, s.config)
    for model in s.repository.models.values() if ours else ():
        same = model is not s.model and any(_cache(s, model, config) == ours for config in model.configs)
        if same and ours is not None:
            (accelerator, *_) = _tensorrt(s)
            text = f"the engine cache `{ours[0]}` is also that of `{model.name}`, for a graph file of the same name"
            yield Problem(text, accelerator.line(s, "trt_engine_cache_path"))


def _parse_profile(text: str) -> Profile | None:
    """`a:1x16,b:1x16` as shapes by tensor; None where it is not of that form or names a tensor twice."""
    shapes: dict[str, Shape] = {}
    for part in text.split(","):
        name, mark, dims = part.strip().rpartition(":")
        if not mark or not name or not re.fullmatch(r"[0-9]{1,9}(x[0-9]{1,9})*", dims) or name in shapes:
            return None
        shapes[name] = tuple(int(d) for d in dims.split("x"))
    return shapes


def _profiles(accelerator: Accelerator) -> tuple[Profile, Profile, Profile] | None:
    """Minimum, optimum and maximum where all three are written and readable."""
    low, best, high = (_parse_profile(accelerator.parameters.get(key) or "") for key in _PROFILES)
    return None if low is None or best is None or high is None else (low, best, high)


def profiles_written(s: Subject) -> Iterator[Problem]:
    """TensorRT knows the range of shapes."""
    dynamic = s.config.max_batch_size > 1 or any(-1 in t.dims for t in s.config.inputs)
    for accelerator in _tensorrt(s):
        missing = [key for key in _PROFILES if not accelerator.parameters.get(key)]
        if dynamic and missing:
            keys = ", ".join(f"`{key}`" for key in missing)
            yield Problem(f"the TensorRT accelerator has dynamic shapes and no {keys}", accelerator.line(s))


def profiles_consistent(s: Subject) -> Iterator[Problem]:
    """The three profiles are readable and belong together."""
    for accelerator in _tensorrt(s):
        for key in _PROFILES:
            text = accelerator.parameters.get(key)
            if text and _parse_profile(text) is None:
                yield Problem(f"`{key}` is `{text}`, not `NAME:1x16,NAME:1x16`", accelerator.line(s, key))
        profiles = _profiles(accelerator)
        if profiles is None:
            continue
        low, best, high = profiles
        line = accelerator.line(s, _PROFILES[2])
        if not set(low) == set(best) == set(high):
            yield Problem("the three shape profiles do not name the same tensors", line)
            continue
        for name in low:
            a, b, c = low[name], best[name], high[name]
            if not len(a) == len(b) == len(c):
                yield Problem(f"the shape profiles of `{name}` differ in rank", line)
            elif not all(x <= y <= z for x, y, z in zip(a, b, c, strict=True)):
                yield Problem(f"the shape profiles of `{name}` are not in the order min, opt, max", line)


def profiles_cover(s: Subject) -> Iterator[Problem]:
    """The profiles cover what the configuration lets in."""
    for accelerator in _tensorrt(s):
        profiles = _profiles(accelerator)
        if profiles is None or not set(profiles[0]) == set(profiles[1]) == set(profiles[2]):
            continue  # said by `profiles_consistent`
        low, _, high = profiles
        inputs = {t.name: t for t in s.config.inputs}
        for name in sorted(set(high) - set(inputs)):
            yield Problem(f"the shape profiles name `{name}`, which is no input", accelerator.line(s, _PROFILES[2]))
        for name, tensor in inputs.items():
            batch = (-1,) if s.config.max_batch_size > 0 and not tensor.ragged else ()
            shape = (*batch, *tensor.graph_dims)
            if name not in high:
                if -1 in shape:
                    line = accelerator.line(s, _PROFILES[2])
                    yield Problem(f"the dynamic input `{name}` has no shape profile", line)
                continue
            yield from _covers(s, accelerator, name, shape, low[name], high[name])


def _covers(
    s: Subject, accelerator: Accelerator, name: str, shape: Shape, low: Shape, high: Shape
) -> Iterator[Problem]:
    """Problems of one input; `shape` includes the batch, -1 is any size."""
    line = accelerator.line(s, _PROFILES[2])
    if len(shape) != len(high) or len(shape) != len(low):
        yield Problem(f"`{name}` has {len(shape)} dimensions with the batch, its profile {len(high)}", line)
        return
    if any(d not in (-1, a) or d not in (-1, b) for d, a, b in zip(shape, low, high, strict=True)):
        yield Problem(f"`{name}` has the shape {list(shape)}, which its profile does not cover", line)
    if s.config.max_batch_size > 0 and shape[:1] == (-1,):
        if low[0] > 1:
            yield Problem(f"the profile of `{name}` begins at {low[0]} rows", accelerator.line(s, _PROFILES[0]))
        if high[0] < s.config.max_batch_size:
            text = f"the profile of `{name}` ends at {high[0]} rows, `max_batch_size` is {s.config.max_batch_size}"
            yield Problem(text, line)


def float16_constants(s: Subject) -> Iterator[Problem]:
    """Constants of a float32 graph that float16 cannot hold."""
    for accelerator in _tensorrt(s):
        if accelerator.parameters.get("precision_mode") != "FP16":
            continue
        for graph in s.graphs:
            if graph.largest_constant > _MAX_FLOAT16:
                text = f"the graph has a float32 constant of {graph.largest_constant:.3g}, and `precision_mode` is FP16"
                yield Problem(text, accelerator.line(s, "precision_mode"))


def device_told(s: Subject) -> Iterator[Problem]:
    """TensorRT is told on which GPU to build."""
    several = s.machine is not None and s.machine.gpus > 1
    named = any(number > 0 for g in groups(s) for number in g.gpus)
    for accelerator in _tensorrt(s):
        if not accelerator.parameters and (several or named):
            yield Problem("the TensorRT accelerator has no parameter, and there are several GPUs", accelerator.line(s))


def rules() -> Iterable[Rule]:
    """The rules of this file. They look at the repository, since the model file alone may tell the backend."""
    return (
        Rule(
            "L707",
            "warning",
            "TensorRT engines are built again at every start",
            "Without a cache every load, and every new shape, builds engines: tens of seconds each.",
            "set `trt_engine_cache_enable` to `1` and `trt_engine_cache_path` to a writable folder",
            cached,
            scope="repository",
        ),
        Rule(
            "L708",
            "warning",
            "TensorRT does not know the range of shapes",
            "Without minimum, optimum and maximum shapes the engine is built again whenever a new shape arrives.",
            "write `trt_profile_min_shapes`, `trt_profile_opt_shapes` and `trt_profile_max_shapes` for all inputs",
            profiles_written,
            scope="repository",
        ),
        Rule(
            "L709",
            "error",
            "an accelerator or its option is unknown",
            "The backend refuses accelerators, and options of the TensorRT one, that it does not know. ONNX Runtime's "
            "own names for precision and workspace (`trt_fp16_enable`, `trt_max_workspace_size`) are among them.",
            "correct the name; the backend's own are `precision_mode` and `max_workspace_size_bytes`",
            accelerators_known,
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
            "L716",
            "error",
            "a TensorRT option has an impossible value",
            "The backend refuses switches and numbers that it cannot read, and ONNX Runtime switches other than `0`, "
            "`1`, `true` and `false`.",
            "write `0` or `1`, or a number",
            options_readable,
            scope="repository",
        ),
        Rule(
            "L717",
            "error",
            "TensorRT shape profiles that do not belong together",
            "Minimum, optimum and maximum name the same tensors, as `NAME:1x16,NAME:1x16` with the batch first, and "
            "grow in this order; else ONNX Runtime does not make the session.",
            "write the same tensors with growing shapes in all three",
            profiles_consistent,
            scope="repository",
        ),
        Rule(
            "L718",
            "warning",
            "TensorRT shape profiles that do not cover the inputs",
            "Profiles are for every dynamic input, from one row to `max_batch_size`. Where an input has none the "
            "session is refused; a request outside of them rebuilds the engine while it waits. A name that is no input "
            "is right only where TensorRT takes a part of the graph.",
            "name every dynamic input; let the minimum be one row, the maximum `max_batch_size` rows of the longest "
            "input",
            profiles_cover,
            scope="repository",
        ),
        Rule(
            "L722",
            "warning",
            "a constant that float16 cannot hold",
            "TensorRT in FP16 turns float32 constants into half precision, which ends at 65504: masks of -1e9 or of "
            "float32's minimum overflow or stop the engine's build.",
            "serve a graph that was exported in float16, or use FP32 or BF16",
            float16_constants,
            scope="repository",
        ),
        Rule(
            "L723",
            "error",
            "BF16 with a TensorRT provider that has none",
            "ONNX Runtime can ask TensorRT for BF16 from 1.23 on, which is in Triton from 25.09 on.",
            "write FP16 or FP32, or serve with 25.09 or newer",
            bf16,
            scope="repository",
            until=Release(25, 9),
        ),
        Rule(
            "L724",
            "warning",
            "TensorRT builds on the first GPU only",
            "The backend passes the number of the GPU along with the accelerator's parameters; an accelerator without "
            "any is made for GPU 0 in every instance.",
            'write a parameter, such as `parameters { key: "precision_mode" value: "FP32" }`',
            device_told,
            scope="repository",
        ),
        Rule(
            "L725",
            "warning",
            "two models share an engine cache",
            "An engine's file name is made of the name of the graph's file, not of its folder, and of the names inside "
            "the graph, not of its weights. Two models of one architecture then load each other's engines and answer "
            "with each other's vectors.",
            "give every model a folder or a `trt_engine_cache_prefix` of its own",
            cache_shared,
            scope="repository",
        ),
    )
