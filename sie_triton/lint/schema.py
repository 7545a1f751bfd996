"""Rules on the shape of one configuration: names, tensors, fields that a release knows."""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from sie_triton.lint.config import Tensor
from sie_triton.lint.release import Release
from sie_triton.lint.repository import PLATFORMS
from sie_triton.lint.rule import Problem, Rule, Subject

# Fields that older servers do not know: their text parser then refuses the whole file. `model_metrics` is absent in
# the 24.10 binary (measured); the month of its arrival is not known, so it is only held against 24.10.
_NEW_FIELDS: tuple[tuple[tuple[str, ...], Release], ...] = (
    (("ensemble_scheduling", "max_inflight_requests"), Release(25, 11)),
    (("model_metrics",), Release(24, 11)),
)

SHIPPED_BACKENDS = (
    "dali",
    "fil",
    "identity",
    "onnxruntime",
    "openvino",
    "python",
    "pytorch",
    "repeat",
    "square",
    "tensorflow",
    "tensorrt",
    "tensorrtllm",
    "vllm",
)
"""The backends in NVIDIA's images, each in some of them."""

COMPLETING_BACKENDS = ("tensorrtllm", "vllm")
"""Backends that know their tensors themselves and write them into the configuration when they load."""


def _tensors(s: Subject) -> tuple[Tensor, ...]:
    return s.config.inputs + s.config.outputs


def parses(_: Subject) -> Iterator[Problem]:
    """Done by the reader: what did not parse never becomes a subject."""
    return iter(())


def newer_field(s: Subject) -> Iterator[Problem]:
    """Fields that the release's own `model_config.proto` lacks."""
    for path, since in _NEW_FIELDS:
        message: Any = s.config.message
        for name in path[:-1]:
            message = getattr(message, name)
        written = message.ListFields()
        if s.release < since and any(f.name == path[-1] for f, _ in written):
            yield Problem(f"`{'.'.join(path)}` is not known to Triton {s.release}", s.line(*path))


def backend_known(s: Subject) -> Iterator[Problem]:
    """Platform and backend fit each other, and one of them can be told."""
    message = s.config.message
    if s.config.is_ensemble:
        return
    if message.platform and message.backend:
        expected = PLATFORMS.get(message.platform, (str(message.backend), ""))[0]
        # Triton ties only the backends that have platforms; any platform goes with the others.
        tied = message.backend in {backend for backend, _ in PLATFORMS.values()}
        if tied and (expected != message.backend or message.platform not in PLATFORMS):
            yield Problem(
                f"platform `{message.platform}` does not go with backend `{message.backend}`", s.line("platform")
            )
    elif not s.backend:
        if message.platform:
            yield Problem(f"platform `{message.platform}` is none that Triton knows", s.line("platform"))
        else:
            yield Problem("neither `backend` nor `platform` is written, and no version holds a file that tells it")


def backend_shipped(s: Subject) -> Iterator[Problem]:
    """The backend comes with Triton, or with the model."""
    name = str(s.config.message.backend)
    if not name or name in SHIPPED_BACKENDS or s.config.is_ensemble:
        return
    library = f"libtriton_{name}.so"
    folders = [s.model.path, *(s.model.path / str(version) for version in s.model.versions)]
    if str(s.config.message.runtime) or (s.model.on_disk and any((f / library).is_file() for f in folders)):
        return
    close = difflib.get_close_matches(name, SHIPPED_BACKENDS, n=1)
    meant = f"; did you mean `{close[0]}`?" if close else ""
    yield Problem(f"Triton comes without a backend `{name}`{meant}", s.line("backend"))


def name_is_folder(s: Subject) -> Iterator[Problem]:
    """`name` equals the folder."""
    name = str(s.config.message.name)
    if name and name != s.model.name and "/" not in name:
        yield Problem(f"`name` is `{name}`, the folder is `{s.model.name}`", s.line("name"))


def name_has_slash(s: Subject) -> Iterator[Problem]:
    """`/` in the names of models."""
    if "/" in s.config.message.name:
        yield Problem(f"`name` is `{s.config.message.name}`, with a `/`", s.line("name"))
    for index, step in enumerate(s.config.message.ensemble_scheduling.step):
        if "/" in step.model_name:
            line = s.line("ensemble_scheduling", "step", index, "model_name")
            yield Problem(f"step {index} names the model `{step.model_name}`, with a `/`", line)


