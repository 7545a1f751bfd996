"""Rules on ONNX files: that they open, what the release's ONNX Runtime reads of them, weights in other files."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from sie_triton.backends.onnxruntime.operators import (
    BLOCK_BITS_SINCE,
    LEGACY_OPERATORS,
    MAX_ML_OPSET,
    ML_DOMAIN,
    STANDARD_DOMAINS,
    foreign,
)
from sie_triton.backends.releases import onnx_runtime
from sie_triton.lint import onnx_graph
from sie_triton.lint.onnx_graph import MAX_PROTOBUF_BYTES, ExternalTensor, OnnxGraph, OnnxGraphError
from sie_triton.lint.rule import LintSubject, Problem, rule


@rule(
    "L201",
    "info",
    title="the graph was not opened",
    explanation="Without the `onnx` package the rules of this chapter cannot be checked.",
    hint="install `onnx` and lint again",
    scope="repository",
)
def _onnx_missing(s: LintSubject) -> Iterator[Problem]:
    if s.is_onnx and not onnx_graph.can_open():
        yield Problem("the graph was not opened, since the package `onnx` is not installed")


@rule(
    "L202",
    "error",
    title="the model file is no ONNX graph",
    explanation="The file is damaged, cut short (a git-LFS pointer, an interrupted download) or of another format.",
    hint="fetch or export the file again",
    scope="repository",
)
def _graph_opens(s: LintSubject) -> Iterator[Problem]:
    for file in s.model.onnx_files(s.config):
        graph = s.model.graph(file)
        # A file above protobuf's limit has a rule of its own.
        if isinstance(graph, OnnxGraphError) and file.stat().st_size <= MAX_PROTOBUF_BYTES:
            yield Problem(str(graph), path=file)


@rule(
    "L203",
    "error",
    title="the IR version is too new for the release",
    explanation=(
        "Each ONNX Runtime refuses graphs of an IR version that it does not know. The `onnx` package stamps its own "
        "newest version unless told otherwise."
    ),
    hint="set `ir_version` when exporting (8 to 10 load everywhere), or serve with a newer release",
    scope="repository",
)
def _ir_version(s: LintSubject) -> Iterator[Problem]:
    runtime = onnx_runtime(s.release)
    for graph in s.graphs:
        if graph.ir_version > runtime.max_ir_version:
            message = (
                f"IR version {graph.ir_version}: ONNX Runtime {runtime.version} of Triton {s.release} "
                f"reads up to {runtime.max_ir_version}"
            )
            yield Problem(message, path=graph.path)


@rule(
    "L204",
    "error",
    title="the opset is too new for the release",
    explanation="Each ONNX Runtime refuses opsets newer than the last one released when it was built.",
    hint="export with opset 17 or 18, which load everywhere, or serve with a newer release",
    scope="repository",
)
def _opset(s: LintSubject) -> Iterator[Problem]:
    runtime = onnx_runtime(s.release)
    for graph in s.graphs:
        if graph.opset > runtime.max_opset:
            message = (
                f"opset {graph.opset}: ONNX Runtime {runtime.version} of Triton {s.release} "
                f"knows up to {runtime.max_opset}"
            )
            yield Problem(message, path=graph.path)


@rule(
    "L220",
    "error",
    title="an operator that the release does not have",
    explanation=(
        "ONNX Runtime refuses a graph with an operator or a domain that it does not know. The operators of "
        "`com.microsoft` are its own and grow with its versions; those of other domains come from a library."
    ),
    hint=(
        "name the library in `model_operations { op_library_filename: ... }`, export without the operator, or serve "
        "with a release that has it"
    ),
    scope="repository",
)
def _operators(s: LintSubject) -> Iterator[Problem]:
    if s.config.received.op_libraries:
        return  # a library may bring any
    version = onnx_runtime(s.release).minor
    for graph in s.graphs:
        for domain, operator in sorted(graph.operators):
            reason = foreign(domain, operator, version) or _unknown_to_onnx(graph, domain, operator)
            if reason:
                yield Problem(f"the graph needs {reason}", path=graph.path)


def _unknown_to_onnx(graph: OnnxGraph, domain: str, operator: str) -> str | None:
    """Why an operator of ONNX's own domains is none; None where it is one, or where the `onnx` here is too old."""
    from onnx import defs

    if domain not in STANDARD_DOMAINS | {ML_DOMAIN} or (domain in STANDARD_DOMAINS and operator in LEGACY_OPERATORS):
        return None
    schema_domain = ML_DOMAIN if domain == ML_DOMAIN else ""
    opset = graph.ml_opset if domain == ML_DOMAIN else graph.opset
    if not 0 < opset <= _newest_opset(schema_domain):
        return None  # other rules, or unknown here
    if not defs.has(operator, opset, schema_domain):
        return f"`{operator}`, which opset {opset} of {f'`{domain}`' if domain else 'ONNX'} does not have"
    schema = defs.get_schema(operator, opset, schema_domain)
    return f"`{operator}`, which opset {opset} has taken away" if schema.deprecated else None


