"""Rules on what an ONNX graph is made of: operators, initializers, shapes, weights in other files."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator

from sie_triton.embedded.onnx_operators import (
    LEGACY_OPERATORS,
    MAX_ML_OPSET,
    ML_DOMAIN,
    STANDARD_DOMAINS,
    foreign,
    parse_version,
)
from sie_triton.lint.onnx_graph import ExternalTensor, OnnxGraph
from sie_triton.lint.release import onnx_runtime
from sie_triton.lint.rule import Problem, Rule, Subject


def operators(s: Subject) -> Iterator[Problem]:
    """The release's ONNX Runtime has every operator."""
    if s.config.message.model_operations.op_library_filename:
        return  # a library may bring any
    version = parse_version(onnx_runtime(s.release).version)
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
    newest = max(s.since_version for s in defs.get_all_schemas() if s.domain == schema_domain)
    if not 0 < opset <= max(newest, defs.onnx_opset_version() if not schema_domain else 0):
        return None  # other rules, or unknown here
    if not defs.has(operator, opset, schema_domain):
        return f"`{operator}`, which opset {opset} of {f'`{domain}`' if domain else 'ONNX'} does not have"
    schema = defs.get_schema(operator, opset, schema_domain)
    return f"`{operator}`, which opset {opset} has taken away" if schema.deprecated else None


def ml_opset(s: Subject) -> Iterator[Problem]:
    """The release's ONNX Runtime knows the opset of classical machine learning."""
    runtime = onnx_runtime(s.release)
    for graph in s.graphs:
        if graph.ml_opset > MAX_ML_OPSET:
            text = (
                f"opset {graph.ml_opset} of `{ML_DOMAIN}`: ONNX Runtime {runtime.version} of Triton {s.release} "
                f"knows up to {MAX_ML_OPSET}"
            )
            yield Problem(text, path=graph.path)


def required_initializers(s: Subject) -> Iterator[Problem]:
    """Initializers are not listed as inputs that a request must have."""
    for graph in s.graphs:
        for tensor in s.config.inputs:
            if tensor.name not in graph.initializers:
                continue
            line = s.tensor_line(tensor, "name")
            if tensor.name not in graph.overridable:
                yield Problem(f"input `{tensor.name}` is a constant of the graph", line)
            elif not tensor.optional:
                yield Problem(f"input `{tensor.name}` is an initializer of the graph, and not `optional` here", line)


def optional_initializers(s: Subject) -> Iterator[Problem]:
    """Optional inputs have a default in the graph."""
    for graph in s.graphs:
        for tensor in s.config.inputs:
            if tensor.optional and not tensor.ragged and tensor.name in graph.inputs:
                line = s.tensor_line(tensor, "optional")
                yield Problem(f"input `{tensor.name}` is optional and has no initializer in the graph", line)


def shapes_declared(s: Subject) -> Iterator[Problem]:
    """Graph inputs have a shape."""
    for graph in s.graphs:
        for tensor in s.config.inputs:
            found = graph.inputs.get(tensor.name)
            if found is None or found.kind != "tensor" or found.dims is not None:
                continue
            # To ONNX Runtime it is like a scalar, for which the backend lets dims of ones pass.
            if any(d != 1 for d in tensor.graph_dims) or tensor.ragged:
                text = f"input `{tensor.name}` has dims {list(tensor.graph_dims)} here and no shape in the graph"
                yield Problem(text, s.tensor_line(tensor, "dims"))


def external_bytes(s: Subject) -> Iterator[Problem]:
    """Files of external weights hold all that the graph takes from them."""
    for graph in s.graphs:
        for tensor in graph.external_tensors:
            if reason := _misfit(graph, tensor):
                yield Problem(reason, path=graph.path)
                break  # one cut file breaks many tensors


def _misfit(graph: OnnxGraph, tensor: ExternalTensor) -> str | None:
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


def rules() -> Iterable[Rule]:
    """The rules of this file."""
    return (
        Rule(
            "L218",
            "error",
            "an initializer is listed as a required input",
            "The onnxruntime backend counts the inputs of the configuration that are not `optional` against those that "
            "the graph requires, and an initializer is none of these. From IR version 4 on one that is also a graph "
            "input is a default that a request may override; before, it is a constant.",
            "do not list it; or write `optional: true` (without batching, and from IR version 4 on); or take the "
            "initializer out of the graph",
            required_initializers,
            scope="repository",
        ),
        Rule(
            "L219",
            "error",
            "a graph input has no shape",
            "ONNX Runtime tells of such an input what it tells of a scalar: no dimensions. The backend then accepts no "
            "dims but ones.",
            "declare the input's shape in the graph, with names for what varies",
            shapes_declared,
            scope="repository",
        ),
        Rule(
            "L220",
            "error",
            "an operator that the release does not have",
            "ONNX Runtime refuses a graph with an operator or a domain that it does not know. The operators of "
            "`com.microsoft` are its own and grow with its versions; those of other domains come from a library.",
            "name the library in `model_operations { op_library_filename: ... }`, export without the operator, or "
            "serve with a release that has it",
            operators,
            scope="repository",
        ),
        Rule(
            "L221",
            "error",
            "the opset of `ai.onnx.ml` is too new",
            f"Every ONNX Runtime seen so far knows `{ML_DOMAIN}` up to opset {MAX_ML_OPSET}, and refuses a graph that "
            "merely imports a newer one.",
            f"export with opset {MAX_ML_OPSET} of `{ML_DOMAIN}` or older, or remove the import",
            ml_opset,
            scope="repository",
        ),
        Rule(
            "L222",
            "error",
            "an optional input without a default",
            "The onnxruntime backend does not count optional inputs. One that the graph requires makes the counts "
            "differ.",
            "remove `optional`, or give the graph an initializer of the input's name",
            optional_initializers,
            scope="repository",
        ),
        Rule(
            "L616",
            "error",
            "external weights do not fit",
            "ONNX Runtime reads each tensor of a graph with external data from an offset on, and refuses a file that "
            "ends before and a length that is not the shape's. An interrupted copy and a git-LFS pointer look so.",
            "copy the file again, or export again",
            external_bytes,
            scope="repository",
        ),
    )