def max_batch_size_written(s: Subject) -> Iterator[Problem]:
    """`max_batch_size` stands in the text."""
    if s.config.written and not s.config.lines.has("max_batch_size"):
        yield Problem("`max_batch_size` is not written")


def max_batch_size_negative(s: Subject) -> Iterator[Problem]:
    """`max_batch_size` is no negative number."""
    if s.config.max_batch_size < 0:
        yield Problem(f"`max_batch_size` is {s.config.max_batch_size}", s.line("max_batch_size"))


def _model_completes(s: Subject) -> bool:
    """Whether the model itself completes its tensors in the default mode: its code, or a backend that knows them.

    Of a configuration alone, without its folder, nothing is known against it.
    """
    if s.backend in COMPLETING_BACKENDS:
        return True
    if s.backend != "python":
        return False
    name = s.model.model_file(s.config)
    files = [s.model.path / str(version) / name for version in s.model.served_versions(s.config)]
    try:
        return all("auto_complete_config" in file.read_text(encoding="utf-8", errors="replace") for file in files)
    except OSError:
        return True  # another rule


def tensor_complete(s: Subject) -> Iterator[Problem]:
    """Every tensor has a name, a type and dims, or code that adds the latter two."""
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
            yield Problem(f"{tensor.kind} `{tensor.name or tensor.index}` has no {what}", s.tensor_line(tensor))


def dims_positive(s: Subject) -> Iterator[Problem]:
    """Dims are sizes from 1, or -1."""
    for tensor in _tensors(s):
        if bad := [d for d in tensor.dims if d < 1 and d != -1]:
            yield Problem(f"{tensor.kind} `{tensor.name}` has dimension {bad[0]}", s.tensor_line(tensor, "dims"))


def reshape_keeps_elements(s: Subject) -> Iterator[Problem]:
    """`reshape` keeps the number of elements around every -1."""
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
        yield Problem(f"`reshape` of {tensor.kind} `{tensor.name}` {reason}", line)


def _chunks(dims: tuple[int, ...]) -> list[int]:
    """Element counts of the runs between variable dimensions."""
    runs: list[list[int]] = [[]]
    for dim in dims:
        if dim == -1:
            runs.append([])
        else:
            runs[-1].append(dim)
    return [math.prod(run) for run in runs]


def names_unique(s: Subject) -> Iterator[Problem]:
    """No name twice among the inputs, nor among the outputs."""
    # The python backend looks outputs up by name and minds no second entry; of an input Triton then wants two.
    for tensors in (s.config.inputs, () if s.backend == "python" else s.config.outputs):
        counts = Counter(t.name for t in tensors if t.name)
        for name in [n for n, count in counts.items() if count > 1]:
            last = [t for t in tensors if t.name == name][-1]
            yield Problem(f"{last.kind} `{name}` is written {counts[name]} times", s.tensor_line(last))


def format_has_three_dims(s: Subject) -> Iterator[Problem]:
    """`FORMAT_NHWC` and `FORMAT_NCHW` name three dims."""
    for tensor, message in zip(s.config.inputs, s.config.message.input, strict=True):
        if message.format != 0 and len(tensor.dims) != 3:
            line = s.tensor_line(tensor, "format")
            yield Problem(f"input `{tensor.name}` has an image format and {len(tensor.dims)} dims instead of 3", line)


def tensorrt_only_fields(s: Subject) -> Iterator[Problem]:
    """Shape tensors and non-linear formats exist for TensorRT plans only."""
    if s.backend == "tensorrt":
        return
    for tensor, message in zip(_tensors(s), [*s.config.message.input, *s.config.message.output], strict=True):
        for field in ("is_shape_tensor", "is_non_linear_format_io"):
            if getattr(message, field):
                line = s.tensor_line(tensor, field)
                yield Problem(f"{tensor.kind} `{tensor.name}` sets `{field}`, which only TensorRT plans have", line)


def bf16(s: Subject) -> Iterator[Problem]:
    """BF16 tensors of ONNX models."""
    if s.is_onnx:
        for tensor in _tensors(s):
            if tensor.data_type == "TYPE_BF16":
                yield Problem(f"{tensor.kind} `{tensor.name}` is TYPE_BF16", s.tensor_line(tensor, "data_type"))


