"""Rules on `optimization` as the onnxruntime backend reads it: accelerators in general, and the CUDA one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sie_triton.lint.instances import groups
from sie_triton.lint.parameters import CUDA_PARAMETERS
from sie_triton.lint.rule import Problem, Rule, Subject

# What ONNX Runtime's boolean options can be: the backend's own reading is wider, but it hands the text on.
BOOLEANS = frozenset({"0", "1", "true", "false", "True", "False"})
TRUE = frozenset({"1", "true", "True"})

# The CUDA options of ONNX Runtime 1.19, and those that later releases added.
_CUDA_BOOLEANS = (
    "do_copy_in_default_stream",
    "cudnn_conv_use_max_workspace",
    "enable_cuda_graph",
    "cudnn_conv1d_pad_to_nc1d",
    "tunable_op_enable",
    "tunable_op_tuning_enable",
    "enable_skip_layer_norm_strict_mode",
    "prefer_nhwc",
    "use_ep_level_unified_stream",
    "use_tf32",
    "fuse_conv_bias",
)
_CUDA_NUMBERS = ("gpu_mem_limit", "tunable_op_max_tuning_duration_ms", "sdpa_kernel")
_CUDA_CHOICES = {
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
}
_CUDA_KEYS = (*_CUDA_BOOLEANS, *_CUDA_NUMBERS, *_CUDA_CHOICES)
_KNOWN = {"gpu": ("tensorrt", "cuda"), "cpu": ("openvino",)}
# Fields of `optimization` that only the TensorRT backend looks at, says `model_config.proto`.
_PLAN_FIELDS = ("cuda", "gather_kernel_buffer_threshold", "eager_batching")


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One execution accelerator of a configuration and where it stands."""

    device: str
    index: int
    name: str
    parameters: dict[str, str]

    @property
    def path(self) -> tuple[str | int, ...]:
        """Its place among the fields."""
        return ("optimization", "execution_accelerators", f"{self.device}_execution_accelerator", self.index)

    def line(self, s: Subject, key: str | None = None) -> int | None:
        """Line of the parameter `key`, else of the accelerator."""
        line = None if key is None else s.config.lines.entry((*self.path, "parameters"), key)
        return line or s.line(*self.path)


def accelerators(s: Subject, device: str) -> list[Accelerator]:
    """The accelerators of `gpu` or `cpu` that the onnxruntime backend reads; none for other backends."""
    if not s.is_onnx:
        return []
    written = getattr(s.config.message.optimization.execution_accelerators, f"{device}_execution_accelerator")
    return [
        Accelerator(device, i, str(a.name), {str(k): str(v) for k, v in sorted(a.parameters.items())})
        for i, a in enumerate(written)
    ]


def on_gpu(s: Subject) -> bool:
    """Whether some instances may run on a GPU: only for those does the backend look at GPU accelerators."""
    return any(g.kind in ("KIND_GPU", "KIND_AUTO") and s.on_cpu(g.kind) is not True for g in groups(s))


def gpu_accelerators(s: Subject, name: str) -> list[Accelerator]:
    """The GPU accelerators of one name, where they are looked at."""
    return [a for a in accelerators(s, "gpu") if a.name == name] if on_gpu(s) else []


def did_you_mean(key: str, known: Sequence[str]) -> str:
    """The end of a sentence about an unknown key."""
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean `{close[0]}`?" if close else ""


def _reset(s: Subject) -> frozenset[str]:
    """CUDA options that the accelerator cannot set, since the model has `parameters`."""
    return frozenset(CUDA_PARAMETERS) if s.config.parameters else frozenset()


def cuda_defaults(s: Subject) -> Iterator[Problem]:
    """CUDA options in the accelerator that a `parameters` block resets."""
    for accelerator in (a for a in accelerators(s, "gpu") if a.name == "cuda"):
        for key in sorted((_reset(s) & set(accelerator.parameters)) - set(s.config.parameters)):
            text = f"`{key}` of the CUDA accelerator is reset to its default by the `parameters` of the model"
            yield Problem(text, accelerator.line(s, key))


def known(s: Subject) -> Iterator[Problem]:
    """Accelerators are the backend's."""
    for device, names in _KNOWN.items():
        for accelerator in accelerators(s, device):
            if accelerator.name not in names and (device == "cpu" or on_gpu(s)):
                there = ", ".join(f"`{n}`" for n in names)
                line = s.line(*accelerator.path, "name")
                yield Problem(f"`{accelerator.name}` is no {device} accelerator; there is {there}", line)


def used(s: Subject) -> Iterator[Problem]:
    """GPU accelerators of models that only run on the CPU."""
    if all(g.kind == "KIND_CPU" for g in groups(s)):
        for accelerator in accelerators(s, "gpu"):
            text = f"the GPU accelerator `{accelerator.name}` is ignored: all instances are on the CPU"
            yield Problem(text, accelerator.line(s))


def cuda_keys(s: Subject) -> Iterator[Problem]:
    """Options of the CUDA accelerator are ONNX Runtime's."""
    for accelerator in gpu_accelerators(s, "cuda"):
        for key in sorted(set(accelerator.parameters) - set(_CUDA_KEYS)):
            text = f"`{key}` is no option of ONNX Runtime's CUDA provider{did_you_mean(key, _CUDA_KEYS)}"
            yield Problem(text, accelerator.line(s, key))


