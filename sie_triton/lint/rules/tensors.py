"""Rules on the inputs and outputs of one configuration."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sie_triton.backends.onnxruntime.types import BF16_SINCE
from sie_triton.backends.received import ConfigTensor, repeated
from sie_triton.lint.rule import LintSubject, Problem, rule

# Backends that know their tensors themselves and write them into the configuration when they load.
_COMPLETING_BACKENDS = ("tensorrtllm", "vllm")


def _tensors(s: LintSubject) -> tuple[ConfigTensor, ...]:
    return s.config.inputs + s.config.outputs


def _model_completes(s: LintSubject) -> bool:
    """Whether the model itself completes its tensors in the default mode: its code, or a backend that knows them.

    Of a configuration alone, without its folder, nothing is known against it.
    """
    if s.backend in _COMPLETING_BACKENDS:
        return True
    if s.backend != "python":
        return False
    name = s.model.model_file(s.config)
    files = [s.model.path / str(version) / name for version in s.model.served_versions(s.config)]
    try:
        return all("auto_complete_config" in file.read_text(encoding="utf-8", errors="replace") for file in files)
    except OSError:
        return True  # another rule


@rule(
    "L108",
    "error",
    title="a tensor lacks its name, type or dims",
    explanation=(
        "Triton refuses inputs and outputs that are not complete, unless the code of a Python model completes them "
        "(`auto_complete_config`, in the default mode)."
    ),
    hint="write `name`, `data_type` and `dims`; a single number per row is `dims: [ 1 ]`",
)
def _tensor_complete(s: LintSubject) -> Iterator[Problem]:
    completed = _model_completes(s)
    for tensor in _tensors(s):
        missing = [
            field
            for field, given in (
                ("name", tensor.name),
                ("data_type", completed or tensor.data_type != "TYPE_INVALID"),
                ("dims", completed or tensor.dims),
            )
            if not given
        ]
        if missing:
            what = " and ".join(f"`{field}`" for field in missing)
            yield Problem(f"{tensor.role} `{tensor.name or tensor.index}` has no {what}", s.tensor_line(tensor))


@rule(
    "L109",
    "error",
    title="a dimension is neither positive nor -1",
    explanation="Triton refuses dimensions of 0 and below -1.",
    hint="write the size, or -1 for any size",
)
def _dims_positive(s: LintSubject) -> Iterator[Problem]:
    for tensor in _tensors(s):
        if bad := [d for d in tensor.dims if d < 1 and d != -1]:
            yield Problem(f"{tensor.role} `{tensor.name}` has dimension {bad[0]}", s.tensor_line(tensor, "dims"))


@rule(
    "L110",
    "error",
    title="`reshape` changes the number of elements",
    explanation=(
        "`reshape` may only regroup: the element counts between variable dimensions must stay, and without batching "
        "it may not be empty."
    ),
    hint="let `dims` and `reshape` hold the same elements",
)
def _reshape_keeps_elements(s: LintSubject) -> Iterator[Problem]:
    for tensor in _tensors(s):
        shape = tensor.reshape
        if shape is None or not tensor.dims:
            continue
        if not shape and s.config.max_batch_size == 0:
            reason = "is empty in a model without batching, which would be a scalar"
        elif any(d < 1 and d != -1 for d in shape):
            reason = f"has dimension {min(shape)}"
        elif _chunks(tensor.dims) != _chunks(shape):
            reason = f"{list(shape)} and `dims` {list(tensor.dims)} hold different numbers of elements"
        else:
            continue
        line = s.tensor_line(tensor, "reshape")
        yield Problem(f"`reshape` of {tensor.role} `{tensor.name}` {reason}", line)


def _chunks(dims: tuple[int, ...]) -> list[int]:
    """Element counts of the runs between variable dimensions."""
    runs: list[list[int]] = [[]]
    for dim in dims:
        if dim == -1:
            runs.append([])
        else:
            runs[-1].append(dim)
    return [math.prod(run) for run in runs]


@rule(
    "L111",
    "error",
    title="a tensor is written twice",
    explanation=(
        "The backend counts both entries, finds one tensor, and refuses the model; where a backend does not count, "
        "Triton expects two inputs of every request, which can send one."
    ),
    hint="remove the second entry",
)
def _names_unique(s: LintSubject) -> Iterator[Problem]:
    # The python backend looks outputs up by name and minds no second entry; of an input Triton then wants two.
    for tensors in (s.config.inputs, () if s.backend == "python" else s.config.outputs):
        for name, count in repeated(tensors).items():
            last = [t for t in tensors if t.name == name][-1]
            yield Problem(f"{last.role} `{name}` is written {count} times", s.tensor_line(last))


@rule(
    "L112",
    "error",
    title="an image format without three dims",
    explanation="`FORMAT_NHWC` and `FORMAT_NCHW` need exactly three dims.",
    hint="write three dims, or remove `format`",
)
def _format_has_three_dims(s: LintSubject) -> Iterator[Problem]:
    for tensor, message in zip(s.config.inputs, s.config.message.input, strict=True):
        if message.format != 0 and len(tensor.dims) != 3:
            line = s.tensor_line(tensor, "format")
            yield Problem(f"input `{tensor.name}` has an image format and {len(tensor.dims)} dims instead of 3", line)


@rule(
    "L113",
    "error",
    title="a field that only TensorRT plans have",
    explanation="`is_shape_tensor` and `is_non_linear_format_io` are refused for every other platform.",
    hint="remove the field",
)
def _tensorrt_only_fields(s: LintSubject) -> Iterator[Problem]:
    if s.backend == "tensorrt":
        return
    for tensor, message in zip(_tensors(s), [*s.config.message.input, *s.config.message.output], strict=True):
        for field in ("is_shape_tensor", "is_non_linear_format_io"):
            if getattr(message, field):
                line = s.tensor_line(tensor, field)
                yield Problem(f"{tensor.role} `{tensor.name}` sets `{field}`, which only TensorRT plans have", line)


@rule(
    "L114",
    "error",
    title="a BF16 tensor in an ONNX model",
    explanation="The onnxruntime backend maps BF16 inputs and outputs from 26.03 only; weights inside may be BF16.",
    hint="cast at the graph's borders to FP32, or serve with 26.03 or newer",
    until=BF16_SINCE,
)
def _bf16(s: LintSubject) -> Iterator[Problem]:
    if s.is_onnx:
        for tensor in _tensors(s):
            if tensor.data_type == "TYPE_BF16":
                yield Problem(f"{tensor.role} `{tensor.name}` is TYPE_BF16", s.tensor_line(tensor, "data_type"))


@rule(
    "L115",
    "warning",
    title="inputs or outputs are left to auto-complete",
    explanation=(
        "Triton then takes them from the graph, turns `max_batch_size: 0` into 4 where every first dimension is "
        "dynamic, and adds a dynamic batcher; or asks a Python model's `auto_complete_config`. With "
        "`--disable-auto-complete-config` the model does not load."
    ),
    hint="write every input and output",
)
def _tensors_listed(s: LintSubject) -> Iterator[Problem]:
    if not s.config.written or s.backend in _COMPLETING_BACKENDS:
        return
    if missing := [role for role in ("input", "output") if not getattr(s.config.message, role)]:
        yield Problem(f"no {' and no '.join(f'`{role}`' for role in missing)} is written")
    if not _model_completes(s):
        return
    for tensor in _tensors(s):
        if tensor.data_type == "TYPE_INVALID" or not tensor.dims:
            yield Problem(f"{tensor.role} `{tensor.name}` is written in part", s.tensor_line(tensor))


@rule(
    "L118",
    "info",
    title="strings end at a NUL byte",
    explanation="ONNX Runtime's C interface takes NUL-terminated strings, so the rest of a string is lost in silence.",
    hint="send text without NUL bytes, or send bytes as TYPE_UINT8",
    scope="repository",
)
def _string_tensors(s: LintSubject) -> Iterator[Problem]:
    if s.is_onnx:
        for tensor in _tensors(s):
            if tensor.data_type == "TYPE_STRING":
                line = s.tensor_line(tensor, "data_type")
                yield Problem(f"{tensor.role} `{tensor.name}` carries strings, which end at their first NUL byte", line)


@rule(
    "L119",
    "error",
    title="an optional input in a batching ONNX model",
    explanation="The onnxruntime backend allows optional inputs (initializers with a default) only without batching.",
    hint="make the input required, or set `max_batch_size: 0`",
    scope="repository",
)
def _optional_in_batches(s: LintSubject) -> Iterator[Problem]:
    if s.is_onnx and s.config.max_batch_size > 0:
        for tensor in s.config.inputs:
            if tensor.optional:
                line = s.tensor_line(tensor, "optional")
                yield Problem(f"input `{tensor.name}` is optional and `max_batch_size` is above 0", line)
