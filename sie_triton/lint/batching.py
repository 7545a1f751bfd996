"""Rules on batching: the dynamic batcher, its queue, ragged inputs, warm-up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from sie_triton.lint.config import enum_name, model_config_pb2
from sie_triton.lint.release import Release
from sie_triton.lint.rule import Problem, Rule, Subject

MAX_SENSIBLE_DELAY_MICROSECONDS = 100_000
# Backends that put the requests of a batch into one tensor.
_CONCATENATING = ("onnxruntime", "pytorch", "tensorflow", "tensorrt")
_LENGTHS = re.compile(r"len(gth)?s?(_|$)|offset|count|size|shape|cu_seq|indptr", re.IGNORECASE)
_DELAY = 1  # ModelQueuePolicy.TimeoutAction.DELAY


def _batches(s: Subject) -> bool:
    return bool(s.config.message.HasField("dynamic_batching"))


def merges_equal_shapes(s: Subject) -> Iterator[Problem]:
    """Variable inputs that are not ragged."""
    if _batches(s) and s.config.max_batch_size > 1:
        variable = [t for t in s.config.inputs if -1 in t.dims and not t.ragged]
        if variable:
            names = ", ".join(f"`{t.name}`" for t in variable)
            yield Problem(
                f"requests are merged only where {names} have equal shapes", s.tensor_line(variable[0], "dims")
            )


def preferred_sizes(s: Subject) -> Iterator[Problem]:
    """Preferred batch sizes are possible."""
    message = s.config.message
    for place, sizes in (
        (("dynamic_batching",), message.dynamic_batching.preferred_batch_size),
        (("sequence_batching", "oldest"), message.sequence_batching.oldest.preferred_batch_size),
    ):
        for size in sizes:
            if not 1 <= size <= s.config.max_batch_size:
                text = f"preferred batch size {size} is not between 1 and `max_batch_size`, {s.config.max_batch_size}"
                yield Problem(text, s.line(*place, "preferred_batch_size"))


def preferred_sizes_useful(s: Subject) -> Iterator[Problem]:
    """Preferred batch sizes outside TensorRT."""
    if s.config.message.dynamic_batching.preferred_batch_size and s.backend not in ("tensorrt", ""):
        line = s.line("dynamic_batching", "preferred_batch_size")
        yield Problem(f"`preferred_batch_size` is written for the {s.backend} backend", line)


def queue_delay(s: Subject) -> Iterator[Problem]:
    """How long a request may wait for company."""
    delay = int(s.config.message.dynamic_batching.max_queue_delay_microseconds)
    if delay > MAX_SENSIBLE_DELAY_MICROSECONDS:
        line = s.line("dynamic_batching", "max_queue_delay_microseconds")
        yield Problem(f"a request may wait {delay / 1000:.0f} ms for others", line)


def priorities(s: Subject) -> Iterator[Problem]:
    """Priority levels are consistent."""
    batching = s.config.message.dynamic_batching
    levels, default = int(batching.priority_levels), int(batching.default_priority_level)
    line = s.line("dynamic_batching", "priority_levels")
    if levels and not 1 <= default <= levels:
        yield Problem(f"`default_priority_level` is {default}, `priority_levels` is {levels}", line)
    for level in sorted(batching.priority_queue_policy):
        if not 1 <= level <= levels:
            line = s.line("dynamic_batching", "priority_queue_policy")
            yield Problem(f"a queue policy for level {level}, while `priority_levels` is {levels}", line)


def _policies(s: Subject) -> Iterator[tuple[str, Any, tuple[str | int, ...]]]:
    """Queue policies with what they are called and where they stand."""
    batching = s.config.message.dynamic_batching
    if batching.HasField("default_queue_policy"):
        path = ("dynamic_batching", "default_queue_policy")
        yield "`default_queue_policy`", batching.default_queue_policy, path
    for index, level in enumerate(batching.priority_queue_policy):
        policy = batching.priority_queue_policy[level]
        yield f"the policy of level {level}", policy, ("dynamic_batching", "priority_queue_policy", index, "value")


def timeout_action(s: Subject) -> Iterator[Problem]:
    """A timeout action has a timeout."""
    for name, policy, path in _policies(s):
        chosen = policy.timeout_action == _DELAY or s.config.lines.has(
            *(p for p in path if isinstance(p, str)), "timeout_action"
        )
        if chosen and not policy.default_timeout_microseconds and not policy.allow_timeout_override:
            yield Problem(f"{name} has a `timeout_action` and no timeout", s.line(*path, "timeout_action"))


def bounded_queue(s: Subject) -> Iterator[Problem]:
    """A queue policy has a limit."""
    for name, policy, path in _policies(s):
        if not policy.max_queue_size:
            yield Problem(f"{name} has no `max_queue_size`, so the queue grows without limit", s.line(*path))


def prepares_ahead(s: Subject) -> Iterator[Problem]:
    """Nothing keeps the batcher from preparing a batch before it knows which instance is free."""
    instances = sum(group.count for group in s.config.message.instance_group)
    for name, policy, path in _policies(s):
        limits = policy.max_queue_size or policy.default_timeout_microseconds or policy.allow_timeout_override
        if limits and instances > 1:
            yield Problem(f"{name} makes requests wait beside idle ones of {instances} instances", s.line(*path))
            return


def ordering(s: Subject) -> Iterator[Problem]:
    """What preserved order excludes."""
    batching = s.config.message.dynamic_batching
    if not batching.preserve_ordering:
        return
    if batching.priority_levels > 1:
        line = s.line("dynamic_batching", "priority_levels")
        yield Problem(f"`preserve_ordering` with {batching.priority_levels} priority levels", line)
    for name, policy, path in _policies(s):
        if policy.default_timeout_microseconds and policy.timeout_action == _DELAY:
            yield Problem(f"`preserve_ordering`, while {name} delays late requests", s.line(*path))


def ordering_bugs(s: Subject) -> Iterator[Problem]:
    """Preserved order before its bugs were mended."""
    if s.config.message.dynamic_batching.preserve_ordering:
        yield Problem("`preserve_ordering` is on", s.line("dynamic_batching", "preserve_ordering"))


def batcher_works(s: Subject) -> Iterator[Problem]:
    """A dynamic batcher has something to merge."""
    if _batches(s) and s.config.max_batch_size <= 1:
        text = f"`dynamic_batching` merges nothing while `max_batch_size` is {s.config.max_batch_size}"
        yield Problem(text, s.line("dynamic_batching"))


def ragged_graph(s: Subject) -> Iterator[Problem]:
    """A ragged input is a vector in the graph."""
    for graph in s.graphs:
        for tensor in s.config.inputs:
            found = graph.inputs.get(tensor.name)
            if tensor.ragged and found is not None and found.dims != (-1,):
                dims = "no shape" if found.dims is None else f"dims {list(found.dims)}"
                text = f"ragged input `{tensor.name}` has {dims} in the graph instead of [-1]"
                yield Problem(text, s.tensor_line(tensor, "allow_ragged_batch"))


def ragged_lengths(s: Subject) -> Iterator[Problem]:
    """The graph learns where each request ends."""
    if s.backend not in _CONCATENATING:
        return  # a backend that gets its requests one by one, or has lengths of its own, as TensorRT-LLM
    if any(_LENGTHS.search(t.name) for t in s.config.inputs if not t.ragged):
        return
    sources = {str(name) for batch_input in s.config.message.batch_input for name in batch_input.source_input}
    ragged = [t for t in s.config.inputs if t.ragged]
    if ragged and not sources & {t.name for t in ragged}:
        names = ", ".join(f"`{t.name}`" for t in ragged)
        line = s.tensor_line(ragged[0], "allow_ragged_batch")
        yield Problem(f"{names} is ragged and no `batch_input` tells the graph where each request ends", line)


def ragged_optional(s: Subject) -> Iterator[Problem]:
    """A ragged input is required."""
    for tensor in s.config.inputs if s.is_onnx else ():
        if tensor.ragged and tensor.optional:
            line = s.tensor_line(tensor, "allow_ragged_batch")
            yield Problem(f"input `{tensor.name}` is ragged and optional", line)


def ragged_batches(s: Subject) -> Iterator[Problem]:
    """Ragged inputs come together only through a batcher."""
    ragged = [t for t in s.config.inputs if t.ragged]
    if ragged and (s.config.max_batch_size <= 1 or not _batches(s)):
        line = s.tensor_line(ragged[0], "allow_ragged_batch")
        yield Problem(f"input `{ragged[0].name}` is ragged, and no dynamic batcher merges requests", line)


def batch_input_type(s: Subject) -> Iterator[Problem]:
    """Batch inputs are INT32 or FP32."""
    types = model_config_pb2().DataType
    for index, batch_input in enumerate(s.config.message.batch_input):
        name = enum_name(types, batch_input.data_type)
        if name not in ("TYPE_INT32", "TYPE_FP32"):
            yield Problem(f"batch input {index} is {name}", s.line("batch_input", index, "data_type"))


def batch_sources(s: Subject) -> Iterator[Problem]:
    """Batch inputs and outputs have one source, a configured input."""
    inputs = {t.name for t in s.config.inputs}
    for field in ("batch_input", "batch_output"):
        for index, entry in enumerate(getattr(s.config.message, field)):
            line = s.line(field, index, "source_input")
            if len(entry.source_input) != 1:
                yield Problem(f"`{field}` {index} has {len(entry.source_input)} sources instead of 1", line)
            for name in entry.source_input:
                if name not in inputs:
                    yield Problem(f"`{field}` {index} has the source `{name}`, which is no input here", line)


def batch_input_targets(s: Subject) -> Iterator[Problem]:
    """Each batch input makes one graph input that nobody else feeds."""
    seen = {t.name for t in s.config.inputs}
    for index, entry in enumerate(s.config.message.batch_input):
        line = s.line("batch_input", index, "target_name")
        if len(entry.target_name) != 1:
            yield Problem(f"`batch_input` {index} has {len(entry.target_name)} targets instead of 1", line)
        for name in entry.target_name:
            if name in seen:
                yield Problem(f"`batch_input` {index} makes `{name}`, which is an input or made already", line)
            seen.add(str(name))


def batch_output_targets(s: Subject) -> Iterator[Problem]:
    """Scattered outputs are configured outputs, once each."""
    outputs = {t.name for t in s.config.outputs}
    seen: set[str] = set()
    for index, entry in enumerate(s.config.message.batch_output):
        line = s.line("batch_output", index, "target_name")
        if not entry.target_name:
            yield Problem(f"`batch_output` {index} has no target", line)
        for name in entry.target_name:
            if name not in outputs:
                yield Problem(f"`batch_output` {index} scatters `{name}`, which is no output here", line)
            elif name in seen:
                yield Problem(f"`batch_output` {index} scatters `{name}` a second time", line)
            seen.add(str(name))


def warmup_inputs(s: Subject) -> Iterator[Problem]:
    """Warm-up samples feed the model's inputs."""
    types = model_config_pb2().DataType
    inputs = {t.name: t for t in s.config.inputs}
    for index, sample in enumerate(s.config.message.model_warmup):
        name = sample.name or index
        line = s.line("model_warmup", index)
        required = {t.name for t in s.config.inputs if not t.optional}
        for missing in sorted(required - set(sample.inputs)):
            yield Problem(f"warm-up sample `{name}` lacks the input `{missing}`", line)
        for key in sorted(sample.inputs):
            data = sample.inputs[key]
            if key not in inputs:
                yield Problem(f"warm-up sample `{name}` feeds `{key}`, which is no input here", line)
                continue
            tensor, data_type, dims = inputs[key], enum_name(types, data.data_type), tuple(data.dims)
            if data_type != tensor.data_type:
                yield Problem(f"warm-up sample `{name}` feeds `{key}` as {data_type}, not {tensor.data_type}", line)
            if any(d < 1 for d in dims):
                yield Problem(f"warm-up sample `{name}` leaves dims of `{key}` open: {list(dims)}", line)
            elif len(dims) != len(tensor.dims) or any(t not in (-1, d) for d, t in zip(dims, tensor.dims, strict=True)):
                yield Problem(
                    f"warm-up sample `{name}` feeds `{key}` with dims {list(dims)}, not {list(tensor.dims)}", line
                )


