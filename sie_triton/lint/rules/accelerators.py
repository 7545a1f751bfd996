"""Rules on the execution accelerators of the onnxruntime backend: in general, and the CUDA one."""

from __future__ import annotations

from collections.abc import Iterator

from sie_triton.backends.onnxruntime.parameters import CUDA_CHOICES, CUDA_PARAMETERS
from sie_triton.lint.accelerators import BOOLEANS, TRUE, accelerators, gpu_accelerators
from sie_triton.lint.groups import groups
from sie_triton.lint.rule import LintSubject, Problem, rule
from sie_triton.lint.wording import did_you_mean, quoted

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
_CUDA_KEYS = (*_CUDA_BOOLEANS, *_CUDA_NUMBERS, *CUDA_CHOICES)
# Fields of `optimization` that only the TensorRT backend looks at, says `model_config.proto`.
_PLAN_FIELDS = ("cuda", "gather_kernel_buffer_threshold", "eager_batching")


def _reset(s: LintSubject) -> frozenset[str]:
    """CUDA options that the accelerator cannot set, since the model has `parameters`."""
    return frozenset(CUDA_PARAMETERS) if s.config.parameters else frozenset()


@rule(
    "L705",
    "warning",
    title="a CUDA option is reset",
    explanation=(
        "Where a model has any `parameters`, the backend takes memory limit, arena strategy, convolution search and "
        "copy stream from there, and sets those that are missing to their defaults, over the accelerator's."
    ),
    hint="write the option in the model's `parameters`, with its numeric code",
    scope="repository",
)
def _cuda_defaults(s: LintSubject) -> Iterator[Problem]:
    for accelerator in (a for a in accelerators(s, "gpu") if a.name == "cuda"):
        for key in sorted((_reset(s) & set(accelerator.parameters)) - set(s.config.parameters)):
            text = f"`{key}` of the CUDA accelerator is reset to its default by the `parameters` of the model"
            yield Problem(text, accelerator.line(s, key))


@rule(
    "L713",
    "warning",
    title="a GPU accelerator on the CPU",
    explanation="GPU accelerators are looked at for GPU instances only.",
    hint="remove the accelerator, or add a KIND_GPU group",
    scope="repository",
)
def _used(s: LintSubject) -> Iterator[Problem]:
    if all(g.kind == "KIND_CPU" for g in groups(s)):
        for accelerator in accelerators(s, "gpu"):
            text = f"the GPU accelerator `{accelerator.name}` is ignored: all instances are on the CPU"
            yield Problem(text, accelerator.line(s))


@rule(
    "L714",
    "warning",
    title="a CUDA option that ONNX Runtime does not know",
    explanation=(
        "The backend hands the options of the `cuda` accelerator to ONNX Runtime unread, and ONNX Runtime refuses to "
        "make a session with an option that its version does not have."
    ),
    hint="correct the key, or check that the ONNX Runtime of your release has it",
    scope="repository",
)
def _cuda_keys(s: LintSubject) -> Iterator[Problem]:
    for accelerator in gpu_accelerators(s, "cuda"):
        for key in sorted(set(accelerator.parameters) - set(_CUDA_KEYS)):
            text = f"`{key}` is no option of ONNX Runtime's CUDA provider{did_you_mean(key, _CUDA_KEYS)}"
            yield Problem(text, accelerator.line(s, key))


