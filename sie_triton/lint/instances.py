"""Rules on instance groups: devices, copies of the weights, threads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sie_triton.lint.config import enum_name, model_config_pb2
from sie_triton.lint.rule import Problem, Rule, Subject

_DEFAULT_CPU_COUNT = 2  # the server's own default for the onnxruntime backend on CPU


@dataclass(frozen=True, slots=True)
class Group:
    """An instance group. `index` is None for the one that Triton makes where none is written."""

    index: int | None
    kind: str
    count: int
    gpus: tuple[int, ...]


def groups(s: Subject) -> list[Group]:
    """The instance groups of a model that has instances, `count` as written (0 where it is not)."""
    if s.config.is_ensemble:
        return []
    kinds = model_config_pb2().ModelInstanceGroup.Kind
    return [
        Group(i, enum_name(kinds, g.kind), int(g.count), tuple(int(n) for n in g.gpus))
        for i, g in enumerate(s.config.message.instance_group)
    ] or [Group(None, "KIND_AUTO", 0, ())]


def _line(s: Subject, group: Group, *field: str) -> int | None:
    return None if group.index is None else s.line("instance_group", group.index, *field)


def _threads(s: Subject) -> int | None:
    """Threads of one instance's session as written; None where that is absent, 0 or no number."""
    text = s.config.parameters.get("intra_op_thread_count", "").strip()
    return int(text) if re.fullmatch(r"0{0,9}[1-9][0-9]{0,8}", text) else None


def _for_other_machines(s: Subject) -> bool:
    """Whether this is a variant for GPUs beside a `config.pbtxt` that needs none: a machine without GPUs skips it."""
    default = s.model.default
    kinds = model_config_pb2().ModelInstanceGroup.Kind
    return (
        default is not None
        and default is not s.config
        and not any(g.kind == kinds.Value("KIND_GPU") for g in default.message.instance_group)
    )


def gpu_exists(s: Subject) -> Iterator[Problem]:
    """`KIND_GPU` has a GPU."""
    if s.machine is not None and s.machine.gpus == 0 and not _for_other_machines(s):
        for group in groups(s):
            if group.kind == "KIND_GPU":
                yield Problem("an instance group is KIND_GPU, and the machine has no GPU", _line(s, group, "kind"))


def gpu_ids(s: Subject) -> Iterator[Problem]:
    """The GPUs that are named exist."""
    for group in groups(s):
        if s.machine is None or s.machine.gpus == 0 or group.kind != "KIND_GPU":
            continue
        for number in group.gpus:
            if not 0 <= number < s.machine.gpus:
                yield Problem(f"GPU {number} is named; the machine has {s.machine.gpus}", _line(s, group, "gpus"))


def gpus_without_gpu(s: Subject) -> Iterator[Problem]:
    """`gpus` go with `KIND_GPU`."""
    for group in groups(s):
        if group.gpus and group.kind in ("KIND_CPU", "KIND_MODEL"):
            yield Problem(f"an instance group is {group.kind} and names GPUs", _line(s, group, "gpus"))


def oversubscribed(s: Subject) -> Iterator[Problem]:
    """Instances times threads fit the cores."""
    threads = _threads(s)
    if not s.is_onnx or s.machine is None or threads is None:
        return
    cpu = [g for g in groups(s) if s.on_cpu(g.kind)]
    instances = sum(g.count if g.count > 0 else _DEFAULT_CPU_COUNT for g in cpu)
    if instances * threads > s.machine.cores:
        text = f"{instances} instances of {threads} threads on {s.machine.cores} cores"
        yield Problem(text, _line(s, cpu[0], "count"))


def threads_written(s: Subject) -> Iterator[Problem]:
    """CPU models say how many threads they take."""
    if s.is_onnx and _threads(s) is None and any(s.on_cpu(g.kind) for g in groups(s)):
        yield Problem("no `intra_op_thread_count` is written for a model on the CPU", s.line("instance_group"))


def gpu_threads_written(s: Subject) -> Iterator[Problem]:
    """GPU sessions do not take every core."""
    if s.is_onnx and _threads(s) is None:
        for group in groups(s):
            if group.kind == "KIND_GPU":
                text = "no `intra_op_thread_count` is written for a model on a GPU"
                yield Problem(text, s.line("instance_group"))
                return


def count_written(s: Subject) -> Iterator[Problem]:
    """CPU models say how many instances there are."""
    for group in groups(s):
        if s.is_onnx and s.on_cpu(group.kind) and group.count < 1:
            text = f"no `count` is written, so {_DEFAULT_CPU_COUNT} instances are made on the CPU"
            yield Problem(text, _line(s, group))