def tensors_listed(s: Subject) -> Iterator[Problem]:
    """Inputs and outputs are written, and all of each."""
    if not s.config.written or s.backend in COMPLETING_BACKENDS:
        return
    if missing := [kind for kind in ("input", "output") if not getattr(s.config.message, kind)]:
        yield Problem(f"no {' and no '.join(f'`{kind}`' for kind in missing)} is written")
    if not _model_completes(s):
        return
    for tensor in _tensors(s):
        if tensor.data_type == "TYPE_INVALID" or not tensor.dims:
            yield Problem(f"{tensor.kind} `{tensor.name}` is written in part", s.tensor_line(tensor))


def cacheable(s: Subject) -> Iterator[Problem]:
    """The response cache and sequences or decoupled answers exclude each other."""
    message = s.config.message
    if not message.response_cache.enable:
        return
    if message.HasField("sequence_batching"):
        yield Problem("`response_cache` and `sequence_batching` are both on", s.line("response_cache"))
    if message.model_transaction_policy.decoupled:
        yield Problem("`response_cache` is on in a decoupled model", s.line("response_cache"))


def torchscript_names(s: Subject) -> Iterator[Problem]:
    """Tensor names of TorchScript models end in their position."""
    if s.backend != "pytorch" or s.config.message.platform == "torch_aoti":
        return
    for tensor in s.config.outputs:
        if tensor.name and not re.search(r"__\d+$", tensor.name):
            yield Problem(f"output `{tensor.name}` does not end in its position", s.tensor_line(tensor, "name"))
    numbered = [bool(re.search(r"__\d+$", t.name)) for t in s.config.inputs]
    if any(numbered) and not all(numbered):
        odd = s.config.inputs[numbered.index(False)]
        message = f"input `{odd.name}` does not end in its position while others do"
        yield Problem(message, s.tensor_line(odd, "name"))


def string_tensors(s: Subject) -> Iterator[Problem]:
    """Strings through the onnxruntime backend."""
    if s.is_onnx:
        for tensor in _tensors(s):
            if tensor.data_type == "TYPE_STRING":
                line = s.tensor_line(tensor, "data_type")
                yield Problem(f"{tensor.kind} `{tensor.name}` carries strings, which end at their first NUL byte", line)


def optional_in_batches(s: Subject) -> Iterator[Problem]:
    """Optional inputs of batching ONNX models."""
    if s.is_onnx and s.config.max_batch_size > 0:
        for tensor in s.config.inputs:
            if tensor.optional:
                line = s.tensor_line(tensor, "optional")
                yield Problem(f"input `{tensor.name}` is optional and `max_batch_size` is above 0", line)


