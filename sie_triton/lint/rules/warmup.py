"""Rules on warm-up samples."""

from __future__ import annotations

from collections.abc import Iterator

from sie_triton.lint.config import enum_name, model_config_pb2
from sie_triton.lint.rule import LintSubject, Problem, rule


@rule(
    "L418",
    "error",
    title="a warm-up sample does not fit the inputs",
    explanation="Triton builds warm-up requests while it loads; every input needs its type and fixed dims.",
    hint="feed every input with its type and with numbers for variable dims",
)
def _warmup_inputs(s: LintSubject) -> Iterator[Problem]:
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


@rule(
    "L419",
    "error",
    title="a warm-up batch is impossible",
    explanation="A warm-up batch above `max_batch_size` fails, and with it the model's loading.",
    hint="write a `batch_size` from 1 to `max_batch_size`",
)
def _warmup_batch(s: LintSubject) -> Iterator[Problem]:
    for index, sample in enumerate(s.config.message.model_warmup):
        if 0 < s.config.max_batch_size < sample.batch_size:
            text = (
                f"warm-up sample `{sample.name or index}` has batch size {sample.batch_size}, "
                f"above `max_batch_size`, {s.config.max_batch_size}"
            )
            yield Problem(text, s.line("model_warmup", index, "batch_size"))


@rule(
    "L421",
    "warning",
    title="a warm-up sample is skipped",
    explanation="`batch_size` counts the rows of the sample; without it, it is 0 and nothing is warmed up.",
    hint="write `batch_size: 1`, also for models without batching",
)
def _warmup_runs(s: LintSubject) -> Iterator[Problem]:
    for index, sample in enumerate(s.config.message.model_warmup):
        if sample.batch_size == 0:
            line = s.line("model_warmup", index)
            yield Problem(f"warm-up sample `{sample.name or index}` has batch size 0 and is skipped", line)


@rule(
    "L606",
    "error",
    title="a warm-up file is missing",
    explanation="Warm-up data is read from the folder `warmup/` of the model.",
    hint="add the file, or use `zero_data` or `random_data`",
    scope="repository",
)
def _warmup_files(s: LintSubject) -> Iterator[Problem]:
    for index, sample in enumerate(s.config.message.model_warmup):
        for key in sorted(sample.inputs):
            name = sample.inputs[key].input_data_file
            if name and not (s.model.path / "warmup" / name).is_file():
                line = s.line("model_warmup", index)
                yield Problem(f"the warm-up file `warmup/{name}` of input `{key}` is missing", line)