def count_positive(s: Subject) -> Iterator[Problem]:
    """A written count is at least 1."""
    for group in groups(s):
        written = group.index is not None and s.config.lines.has("instance_group") and _count_written(s, group.index)
        if written and group.count < 1:
            yield Problem(f"`count` is {group.count}, which Triton takes for no count", _line(s, group, "count"))


def _count_written(s: Subject, index: int) -> bool:
    return ("instance_group", index, "count", 0) in s.config.lines.lines


def weights_copied(s: Subject) -> Iterator[Problem]:
    """Several CPU instances hold the weights several times."""
    for group in groups(s):
        if s.is_onnx and s.on_cpu(group.kind) and group.count > 1:
            text = f"{group.count} instances on the CPU hold the weights {group.count} times"
            yield Problem(text, _line(s, group, "count"))


def profile_for_tensorrt(s: Subject) -> Iterator[Problem]:
    """`profile` is TensorRT's."""
    for index, group in enumerate(s.config.message.instance_group):
        if group.profile and s.backend != "tensorrt":
            yield Problem("an instance group names a `profile`", s.line("instance_group", index, "profile"))


def rate_limited(s: Subject) -> Iterator[Problem]:
    """Rate limits depend on a server flag."""
    for index, group in enumerate(s.config.message.instance_group):
        if group.HasField("rate_limiter"):
            yield Problem("an instance group has a `rate_limiter`", s.line("instance_group", index, "rate_limiter"))


def rules() -> Iterable[Rule]:
    """The rules of this file."""
    return (
        Rule(
            "L501",
            "error",
            "KIND_GPU without a GPU",
            "Triton refuses the model, and in the default mode exits. Variants in `configs/` are left alone where "
            "`config.pbtxt` needs no GPU: they are for other machines.",
            "write KIND_CPU (or KIND_AUTO), or keep a CPU variant in `configs/` for `--model-config-name`",
            gpu_exists,
        ),
        Rule(
            "L502",
            "error",
            "a GPU that is not there",
            "GPUs are numbered from 0; a container sees only those it was given.",
            "name GPUs that the machine has, or leave `gpus` out for all of them",
            gpu_ids,
        ),
        Rule(
            "L503",
            "error",
            "`gpus` in a group that uses none",
            "Triton refuses GPU numbers in KIND_CPU and KIND_MODEL groups.",
            "remove `gpus`, or write KIND_GPU",
            gpus_without_gpu,
        ),
        Rule(
            "L504",
            "warning",
            "more threads than cores",
            "Every instance is a session with its own threads; more threads than cores slow each other down.",
            "keep `count` x `intra_op_thread_count` at or below the cores",
            oversubscribed,
            scope="repository",
        ),
        Rule(
            "L505",
            "warning",
            "the thread count is not written",
            "In a container ONNX Runtime counts the host's cores, not the container's share.",
            'write `parameters { key: "intra_op_thread_count" value { string_value: "N" } }`',
            threads_written,
            scope="repository",
        ),
        Rule(
            "L506",
            "warning",
            "the instance count is not written",
            "The server makes two instances of an ONNX model on the CPU unless told otherwise: twice the weights "
            "and twice "
            "the threads.",
            "write `count` in an `instance_group` of KIND_CPU",
            count_written,
            scope="repository",
        ),
        Rule(
            "L507",
            "warning",
            "an instance count below 1",
            "Triton replaces counts below 1 by its default; the model is not switched off.",
            "write a count of at least 1; use explicit model control to leave a model unloaded",
            count_positive,
        ),
        Rule(
            "L508",
            "info",
            "every CPU instance copies the weights",
            "Each instance is a session of its own. For large models one instance with more threads serves as many "
            "requests with less memory.",
            "lower `count` and raise `intra_op_thread_count` where memory matters",
            weights_copied,
            scope="repository",
        ),
        Rule(
            "L509",
            "error",
            "`profile` outside TensorRT",
            "Only TensorRT plans have optimization profiles to choose from.",
            "remove `profile`",
            profile_for_tensorrt,
            scope="repository",
        ),
        Rule(
            "L510",
            "info",
            "rate limits need a server flag",
            "`rate_limiter` is ignored unless the server runs with `--rate-limit=execution_count`.",
            "start the server with that flag",
            rate_limited,
        ),
        Rule(
            "L513",
            "info",
            "a GPU session with threads for every core",
            "Every ONNX Runtime session makes a pool of CPU threads, one for each of the host's cores where no number "
            "is written, on a GPU too: many models and instances then have hundreds of threads with nothing to do.",
            'write `parameters { key: "intra_op_thread_count" value { string_value: "1" } }`',
            gpu_threads_written,
            scope="repository",
        ),
    )
