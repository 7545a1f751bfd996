"""Rules on ragged inputs, and on `batch_input` and `batch_output`, which tell where each request ends."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sie_triton.backends import batching
from sie_triton.backends.onnxruntime.signature import Misfit, misfit, pairs
from sie_triton.lint.rule import LintSubject, Problem, rule
from sie_triton.lint.wording import quoted

# Backends that put the requests of a batch into one tensor.
_CONCATENATING = ("onnxruntime", "pytorch", "tensorflow", "tensorrt")
_LENGTHS = re.compile(r"len(gth)?s?(_|$)|offset|count|size|shape|cu_seq|indptr", re.IGNORECASE)


@rule(
    "L410",
    "error",
    title="a ragged input must be a vector in the graph",
    explanation="The graph gets the elements of all requests in one tensor of rank 1, without padding.",
    hint="export the graph with a dynamic rank-1 input and rebuild rows inside from a `batch_input`",
    scope="repository",
)
def _ragged_graph(s: LintSubject) -> Iterator[Problem]:
    for graph in s.graphs:
        for tensor, found in pairs(s.config.inputs, graph.inputs):
            if misfit(s.config.received, tensor, found) is Misfit.RAGGED:
                dims = "no shape" if found.dims is None else f"dims {list(found.dims)}"
                text = f"ragged input `{tensor.name}` has {dims} in the graph instead of [-1]"
                yield Problem(text, s.tensor_line(tensor, "allow_ragged_batch"))


@rule(
    "L411",
    "warning",
    title="a ragged input without lengths",
    explanation=(
        "The concatenated elements do not say where one request ends. Another input may: one whose name speaks of "
        "lengths, counts or offsets is taken for that."
    ),
    hint="add a `batch_input`, for instance of kind BATCH_ITEM_SHAPE, with the ragged input as source",
    scope="repository",
)
def _ragged_lengths(s: LintSubject) -> Iterator[Problem]:
    if s.backend not in _CONCATENATING:
        return  # a backend that gets its requests one by one, or has lengths of its own, as TensorRT-LLM
    if any(_LENGTHS.search(t.name) for t in s.config.inputs if not t.ragged):
        return
    sources = {name for entry in s.config.received.batch_inputs for name in entry.sources}
    ragged = [t for t in s.config.inputs if t.ragged]
    if ragged and not sources & {t.name for t in ragged}:
        names = quoted(t.name for t in ragged)
        line = s.tensor_line(ragged[0], "allow_ragged_batch")
        yield Problem(f"{names} is ragged and no `batch_input` tells the graph where each request ends", line)


@rule(
    "L412",
    "error",
    title="a ragged input cannot be optional",
    explanation="The onnxruntime backend refuses the pair; others, as TensorRT-LLM and Python, take it.",
    hint="remove `optional` or `allow_ragged_batch`",
    scope="repository",
)
def _ragged_optional(s: LintSubject) -> Iterator[Problem]:
    for tensor in s.config.inputs if s.is_onnx else ():
        if tensor.ragged and tensor.optional:
            line = s.tensor_line(tensor, "allow_ragged_batch")
            yield Problem(f"input `{tensor.name}` is ragged and optional", line)


@rule(
    "L417",
    "warning",
    title="a ragged input without a batcher",
    explanation="Ragged inputs of several requests come together only through `dynamic_batching`.",
    hint="add `dynamic_batching { }` and a `max_batch_size` above 1",
)
def _ragged_batches(s: LintSubject) -> Iterator[Problem]:
    ragged = [t for t in s.config.inputs if t.ragged]
    if ragged and (s.config.max_batch_size <= 1 or not s.config.message.HasField("dynamic_batching")):
        line = s.tensor_line(ragged[0], "allow_ragged_batch")
        yield Problem(f"input `{ragged[0].name}` is ragged, and no dynamic batcher merges requests", line)


@rule(
    "L413",
    "error",
    title="a batch input is neither INT32 nor FP32",
    explanation="Triton makes batch inputs in these two types only.",
    hint="write TYPE_INT32 and cast inside the graph",
)
def _batch_input_type(s: LintSubject) -> Iterator[Problem]:
    for index, entry in enumerate(s.config.received.batch_inputs):
        if entry.data_type not in batching.TYPES:
            yield Problem(f"batch input {index} is {entry.data_type}", s.line("batch_input", index, "data_type"))


@rule(
    "L414",
    "error",
    title="a batch input or output needs one source",
    explanation="Each kind takes exactly one `source_input`, one of the configured inputs.",
    hint="write one configured input as `source_input`",
)
def _batch_sources(s: LintSubject) -> Iterator[Problem]:
    received = s.config.received
    for field, entries in (("batch_input", received.batch_inputs), ("batch_output", received.batch_outputs)):
        for index, entry in enumerate(entries):
            line = s.line(field, index, "source_input")
            if not batching.has_one_source(entry):
                yield Problem(f"`{field}` {index} has {len(entry.sources)} sources instead of 1", line)
            for name in batching.unknown_sources(entry, received.inputs):
                yield Problem(f"`{field}` {index} has the source `{name}`, which is no input here", line)


@rule(
    "L415",
    "error",
    title="a batch input needs one target of its own",
    explanation="The backend counts one graph input for each entry.",
    hint="write one `batch_input` for each graph input that it makes",
)
def _batch_input_targets(s: LintSubject) -> Iterator[Problem]:
    seen = {t.name for t in s.config.inputs}
    for index, entry in enumerate(s.config.received.batch_inputs):
        line = s.line("batch_input", index, "target_name")
        if not batching.has_one_target(entry):
            yield Problem(f"`batch_input` {index} has {len(entry.targets)} targets instead of 1", line)
        for name in entry.targets:
            if name in seen:
                yield Problem(f"`batch_input` {index} makes `{name}`, which is an input or made already", line)
            seen.add(name)


@rule(
    "L416",
    "error",
    title="a scattered output is not an output",
    explanation="`batch_output` cuts configured outputs back into requests, each of them once.",
    hint="name configured outputs in `target_name`",
)
def _batch_output_targets(s: LintSubject) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, entry in enumerate(s.config.received.batch_outputs):
        line = s.line("batch_output", index, "target_name")
        if not entry.targets:
            yield Problem(f"`batch_output` {index} has no target", line)
        unknown = batching.unknown_targets(entry, s.config.outputs)
        for name in entry.targets:
            if name in unknown:
                yield Problem(f"`batch_output` {index} scatters `{name}`, which is no output here", line)
            elif name in seen:
                yield Problem(f"`batch_output` {index} scatters `{name}` a second time", line)
            seen.add(name)
