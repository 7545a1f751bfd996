"""Rules on instance groups: devices, copies of the weights, threads."""

from __future__ import annotations

from collections.abc import Iterator

from sie_triton.backends.received import read_boolean, read_integer
from sie_triton.lint.config import model_config_pb2
from sie_triton.lint.groups import groups
from sie_triton.lint.rule import LintSubject, Problem, rule

_DEFAULT_CPU_COUNT = 2  # the server's own default for the onnxruntime backend on CPU
# On a CPU ONNX Runtime has kernels for few operators in half precision, and converts around the others.
_HALF = ("TYPE_FP16", "TYPE_BF16")


def _threads(s: LintSubject) -> int | None:
    """Threads of one instance's session as written; None where that is absent, 0 or no number."""
    number = read_integer(s.config.parameters.get("intra_op_thread_count", ""))
    return number if number is not None and number > 0 else None


def _for_other_machines(s: LintSubject) -> bool:
    """Whether this is a variant for GPUs beside a `config.pbtxt` that needs none: a machine without GPUs skips it."""
    default = s.model.default
    kinds = model_config_pb2().ModelInstanceGroup.Kind
    return (
        default is not None
        and default is not s.config
        and not any(g.kind == kinds.Value("KIND_GPU") for g in default.message.instance_group)
    )


@rule(
    "L501",
    "error",
    title="KIND_GPU without a GPU",
    explanation=(
        "Triton refuses the model, and in the default mode exits. Variants in `configs/` are left alone where "
        "`config.pbtxt` needs no GPU: they are for other machines."
    ),
    hint="write KIND_CPU (or KIND_AUTO), or keep a CPU variant in `configs/` for `--model-config-name`",
)
def _gpu_exists(s: LintSubject) -> Iterator[Problem]:
    if s.machine is not None and s.machine.gpus == 0 and not _for_other_machines(s):
        for group in groups(s):
            if group.kind == "KIND_GPU":
                yield Problem("an instance group is KIND_GPU, and the machine has no GPU", group.line(s, "kind"))


@rule(
    "L502",
    "error",
    title="a GPU that is not there",
    explanation="GPUs are numbered from 0; a container sees only those it was given.",
    hint="name GPUs that the machine has, or leave `gpus` out for all of them",
)
def _gpu_ids(s: LintSubject) -> Iterator[Problem]:
    for group in groups(s):
        if s.machine is None or s.machine.gpus == 0 or group.kind != "KIND_GPU":
            continue
        for number in group.gpus:
            if not 0 <= number < s.machine.gpus:
                yield Problem(f"GPU {number} is named; the machine has {s.machine.gpus}", group.line(s, "gpus"))


@rule(
    "L503",
    "error",
    title="`gpus` in a group that uses none",
    explanation="Triton refuses GPU numbers in KIND_CPU and KIND_MODEL groups.",
    hint="remove `gpus`, or write KIND_GPU",
)
def _gpus_without_gpu(s: LintSubject) -> Iterator[Problem]:
    for group in groups(s):
        if group.gpus and group.kind in ("KIND_CPU", "KIND_MODEL"):
            yield Problem(f"an instance group is {group.kind} and names GPUs", group.line(s, "gpus"))


@rule(
    "L504",
    "warning",
    title="more threads than cores",
    explanation="Every instance is a session with its own threads; more threads than cores slow each other down.",
    hint="keep `count` x `intra_op_thread_count` at or below the cores",
    scope="repository",
)
def _oversubscribed(s: LintSubject) -> Iterator[Problem]:
    threads = _threads(s)
    if not s.is_onnx or s.machine is None or threads is None:
        return
    cpu = [g for g in groups(s) if s.on_cpu(g.kind)]
    instances = sum(g.count if g.count > 0 else _DEFAULT_CPU_COUNT for g in cpu)
    if instances * threads > s.machine.cores:
        text = f"{instances} instances of {threads} threads on {s.machine.cores} cores"
        yield Problem(text, cpu[0].line(s, "count"))


@rule(
    "L505",
    "warning",
    title="the thread count is not written",
    explanation="In a container ONNX Runtime counts the host's cores, not the container's share.",
    hint='write `parameters { key: "intra_op_thread_count" value { string_value: "N" } }`',
    scope="repository",
)
def _threads_written(s: LintSubject) -> Iterator[Problem]:
    if s.is_onnx and _threads(s) is None and any(s.on_cpu(g.kind) for g in groups(s)):
        yield Problem("no `intra_op_thread_count` is written for a model on the CPU", s.line("instance_group"))


