"""Rules on the TensorRT accelerator of the onnxruntime backend: options, caches, precision, devices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from sie_triton.backends.onnxruntime.parameters import CPU_ACCELERATORS, GPU_ACCELERATORS
from sie_triton.backends.received import read_boolean
from sie_triton.backends.releases import Release
from sie_triton.lint.accelerators import BOOLEANS, AcceleratorEntry, accelerators, gpu_accelerators, on_gpu
from sie_triton.lint.config import ConfigFile
from sie_triton.lint.groups import groups
from sie_triton.lint.repository import ModelFolder
from sie_triton.lint.rule import LintSubject, Problem, rule
from sie_triton.lint.rules.tensorrt_profiles import PROFILES
from sie_triton.lint.wording import did_you_mean, quoted

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
_CACHES = ("trt_engine_cache_path", "trt_timing_cache_path")
_KEYS = (
    "precision_mode",
    *_BOOLEANS,
    *_INTEGERS,
    *PROFILES,
    *_CACHES,
    "int8_calibration_table_name",
    "trt_engine_cache_prefix",
    "trt_tactic_sources",
    "trt_extra_plugin_lib_paths",
    "trt_ep_context_file_path",
)
_KNOWN = {"gpu": GPU_ACCELERATORS, "cpu": CPU_ACCELERATORS}
_PRECISIONS = ("FP32", "FP16", "BF16", "INT8")
_MAX_FLOAT16 = 65504.0


def _tensorrt(s: LintSubject) -> list[AcceleratorEntry]:
    return gpu_accelerators(s, "tensorrt")


def _keeps_engines(accelerator: AcceleratorEntry) -> bool:
    return read_boolean(accelerator.parameters.get("trt_engine_cache_enable", "")) is True


@rule(
    "L707",
    "warning",
    title="TensorRT engines are built again at every start",
    explanation="Without a cache every load, and every new shape, builds engines: tens of seconds each.",
    hint="set `trt_engine_cache_enable` to `1` and `trt_engine_cache_path` to a writable folder",
    scope="repository",
)
def _cached(s: LintSubject) -> Iterator[Problem]:
    for accelerator in _tensorrt(s):
        if not _keeps_engines(accelerator) or not accelerator.parameters.get("trt_engine_cache_path"):
            yield Problem("the TensorRT accelerator has no engine cache", accelerator.line(s))


@rule(
    "L709",
    "error",
    title="an accelerator or its option is unknown",
    explanation=(
        "The backend refuses accelerators, and options of the TensorRT one, that it does not know. ONNX Runtime's own "
        "names for precision and workspace (`trt_fp16_enable`, `trt_max_workspace_size`) are among them."
    ),
    hint="correct the name; the backend's own are `precision_mode` and `max_workspace_size_bytes`",
    scope="repository",
)
def _accelerators_known(s: LintSubject) -> Iterator[Problem]:
    for device, names in _KNOWN.items():
        for accelerator in accelerators(s, device):
            if accelerator.name not in names and (device == "cpu" or on_gpu(s)):
                text = f"`{accelerator.name}` is no {device} accelerator; there is {quoted(names)}"
                yield Problem(text, s.line(*accelerator.path, "name"))
    for accelerator in _tensorrt(s):
        mode = accelerator.parameters.get("precision_mode", "FP32")
        if mode not in _PRECISIONS:
            yield Problem(f"`precision_mode` is `{mode}`", accelerator.line(s, "precision_mode"))
        for key in sorted(set(accelerator.parameters) - set(_KEYS)):
            text = f"`{key}` is no key of the TensorRT accelerator{did_you_mean(key, _KEYS)}"
            yield Problem(text, accelerator.line(s, key))


@rule(
    "L712",
    "warning",
    title="a cache beside the models",
    explanation="Repositories are mounted read-only, shared or copied to a temporary folder: caches belong elsewhere.",
    hint="use an absolute path outside the repository",
    scope="repository",
)
def _cache_outside(s: LintSubject) -> Iterator[Problem]:
    root = PurePosixPath(s.repository.path.absolute().as_posix())
    for accelerator in _tensorrt(s):
        for key in _CACHES:
            place = accelerator.parameters.get(key, "")
            if place and (PurePosixPath(place).is_relative_to(root) or not place.startswith("/")):
                text = f"`{key}` is `{place}`, inside the repository or relative to the server's folder"
                yield Problem(text, accelerator.line(s, key))


@rule(
    "L716",
    "error",
    title="a TensorRT option has an impossible value",
    explanation=(
        "The backend refuses switches and numbers that it cannot read, and ONNX Runtime switches other than `0`, `1`, "
        "`true` and `false`."
    ),
    hint="write `0` or `1`, or a number",
    scope="repository",
)
def _options_readable(s: LintSubject) -> Iterator[Problem]:
    for accelerator in _tensorrt(s):
        for key, value in accelerator.parameters.items():
            text = ""
            if key in _BOOLEANS and value not in BOOLEANS:
                text = f"`{key}` is `{value}`, which is no boolean"
            elif key in _INTEGERS and not re.fullmatch(r"[+-]?[0-9]{1,20}", value):
                text = f"`{key}` is `{value}`, which is no integer"
            if text:
                yield Problem(text, accelerator.line(s, key))


@rule(
    "L725",
    "warning",
    title="two models share an engine cache",
    explanation=(
        "An engine's file name is made of the name of the graph's file, not of its folder, and of the names inside "
        "the graph, not of its weights. Two models of one architecture then load each other's engines and answer with "
        "each other's vectors."
    ),
    hint="give every model a folder or a `trt_engine_cache_prefix` of its own",
    scope="repository",
)
def _cache_shared(s: LintSubject) -> Iterator[Problem]:
    ours = _cache(s, s.model, s.config)
    for model in s.repository.models.values() if ours else ():
        same = model is not s.model and any(_cache(s, model, config) == ours for config in model.configs)
        if same and ours is not None:
            (accelerator, *_) = _tensorrt(s)
            text = f"the engine cache `{ours[0]}` is also that of `{model.name}`, for a graph file of the same name"
            yield Problem(text, accelerator.line(s, "trt_engine_cache_path"))


def _cache(s: LintSubject, model: ModelFolder, config: ConfigFile) -> tuple[str, str, str] | None:
    """Folder, prefix and graph file of a configuration that keeps engines: what an engine's file name is made of."""
    other = s.beside(model, config)
    for accelerator in _tensorrt(other):
        written = accelerator.parameters
        if _keeps_engines(accelerator):
            place = PurePosixPath(written.get("trt_engine_cache_path", ""))
            return (str(place), written.get("trt_engine_cache_prefix", ""), model.model_file(config))
    return None


