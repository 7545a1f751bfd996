"""Rules on what comes and goes with releases, and on limits around the model."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sie_triton.backends.releases import Release
from sie_triton.lint.rule import LintSubject, Problem, rule

_HTTP_INPUT_LIMIT_BYTES = 64 * 2**20
_SIZES = {
    "TYPE_BOOL": 1,
    "TYPE_UINT8": 1,
    "TYPE_INT8": 1,
    "TYPE_UINT16": 2,
    "TYPE_INT16": 2,
    "TYPE_FP16": 2,
    "TYPE_BF16": 2,
    "TYPE_UINT32": 4,
    "TYPE_INT32": 4,
    "TYPE_FP32": 4,
    "TYPE_UINT64": 8,
    "TYPE_INT64": 8,
    "TYPE_FP64": 8,
}


@rule(
    "L801",
    "error",
    title="the TensorFlow backend is gone",
    explanation="Triton 25.03 and newer come without the TensorFlow backend.",
    hint="convert the model to ONNX (`tf2onnx`), or stay on 25.02",
    scope="repository",
    since=Release(25, 3),
)
def _tensorflow_gone(s: LintSubject) -> Iterator[Problem]:
    return _on_tensorflow(s)


@rule(
    "L802",
    "warning",
    title="the TensorFlow backend ends with 25.02",
    explanation="Triton 25.03 and newer come without the TensorFlow backend.",
    hint="convert the model to ONNX (`tf2onnx`) before the next upgrade",
    scope="repository",
    until=Release(25, 3),
)
def _tensorflow_ends(s: LintSubject) -> Iterator[Problem]:
    return _on_tensorflow(s)


def _on_tensorflow(s: LintSubject) -> Iterator[Problem]:
    if s.backend == "tensorflow":
        yield Problem("the model needs the TensorFlow backend", s.line("platform") or s.line("backend"))


@rule(
    "L803",
    "info",
    title="TorchScript is deprecated",
    explanation="PyTorch deprecated TorchScript. The pytorch backend still loads it.",
    hint="export to ONNX, or from 26.03 to `.pt2` with platform `torch_aoti`",
    scope="repository",
)
def _torchscript(s: LintSubject) -> Iterator[Problem]:
    if s.backend == "pytorch" and s.config.message.platform != "torch_aoti":
        yield Problem("the model is TorchScript", s.line("platform") or s.line("backend"))


@rule(
    "L804",
    "error",
    title="`torch_aoti` comes with 26.03",
    explanation="Older releases do not know the platform.",
    hint="serve with 26.03 or newer, or export to ONNX",
    until=Release(26, 3),
)
def _torch_aoti(s: LintSubject) -> Iterator[Problem]:
    if s.config.message.platform == "torch_aoti":
        yield Problem(f"platform `torch_aoti` is unknown to Triton {s.release}", s.line("platform"))


@rule(
    "L805",
    "warning",
    title="a full batch exceeds the HTTP limit",
    explanation=(
        "From 25.06 the server refuses HTTP requests above 64 MiB (`--http-max-input-size`); JSON needs more bytes "
        "still."
    ),
    hint="lower `max_batch_size`, send smaller batches, use gRPC, or raise `--http-max-input-size`",
    since=Release(25, 6),
)
def _http_limit(s: LintSubject) -> Iterator[Problem]:
    inputs = s.config.inputs
    if not inputs or any(-1 in t.dims or t.data_type not in _SIZES for t in inputs):
        return
    rows = max(s.config.max_batch_size, 1)
    size = rows * sum(math.prod(t.dims) * _SIZES[t.data_type] for t in inputs)
    if size > _HTTP_INPUT_LIMIT_BYTES:
        text = f"a request of {rows} rows holds {size / 2**20:.0f} MiB, above the server's limit of 64 MiB for HTTP"
        yield Problem(text, s.line("max_batch_size"))


@rule(
    "L806",
    "info",
    title="the response cache needs a server flag",
    explanation=(
        "Without `--cache-config` nothing is cached; only inputs in CPU memory are. Every miss costs a hash and a copy."
    ),
    hint="start the server with `--cache-config local,size=BYTES`, and cache only what repeats",
)
def _cache_flag(s: LintSubject) -> Iterator[Problem]:
    if s.config.message.response_cache.enable:
        yield Problem("`response_cache` is on", s.line("response_cache"))