def cuda_values(s: Subject) -> Iterator[Problem]:
    """Options of the CUDA accelerator have values that ONNX Runtime can read."""
    for accelerator in gpu_accelerators(s, "cuda"):
        for key, value in accelerator.parameters.items():
            if key in _reset(s) or not value:
                continue  # never reaches ONNX Runtime
            if key in _CUDA_BOOLEANS and value not in BOOLEANS:
                yield Problem(f"`{key}` is `{value}`, which is no boolean", accelerator.line(s, key))
            elif key in _CUDA_CHOICES and value not in _CUDA_CHOICES[key]:
                choices = ", ".join(f"`{c}`" for c in _CUDA_CHOICES[key])
                yield Problem(f"`{key}` is `{value}`, not one of {choices}", accelerator.line(s, key))
            elif key in _CUDA_NUMBERS and not (value.isascii() and value.isdigit()):
                yield Problem(f"`{key}` is `{value}`, which is no number", accelerator.line(s, key))


def cuda_graphs(s: Subject) -> Iterator[Problem]:
    """No replay of captured addresses."""
    for name, key in (("cuda", "enable_cuda_graph"), ("tensorrt", "trt_cuda_graph_enable")):
        for accelerator in gpu_accelerators(s, name):
            if accelerator.parameters.get(key) in TRUE:
                yield Problem(f"`{key}` is on", accelerator.line(s, key))


def plan_fields(s: Subject) -> Iterator[Problem]:
    """Optimizations that only the TensorRT backend knows."""
    if s.config.is_ensemble or s.backend in ("", "tensorrt"):
        return
    for descriptor, _ in s.config.message.optimization.ListFields():
        if descriptor.name in _PLAN_FIELDS:
            yield Problem(f"`optimization.{descriptor.name}` is ignored", s.line("optimization", str(descriptor.name)))


def tf32(s: Subject) -> Iterator[Problem]:
    """Float32 on a GPU is what it says."""
    if not s.is_onnx or not any(g.kind == "KIND_GPU" for g in groups(s)):
        return
    if any(a.name == "tensorrt" or "use_tf32" in a.parameters for a in accelerators(s, "gpu")):
        return
    if any(g.weights_type == "TYPE_FP32" for g in s.graphs):
        yield Problem("a float32 graph runs on a GPU without `use_tf32`", s.line("instance_group"))


def rules() -> Iterable[Rule]:
    """The rules of this file. They look at the repository, since the model file alone may tell the backend."""
    return (
        Rule(
            "L705",
            "warning",
            "a CUDA option is reset",
            "Where a model has any `parameters`, the backend takes memory limit, arena strategy, convolution search "
            "and copy stream from there, and sets those that are missing to their defaults, over the accelerator's.",
            "write the option in the model's `parameters`, with its numeric code",
            cuda_defaults,
            scope="repository",
        ),
        Rule(
            "L713",
            "warning",
            "a GPU accelerator on the CPU",
            "GPU accelerators are looked at for GPU instances only.",
            "remove the accelerator, or add a KIND_GPU group",
            used,
            scope="repository",
        ),
        Rule(
            "L714",
            "warning",
            "a CUDA option that ONNX Runtime does not know",
            "The backend hands the options of the `cuda` accelerator to ONNX Runtime unread, and ONNX Runtime refuses "
            "to make a session with an option that its version does not have.",
            "correct the key, or check that the ONNX Runtime of your release has it",
            cuda_keys,
            scope="repository",
        ),
        Rule(
            "L715",
            "error",
            "a CUDA option has an impossible value",
            "In the accelerator choices are names (`kSameAsRequested`, `HEURISTIC`), while in `parameters` they are "
            "numbers; switches are `0` or `1`. ONNX Runtime refuses anything else.",
            "write the name, `0` or `1`, or a number",
            cuda_values,
            scope="repository",
        ),
        Rule(
            "L719",
            "warning",
            "CUDA graphs of ONNX Runtime behind Triton",
            "A captured graph replays the addresses and shapes of one run. The backend binds the buffers of every run "
            "anew and requests differ in shape, so replaying answers with old inputs or fails.",
            "remove the option",
            cuda_graphs,
            scope="repository",
        ),
        Rule(
            "L720",
            "warning",
            "an optimization that only the TensorRT backend reads",
            "`optimization.cuda` (CUDA graphs, busy waiting, the output stream), `gather_kernel_buffer_threshold` and "
            "`eager_batching` are read by the backend for TensorRT plans and ignored in silence by all others.",
            "remove the field",
            plan_fields,
            scope="repository",
        ),
        Rule(
            "L721",
            "info",
            "float32 runs as TF32 on a GPU",
            "From Ampere on, ONNX Runtime multiplies float32 matrices in TF32, with 10 bits of mantissa: results "
            "differ from those on a CPU by about one part in a thousand.",
            'where that matters write the accelerator `cuda` with `parameters { key: "use_tf32" value: "0" }`; else '
            "write `1` to say that it is meant",
            tf32,
            scope="repository",
        ),
    )