@rule(
    "L722",
    "warning",
    title="a constant that float16 cannot hold",
    explanation=(
        "TensorRT in FP16 turns float32 constants into half precision, which ends at 65504: masks of -1e9 or of "
        "float32's minimum overflow or stop the engine's build."
    ),
    hint="serve a graph that was exported in float16, or use FP32 or BF16",
    scope="repository",
)
def _float16_constants(s: LintSubject) -> Iterator[Problem]:
    for accelerator in _tensorrt(s):
        if accelerator.parameters.get("precision_mode") != "FP16":
            continue
        for graph in s.graphs:
            if graph.largest_constant > _MAX_FLOAT16:
                text = f"the graph has a float32 constant of {graph.largest_constant:.3g}, and `precision_mode` is FP16"
                yield Problem(text, accelerator.line(s, "precision_mode"))


@rule(
    "L723",
    "error",
    title="BF16 with a TensorRT provider that has none",
    explanation="ONNX Runtime can ask TensorRT for BF16 from 1.23 on, which is in Triton from 25.09 on.",
    hint="write FP16 or FP32, or serve with 25.09 or newer",
    scope="repository",
    until=Release(25, 9),
)
def _bf16(s: LintSubject) -> Iterator[Problem]:
    for accelerator in _tensorrt(s):
        if accelerator.parameters.get("precision_mode") == "BF16":
            line = accelerator.line(s, "precision_mode")
            yield Problem(f"`precision_mode` is `BF16` on Triton {s.release}", line)


@rule(
    "L724",
    "warning",
    title="TensorRT builds on the first GPU only",
    explanation=(
        "The backend passes the number of the GPU along with the accelerator's parameters; an accelerator without any "
        "is made for GPU 0 in every instance."
    ),
    hint='write a parameter, such as `parameters { key: "precision_mode" value: "FP32" }`',
    scope="repository",
)
def _device_told(s: LintSubject) -> Iterator[Problem]:
    several = s.machine is not None and s.machine.gpus > 1
    named = any(number > 0 for g in groups(s) for number in g.gpus)
    for accelerator in _tensorrt(s):
        if not accelerator.parameters and (several or named):
            yield Problem("the TensorRT accelerator has no parameter, and there are several GPUs", accelerator.line(s))