@cache
def _newest_opset(schema_domain: str) -> int:
    """The newest opset of a domain that the `onnx` here knows. To ask for all schemas takes milliseconds."""
    from onnx import defs

    newest: int = max(schema.since_version for schema in defs.get_all_schemas() if schema.domain == schema_domain)
    return newest if schema_domain else max(newest, defs.onnx_opset_version())


@rule(
    "L221",
    "error",
    title="the opset of `ai.onnx.ml` is too new",
    explanation=(
        f"Every ONNX Runtime seen so far knows `{ML_DOMAIN}` up to opset {MAX_ML_OPSET}, and refuses a graph that "
        "merely imports a newer one."
    ),
    hint=f"export with opset {MAX_ML_OPSET} of `{ML_DOMAIN}` or older, or remove the import",
    scope="repository",
)
def _ml_opset(s: LintSubject) -> Iterator[Problem]:
    runtime = onnx_runtime(s.release)
    for graph in s.graphs:
        if graph.ml_opset > MAX_ML_OPSET:
            text = (
                f"opset {graph.ml_opset} of `{ML_DOMAIN}`: ONNX Runtime {runtime.version} of Triton {s.release} "
                f"knows up to {MAX_ML_OPSET}"
            )
            yield Problem(text, path=graph.path)


@rule(
    "L223",
    "error",
    title="weights of so many bits that the release does not compute",
    explanation=(
        "`MatMulNBits` has weights of 4 bits in every release, and of 8 bits since ONNX Runtime 1.22, which is in "
        "Triton 25.06. An older one knows the operator and refuses the graph all the same."
    ),
    hint="serve with a release that has it, or build in float32",
    scope="repository",
)
def _block_bits(s: LintSubject) -> Iterator[Problem]:
    runtime = onnx_runtime(s.release)
    for graph in s.graphs:
        for bits in sorted(graph.block_bits):
            since = BLOCK_BITS_SINCE.get(bits)
            if since is None or since > runtime.minor:
                came = f", which came with ONNX Runtime {since[0]}.{since[1]}" if since else ""
                text = f"`MatMulNBits` with weights of {bits} bits{came}; Triton {s.release} has {runtime.version}"
                yield Problem(text, path=graph.path)


@rule(
    "L609",
    "error",
    title="external weights are missing",
    explanation="A graph with external data names files relative to itself; ONNX Runtime opens them when it loads.",
    hint="put the files beside the graph; they move together",
    scope="repository",
)
def _external_weights(s: LintSubject) -> Iterator[Problem]:
    for graph in s.graphs:
        folder = graph.path.parent
        for name in graph.external_files:
            if name.startswith("/") or ".." in Path(name).parts:
                yield Problem(f"the graph's weights are at `{name}`, outside the version folder", path=graph.path)
            elif not (folder / name).is_file():
                yield Problem(f"the graph's weights `{name}` are missing beside it", path=graph.path)


@rule(
    "L616",
    "error",
    title="external weights do not fit",
    explanation=(
        "ONNX Runtime reads each tensor of a graph with external data from an offset on, and refuses a file that ends "
        "before and a length that is not the shape's. An interrupted copy and a git-LFS pointer look so."
    ),
    hint="copy the file again, or export again",
    scope="repository",
)
def _external_bytes(s: LintSubject) -> Iterator[Problem]:
    for graph in s.graphs:
        for tensor in graph.external_tensors:
            if reason := _cut_short(graph, tensor):
                yield Problem(reason, path=graph.path)
                break  # one cut file breaks many tensors


def _cut_short(graph: OnnxGraph, tensor: ExternalTensor) -> str | None:
    if not tensor.location:
        return f"the graph's weights `{tensor.name}` lie in a file without a name"
    file = graph.path.parent / tensor.location
    if tensor.needed is not None and tensor.length not in (0, tensor.needed):
        return (
            f"`{tensor.name}` has {tensor.length} bytes in `{tensor.location}` and needs {tensor.needed} by its shape"
        )
    try:
        status = file.stat()
    except OSError:
        return None  # another rule
    end = tensor.offset + (tensor.length or tensor.needed or 0)
    if stat.S_ISREG(status.st_mode) and status.st_size < end:
        return (
            f"`{tensor.location}` has {status.st_size} bytes, and `{tensor.name}` ends at byte {end}: it is cut short"
        )
    return None


@rule(
    "L610",
    "error",
    title="the graph file is larger than 2 GiB",
    explanation="Protobuf cannot read messages above 2 GiB.",
    hint="save the graph with external data",
    scope="repository",
)
def _graph_size(s: LintSubject) -> Iterator[Problem]:
    for file in s.model.onnx_files(s.config):
        if file.stat().st_size > MAX_PROTOBUF_BYTES:
            yield Problem(f"the file has {file.stat().st_size / 2**30:.1f} GiB", path=file)