def warmup_batch(s: Subject) -> Iterator[Problem]:
    """Warm-up batches are possible."""
    for index, sample in enumerate(s.config.message.model_warmup):
        if 0 < s.config.max_batch_size < sample.batch_size:
            text = (
                f"warm-up sample `{sample.name or index}` has batch size {sample.batch_size}, "
                f"above `max_batch_size`, {s.config.max_batch_size}"
            )
            yield Problem(text, s.line("model_warmup", index, "batch_size"))


def warmup_runs(s: Subject) -> Iterator[Problem]:
    """Warm-up samples have rows."""
    for index, sample in enumerate(s.config.message.model_warmup):
        if sample.batch_size == 0:
            line = s.line("model_warmup", index)
            yield Problem(f"warm-up sample `{sample.name or index}` has batch size 0 and is skipped", line)


def rules() -> Iterable[Rule]:
    """The rules of this file."""
    return (
        Rule(
            "L401",
            "info",
            "only requests of equal shape are merged",
            "The dynamic batcher never pads. Lengths 3, 3, 5, 3 run as 3 + 1.",
            "pad to a few bucket lengths, set `allow_ragged_batch`, or send many rows in one request",
            merges_equal_shapes,
        ),
        Rule(
            "L402",
            "error",
            "a preferred batch size is impossible",
            "Triton refuses preferred sizes below 1 or above `max_batch_size`.",
            "write sizes from 1 to `max_batch_size`, or none",
            preferred_sizes,
        ),
        Rule(
            "L403",
            "info",
            "preferred batch sizes are for TensorRT profiles",
            "Elsewhere they only make the batcher wait for sizes that are no faster.",
            "remove `preferred_batch_size`",
            preferred_sizes_useful,
            scope="repository",
        ),
        Rule(
            "L404",
            "warning",
            "requests wait long for company",
            "The delay is microseconds and is added to a lone request's latency. While an instance is busy, requests "
            "gather without any delay.",
            "0 for interactive requests, 500 to 2000 for bulk",
            queue_delay,
        ),
        Rule(
            "L405",
            "error",
            "priority levels contradict each other",
            "With `priority_levels` N, the default level and all policies are from 1 to N.",
            "write `default_priority_level` and the keys of `priority_queue_policy` between 1 and `priority_levels`",
            priorities,
        ),
        Rule(
            "L406",
            "warning",
            "a timeout action that never comes",
            "Without `default_timeout_microseconds` and without `allow_timeout_override` no request ever times out.",
            "write `default_timeout_microseconds`",
            timeout_action,
        ),
        Rule(
            "L407",
            "warning",
            "a queue policy without a limit",
            "Under overload memory and waiting times grow until clients give up, and their requests still run.",
            "write `max_queue_size: N`: further requests are then refused at once; or limit them in front of Triton, "
            "and write no policy",
            bounded_queue,
        ),
        Rule(
            "L408",
            "error",
            "`preserve_ordering` excludes this",
            "Triton refuses preserved order with several priority levels or with delayed requests.",
            "remove `preserve_ordering`",
            ordering,
        ),
        Rule(
            "L409",
            "warning",
            "the dynamic batcher has nothing to merge",
            "Batches have at most `max_batch_size` rows.",
            "raise `max_batch_size`, or remove `dynamic_batching`",
            batcher_works,
        ),
        Rule(
            "L410",
            "error",
            "a ragged input must be a vector in the graph",
            "The graph gets the elements of all requests in one tensor of rank 1, without padding.",
            "export the graph with a dynamic rank-1 input and rebuild rows inside from a `batch_input`",
            ragged_graph,
            scope="repository",
        ),
        Rule(
            "L411",
            "warning",
            "a ragged input without lengths",
            "The concatenated elements do not say where one request ends. Another input may: one whose name speaks of "
            "lengths, counts or offsets is taken for that.",
            "add a `batch_input`, for instance of kind BATCH_ITEM_SHAPE, with the ragged input as source",
            ragged_lengths,
            scope="repository",
        ),
        Rule(
            "L412",
            "error",
            "a ragged input cannot be optional",
            "The onnxruntime backend refuses the pair; others, as TensorRT-LLM and Python, take it.",
            "remove `optional` or `allow_ragged_batch`",
            ragged_optional,
            scope="repository",
        ),
        Rule(
            "L413",
            "error",
            "a batch input is neither INT32 nor FP32",
            "Triton makes batch inputs in these two types only.",
            "write TYPE_INT32 and cast inside the graph",
            batch_input_type,
        ),
        Rule(
            "L414",
            "error",
            "a batch input or output needs one source",
            "Each kind takes exactly one `source_input`, one of the configured inputs.",
            "write one configured input as `source_input`",
            batch_sources,
        ),
        Rule(
            "L415",
            "error",
            "a batch input needs one target of its own",
            "The backend counts one graph input for each entry.",
            "write one `batch_input` for each graph input that it makes",
            batch_input_targets,
        ),
        Rule(
            "L416",
            "error",
            "a scattered output is not an output",
            "`batch_output` cuts configured outputs back into requests, each of them once.",
            "name configured outputs in `target_name`",
            batch_output_targets,
        ),
        Rule(
            "L417",
            "warning",
            "a ragged input without a batcher",
            "Ragged inputs of several requests come together only through `dynamic_batching`.",
            "add `dynamic_batching { }` and a `max_batch_size` above 1",
            ragged_batches,
        ),
        Rule(
            "L418",
            "error",
            "a warm-up sample does not fit the inputs",
            "Triton builds warm-up requests while it loads; every input needs its type and fixed dims.",
            "feed every input with its type and with numbers for variable dims",
            warmup_inputs,
        ),
        Rule(
            "L419",
            "error",
            "a warm-up batch is impossible",
            "A warm-up batch above `max_batch_size` fails, and with it the model's loading.",
            "write a `batch_size` from 1 to `max_batch_size`",
            warmup_batch,
        ),
        Rule(
            "L420",
            "warning",
            "`preserve_ordering` has bugs before 26.09",
            "Answers could be late or stuck; the batcher was mended in 26.08 and 26.09.",
            "remove `preserve_ordering`, or serve with 26.09 or newer",
            ordering_bugs,
            until=Release(26, 9),
        ),
        Rule(
            "L421",
            "warning",
            "a warm-up sample is skipped",
            "`batch_size` counts the rows of the sample; without it, it is 0 and nothing is warmed up.",
            "write `batch_size: 1`, also for models without batching",
            warmup_runs,
        ),
        Rule(
            "L422",
            "warning",
            "a queue policy beside several instances",
            "With a limit or a timeout the batcher prepares nothing ahead and sometimes misses that an instance became "
            "idle: one request in twenty waited for another's run to end (measured with 24.10).",
            "limit requests in front of Triton, and remove `default_queue_policy`",
            prepares_ahead,
        ),
    )