def rules() -> Iterable[Rule]:
    """The rules of this file."""
    return (
        Rule(
            "L101",
            "error",
            "the configuration does not parse",
            "Triton reads `config.pbtxt` with protobuf's text format. One unknown field, misspelt enum value or "
            "missing "
            "brace makes the model fail to load, and in the default mode the whole server then exits.",
            "correct the named line; fields and values are those of Triton's `model_config.proto`",
            parses,
        ),
        Rule(
            "L102",
            "error",
            "a field is newer than the release",
            "An older server's text parser does not know the field and refuses the whole file.",
            "remove the field, or serve with the release that knows it",
            newer_field,
        ),
        Rule(
            "L103",
            "error",
            "the backend cannot be told",
            "Triton picks the backend from `backend`, else from `platform`, else from the file in the first version "
            "folder, and refuses pairs that contradict each other.",
            'write `backend`, for instance `backend: "onnxruntime"`, and leave `platform` out or let it agree',
            backend_known,
            scope="repository",
        ),
        Rule(
            "L124",
            "error",
            "a backend that Triton does not come with",
            "NVIDIA's images hold their own backends. Another one is looked for as `libtriton_NAME.so` in the version "
            "folder, the model folder and `NAME/` of the backend directory; without it the model does not load.",
            "correct the name, or put the backend's library into the model folder",
            backend_shipped,
            scope="repository",
        ),
        Rule(
            "L104",
            "error",
            "`name` is not the folder's name",
            "Triton refuses a model whose `name` differs from its folder.",
            "rename the folder, or remove `name`: the folder's name is then used",
            name_is_folder,
            scope="repository",
        ),
        Rule(
            "L105",
            "error",
            "a model's name has a `/`",
            "Names become one segment of request URLs and one folder; newer releases validate them.",
            "replace `/`, for instance by two underscores: `BAAI__bge-m3`",
            name_has_slash,
        ),
        Rule(
            "L106",
            "warning",
            "`max_batch_size` is not written",
            "The reader cannot tell whether batching was forgotten or is unwanted. Absent means 0, no batching, except "
            "where Triton completes the configuration: there it becomes 4 (`default-max-batch-size`).",
            "write `max_batch_size`, also when it is 0",
            max_batch_size_written,
        ),
        Rule(
            "L107",
            "error",
            "`max_batch_size` is negative",
            "Triton refuses negative batch sizes.",
            "write 0 for no batching, or the largest number of rows of one run",
            max_batch_size_negative,
        ),
        Rule(
            "L108",
            "error",
            "a tensor lacks its name, type or dims",
            "Triton refuses inputs and outputs that are not complete, unless the code of a Python model completes them "
            "(`auto_complete_config`, in the default mode).",
            "write `name`, `data_type` and `dims`; a single number per row is `dims: [ 1 ]`",
            tensor_complete,
        ),
        Rule(
            "L109",
            "error",
            "a dimension is neither positive nor -1",
            "Triton refuses dimensions of 0 and below -1.",
            "write the size, or -1 for any size",
            dims_positive,
        ),
        Rule(
            "L110",
            "error",
            "`reshape` changes the number of elements",
            "`reshape` may only regroup: the element counts between variable dimensions must stay, and without "
            "batching "
            "it may not be empty.",
            "let `dims` and `reshape` hold the same elements",
            reshape_keeps_elements,
        ),
        Rule(
            "L111",
            "error",
            "a tensor is written twice",
            "The backend counts both entries, finds one tensor, and refuses the model; where a backend does not count, "
            "Triton expects two inputs of every request, which can send one.",
            "remove the second entry",
            names_unique,
        ),
        Rule(
            "L112",
            "error",
            "an image format without three dims",
            "`FORMAT_NHWC` and `FORMAT_NCHW` need exactly three dims.",
            "write three dims, or remove `format`",
            format_has_three_dims,
        ),
        Rule(
            "L113",
            "error",
            "a field that only TensorRT plans have",
            "`is_shape_tensor` and `is_non_linear_format_io` are refused for every other platform.",
            "remove the field",
            tensorrt_only_fields,
        ),
        Rule(
            "L114",
            "error",
            "a BF16 tensor in an ONNX model",
            "The onnxruntime backend maps BF16 inputs and outputs from 26.03 only; weights inside may be BF16.",
            "cast at the graph's borders to FP32, or serve with 26.03 or newer",
            bf16,
            until=Release(26, 3),
        ),
        Rule(
            "L115",
            "warning",
            "inputs or outputs are left to auto-complete",
            "Triton then takes them from the graph, turns `max_batch_size: 0` into 4 where every first dimension is "
            "dynamic, and adds a dynamic batcher; or asks a Python model's `auto_complete_config`. With "
            "`--disable-auto-complete-config` the model does not load.",
            "write every input and output",
            tensors_listed,
        ),
        Rule(
            "L116",
            "error",
            "the response cache cannot be used here",
            "Triton refuses the response cache for sequence models and for decoupled models.",
            "remove `response_cache`",
            cacheable,
        ),
        Rule(
            "L117",
            "warning",
            "TorchScript tensors are taken in the order of the configuration",
            "TorchScript keeps no output names: the pytorch backend finds output N by a name that ends in `__N`, and "
            "inputs by such names or by the arguments of `forward`. One name that fits neither makes it take all of "
            "them in the order in which they are written.",
            "name tensors `NAME__INDEX`, such as `OUTPUT__0`",
            torchscript_names,
            scope="repository",
        ),
        Rule(
            "L118",
            "info",
            "strings end at a NUL byte",
            "ONNX Runtime's C interface takes NUL-terminated strings, so the rest of a string is lost in silence.",
            "send text without NUL bytes, or send bytes as TYPE_UINT8",
            string_tensors,
            scope="repository",
        ),
        Rule(
            "L119",
            "error",
            "an optional input in a batching ONNX model",
            "The onnxruntime backend allows optional inputs (initializers with a default) only without batching.",
            "make the input required, or set `max_batch_size: 0`",
            optional_in_batches,
            scope="repository",
        ),
    )