@rule(
    "L513",
    "info",
    title="a GPU session with threads for every core",
    explanation=(
        "Every ONNX Runtime session makes a pool of CPU threads, one for each of the host's cores where no number is "
        "written, on a GPU too: many models and instances then have hundreds of threads with nothing to do."
    ),
    hint='write `parameters { key: "intra_op_thread_count" value { string_value: "1" } }`',
    scope="repository",
)
def _gpu_threads_written(s: LintSubject) -> Iterator[Problem]:
    if s.is_onnx and _threads(s) is None:
        for group in groups(s):
            if group.kind == "KIND_GPU":
                text = "no `intra_op_thread_count` is written for a model on a GPU"
                yield Problem(text, s.line("instance_group"))
                return


@rule(
    "L506",
    "warning",
    title="the instance count is not written",
    explanation=(
        "The server makes two instances of an ONNX model on the CPU unless told otherwise: twice the weights and "
        "twice the threads."
    ),
    hint="write `count` in an `instance_group` of KIND_CPU",
    scope="repository",
)
def _count_written(s: LintSubject) -> Iterator[Problem]:
    for group in groups(s):
        if s.is_onnx and s.on_cpu(group.kind) and group.count < 1:
            text = f"no `count` is written, so {_DEFAULT_CPU_COUNT} instances are made on the CPU"
            yield Problem(text, group.line(s))


@rule(
    "L507",
    "warning",
    title="an instance count below 1",
    explanation="Triton replaces counts below 1 by its default; the model is not switched off.",
    hint="write a count of at least 1; use explicit model control to leave a model unloaded",
)
def _count_positive(s: LintSubject) -> Iterator[Problem]:
    for group in groups(s):
        written = group.index is not None and ("instance_group", group.index, "count", 0) in s.config.lines.lines
        if written and group.count < 1:
            yield Problem(f"`count` is {group.count}, which Triton takes for no count", group.line(s, "count"))


@rule(
    "L508",
    "info",
    title="every CPU instance copies the weights",
    explanation=(
        "Each instance is a session of its own. For large models one instance with more threads serves as many "
        "requests with less memory."
    ),
    hint="lower `count` and raise `intra_op_thread_count` where memory matters",
    scope="repository",
)
def _weights_copied(s: LintSubject) -> Iterator[Problem]:
    for group in groups(s):
        if s.is_onnx and s.on_cpu(group.kind) and group.count > 1:
            text = f"{group.count} instances on the CPU hold the weights {group.count} times"
            yield Problem(text, group.line(s, "count"))


@rule(
    "L511",
    "info",
    title="every GPU instance copies the weights",
    explanation=(
        "Each ONNX Runtime instance is a session with weights and memory arena of its own, on every GPU that the "
        "group names; TorchScript shares them where `ENABLE_WEIGHT_SHARING` says so."
    ),
    hint="lower `count` where GPU memory matters; for TorchScript set `ENABLE_WEIGHT_SHARING` to `true`",
    scope="repository",
)
def _gpu_copies(s: LintSubject) -> Iterator[Problem]:
    shared = read_boolean(s.config.parameters.get("ENABLE_WEIGHT_SHARING", "")) is True
    if s.backend not in ("onnxruntime", "pytorch") or (s.backend == "pytorch" and shared):
        return
    for group in groups(s):
        if group.kind == "KIND_GPU" and group.count > 1 and group.index is not None:
            text = f"{group.count} instances on every GPU hold the weights {group.count} times there"
            yield Problem(text, group.line(s, "count"))


@rule(
    "L512",
    "warning",
    title="half precision on the CPU",
    explanation=(
        "ONNX Runtime has few CPU kernels in half precision and converts to float32 and back around all other "
        "operators: slower than float32, and less exact."
    ),
    hint="name a float32 file in `default_model_filename` for the CPU; keep the half-precision one for GPUs",
    scope="repository",
)
def _half_on_cpu(s: LintSubject) -> Iterator[Problem]:
    if any(s.on_cpu(g.kind) for g in groups(s)):
        for graph in s.graphs:
            if graph.weights_type in _HALF:
                name = graph.weights_type.removeprefix("TYPE_")
                text = f"the weights of `{graph.path.name}` are {name}, and instances run on the CPU"
                yield Problem(text, s.line("instance_group"))


@rule(
    "L509",
    "error",
    title="`profile` outside TensorRT",
    explanation="Only TensorRT plans have optimization profiles to choose from.",
    hint="remove `profile`",
    scope="repository",
)
def _profile_for_tensorrt(s: LintSubject) -> Iterator[Problem]:
    for index, group in enumerate(s.config.message.instance_group):
        if group.profile and s.backend != "tensorrt":
            yield Problem("an instance group names a `profile`", s.line("instance_group", index, "profile"))


@rule(
    "L510",
    "info",
    title="rate limits need a server flag",
    explanation="`rate_limiter` is ignored unless the server runs with `--rate-limit=execution_count`.",
    hint="start the server with that flag",
)
def _rate_limited(s: LintSubject) -> Iterator[Problem]:
    for index, group in enumerate(s.config.message.instance_group):
        if group.HasField("rate_limiter"):
            yield Problem("an instance group has a `rate_limiter`", s.line("instance_group", index, "rate_limiter"))
