"""Rules on what comes and goes with releases, and on limits around the model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from sie_triton.lint.release import Release
from sie_triton.lint.rule import Problem, Rule, Subject

HTTP_INPUT_LIMIT_BYTES = 64 * 2**20
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


def tensorflow(s: Subject) -> Iterator[Problem]:
    """Models of the TensorFlow backend."""
    if s.backend == "tensorflow":
        yield Problem("the model needs the TensorFlow backend", s.line("platform") or s.line("backend"))


def torchscript(s: Subject) -> Iterator[Problem]:
    """TorchScript models."""
    if s.backend == "pytorch" and s.config.message.platform != "torch_aoti":
        yield Problem("the model is TorchScript", s.line("platform") or s.line("backend"))


def torch_aoti(s: Subject) -> Iterator[Problem]:
    """Ahead-of-time compiled PyTorch models."""
    if s.config.message.platform == "torch_aoti":
        yield Problem(f"platform `torch_aoti` is unknown to Triton {s.release}", s.line("platform"))


def http_limit(s: Subject) -> Iterator[Problem]:
    """One full batch through HTTP, where all dims are fixed."""
    inputs = s.config.inputs
    if not inputs or any(-1 in t.dims or t.data_type not in _SIZES for t in inputs):
        return
    rows = max(s.config.max_batch_size, 1)
    size = rows * sum(math.prod(t.dims) * _SIZES[t.data_type] for t in inputs)
    if size > HTTP_INPUT_LIMIT_BYTES:
        text = f"a request of {rows} rows holds {size / 2**20:.0f} MiB, above the server's limit of 64 MiB for HTTP"
        yield Problem(text, s.line("max_batch_size"))


def cache_flag(s: Subject) -> Iterator[Problem]:
    """The response cache needs the server's."""
    if s.config.message.response_cache.enable:
        yield Problem("`response_cache` is on", s.line("response_cache"))


def rules() -> Iterable[Rule]:
    """The rules of this file."""
    return (
        Rule(
            "L801",
            "error",
            "the TensorFlow backend is gone",
            "Triton 25.03 and newer come without the TensorFlow backend.",
            "convert the model to ONNX (`tf2onnx`), or stay on 25.02",
            tensorflow,
            scope="repository",
            since=Release(25, 3),
        ),
        Rule(
            "L802",
            "warning",
            "the TensorFlow backend ends with 25.02",
            "Triton 25.03 and newer come without the TensorFlow backend.",
            "convert the model to ONNX (`tf2onnx`) before the next upgrade",
            tensorflow,
            scope="repository",
            until=Release(25, 3),
        ),
        Rule(
            "L803",
            "info",
            "TorchScript is deprecated",
            "PyTorch deprecated TorchScript. The pytorch backend still loads it.",
            "export to ONNX, or from 26.03 to `.pt2` with platform `torch_aoti`",
            torchscript,
            scope="repository",
        ),
        Rule(
            "L804",
            "error",
            "`torch_aoti` comes with 26.03",
            "Older releases do not know the platform.",
            "serve with 26.03 or newer, or export to ONNX",
            torch_aoti,
            until=Release(26, 3),
        ),
        Rule(
            "L805",
            "warning",
            "a full batch exceeds the HTTP limit",
            "From 25.06 the server refuses HTTP requests above 64 MiB (`--http-max-input-size`); JSON needs more bytes "
            "still.",
            "lower `max_batch_size`, send smaller batches, use gRPC, or raise `--http-max-input-size`",
            http_limit,
            since=Release(25, 6),
        ),
        Rule(
            "L806",
            "info",
            "the response cache needs a server flag",
            "Without `--cache-config` nothing is cached; only inputs in CPU memory are. Every miss costs a hash and "
            "a copy.",
            "start the server with `--cache-config local,size=BYTES`, and cache only what repeats",
            cache_flag,
        ),
    )