@rule(
    "L715",
    "error",
    title="a CUDA option has an impossible value",
    explanation=(
        "In the accelerator choices are names (`kSameAsRequested`, `HEURISTIC`), while in `parameters` they are "
        "numbers; switches are `0` or `1`. ONNX Runtime refuses anything else."
    ),
    hint="write the name, `0` or `1`, or a number",
    scope="repository",
)
def _cuda_values(s: LintSubject) -> Iterator[Problem]:
    for accelerator in gpu_accelerators(s, "cuda"):
        for key, value in accelerator.parameters.items():
            if key in _reset(s) or not value:
                continue  # never reaches ONNX Runtime
            if key in _CUDA_BOOLEANS and value not in BOOLEANS:
                yield Problem(f"`{key}` is `{value}`, which is no boolean", accelerator.line(s, key))
            elif key in CUDA_CHOICES and value not in CUDA_CHOICES[key]:
                text = f"`{key}` is `{value}`, not one of {quoted(CUDA_CHOICES[key])}"
                yield Problem(text, accelerator.line(s, key))
            elif key in _CUDA_NUMBERS and not (value.isascii() and value.isdigit()):
                yield Problem(f"`{key}` is `{value}`, which is no number", accelerator.line(s, key))


@rule(
    "L719",
    "warning",
    title="CUDA graphs of ONNX Runtime behind Triton",
    explanation=(
        "A captured graph replays the addresses and shapes of one run. The backend binds the buffers of every run "
        "anew and requests differ in shape, so replaying answers with old inputs or fails."
    ),
    hint="remove the option",
    scope="repository",
)
def _cuda_graphs(s: LintSubject) -> Iterator[Problem]:
    for name, key in (("cuda", "enable_cuda_graph"), ("tensorrt", "trt_cuda_graph_enable")):
        for accelerator in gpu_accelerators(s, name):
            if accelerator.parameters.get(key) in TRUE:
                yield Problem(f"`{key}` is on", accelerator.line(s, key))


@rule(
    "L720",
    "warning",
    title="an optimization that only the TensorRT backend reads",
    explanation=(
        "`optimization.cuda` (CUDA graphs, busy waiting, the output stream), `gather_kernel_buffer_threshold` and "
        "`eager_batching` are read by the backend for TensorRT plans and ignored in silence by all others."
    ),
    hint="remove the field",
    scope="repository",
)
def _plan_fields(s: LintSubject) -> Iterator[Problem]:
    if s.config.is_ensemble or s.backend in ("", "tensorrt"):
        return
    for descriptor, _ in s.config.message.optimization.ListFields():
        if descriptor.name in _PLAN_FIELDS:
            yield Problem(f"`optimization.{descriptor.name}` is ignored", s.line("optimization", str(descriptor.name)))


@rule(
    "L721",
    "info",
    title="float32 runs as TF32 on a GPU",
    explanation=(
        "From Ampere on, ONNX Runtime multiplies float32 matrices in TF32, with 10 bits of mantissa: results differ "
        "from those on a CPU by about one part in a thousand."
    ),
    hint=(
        'where that matters write the accelerator `cuda` with `parameters { key: "use_tf32" value: "0" }`; else write '
        "`1` to say that it is meant"
    ),
    scope="repository",
)
def _tf32(s: LintSubject) -> Iterator[Problem]:
    if not s.is_onnx or not any(g.kind == "KIND_GPU" for g in groups(s)):
        return
    if any(a.name == "tensorrt" or "use_tf32" in a.parameters for a in accelerators(s, "gpu")):
        return
    if any(g.weights_type == "TYPE_FP32" for g in s.graphs):
        yield Problem("a float32 graph runs on a GPU without `use_tf32`", s.line("instance_group"))


@rule(
    "L736",
    "info",
    title="parameters of the OpenVINO accelerator",
    explanation=(
        "The backend opens ONNX Runtime's OpenVINO provider for the device `CPU` and reads no parameter. The embedded "
        "server reads `inference_precision`, so that the two may compute in different precisions."
    ),
    hint="remove the parameters, or serve with the embedded server",
    scope="repository",
)
def _openvino_parameters(s: LintSubject) -> Iterator[Problem]:
    for accelerator in (a for a in accelerators(s, "cpu") if a.name == "openvino"):
        for key in sorted(accelerator.parameters):
            yield Problem(f"NVIDIA's backend does not read `{key}` of `openvino`", accelerator.line(s, key))
