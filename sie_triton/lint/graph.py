"""Rules that compare a configuration with its ONNX graph, as the C++ onnxruntime backend does when it loads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sie_triton.lint import onnx_graph
from sie_triton.lint.config import Tensor
from sie_triton.lint.onnx_graph import GraphTensor, OnnxGraph, OnnxGraphError
from sie_triton.lint.release import Release, onnx_runtime
from sie_triton.lint.rule import Problem, Rule, Subject


def onnx_missing(s: Subject) -> Iterator[Problem]:
    """Whether graphs can be read at all."""
    if s.is_onnx and not onnx_graph.can_open():
        yield Problem("the graph was not opened, since the package `onnx` is not installed")


def graph_opens(s: Subject) -> Iterator[Problem]:
    """The files are ONNX."""
    for file in s.model.onnx_files(s.config):
        graph = s.model.graph(file)
        # A file above protobuf's limit has a rule of its own.
        if isinstance(graph, OnnxGraphError) and file.stat().st_size <= onnx_graph.MAX_PROTOBUF_BYTES:
            yield Problem(str(graph), path=file)


def ir_version(s: Subject) -> Iterator[Problem]:
    """The release's ONNX Runtime reads the IR version."""
    runtime = onnx_runtime(s.release)
    for graph in s.graphs:
        if graph.ir_version > runtime.max_ir_version:
            message = (
                f"IR version {graph.ir_version}: ONNX Runtime {runtime.version} of Triton {s.release} "
                f"reads up to {runtime.max_ir_version}"
            )
            yield Problem(message, path=graph.path)


def opset(s: Subject) -> Iterator[Problem]:
    """The release's ONNX Runtime knows the opset."""
    runtime = onnx_runtime(s.release)
    for graph in s.graphs:
        if graph.opset > runtime.max_opset:
            message = (
                f"opset {graph.opset}: ONNX Runtime {runtime.version} of Triton {s.release} "
                f"knows up to {runtime.max_opset}"
            )
            yield Problem(message, path=graph.path)


def given_inputs(s: Subject) -> set[str]:
    """Graph inputs that the configuration feeds: inputs, batch inputs, sequence controls and states."""
    message = s.config.message
    names = {t.name for t in s.config.inputs}
    names |= {str(target) for batch_input in message.batch_input for target in batch_input.target_name}
    names |= {str(control.name) for control in message.sequence_batching.control_input}
    return names | {str(state.input_name) for state in message.sequence_batching.state}


def inputs_listed(s: Subject) -> Iterator[Problem]:
    """Every graph input is fed."""
    if not s.config.inputs:
        return
    for graph in s.graphs:
        for name in sorted(graph.inputs.keys() - given_inputs(s)):
            yield Problem(f"the graph's input `{name}` is not listed", s.line("input"))


def inputs_exist(s: Subject) -> Iterator[Problem]:
    """Every fed input is one of the graph's."""
    for graph in s.graphs:
        known = graph.inputs.keys() | graph.overridable.keys()
        for name in sorted(given_inputs(s) - known - graph.initializers - {""}):
            line = s.config.lines.entry(("input",), name, key="name") or s.line("batch_input")
            yield Problem(f"the graph has no input `{name}`; it has {_names(known)}", line)


def outputs_exist(s: Subject) -> Iterator[Problem]:
    """Every configured output is one of the graph's."""
    for graph in s.graphs:
        for tensor in s.config.outputs:
            if tensor.name not in graph.declared_outputs:
                message = f"the graph has no output `{tensor.name}`; it has {_names(graph.declared_outputs)}"
                yield Problem(message, s.tensor_line(tensor, "name"))


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "none"


def _pairs(s: Subject, graph: OnnxGraph, kind: str) -> Iterator[tuple[Tensor, GraphTensor]]:
    """Configured tensors with their graph tensors; only plain tensors."""
    tensors, known = (
        (s.config.inputs, graph.inputs | graph.overridable) if kind == "input" else (s.config.outputs, graph.outputs)
    )
    for tensor in tensors:
        found = known.get(tensor.name)
        if found is not None and found.kind == "tensor":
            yield tensor, found


def _types(s: Subject, kind: str) -> Iterator[Problem]:
    for graph in s.graphs:
        for tensor, found in _pairs(s, graph, kind):
            if tensor.data_type not in ("TYPE_INVALID", found.data_type):
                message = f"{kind} `{tensor.name}` is {tensor.data_type} here and {found.data_type} in the graph"
                yield Problem(message, s.tensor_line(tensor, "data_type"))


def input_types(s: Subject) -> Iterator[Problem]:
    """Types of inputs agree."""
    return _types(s, "input")


def output_types(s: Subject) -> Iterator[Problem]:
    """Types of outputs agree."""
    return _types(s, "output")


def _compared(s: Subject, graph: OnnxGraph, kind: str) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
    """Tensors whose dims the backend compares, with the graph's dims (batch included)."""
    scattered = {str(name) for batch_output in s.config.message.batch_output for name in batch_output.target_name}
    for tensor, found in _pairs(s, graph, kind):
        if tensor.ragged or tensor.name in scattered or found.dims is None or not tensor.dims:
            continue
        yield tensor, found.dims


def _is_batched_vector(s: Subject, tensor: Tensor, dims: tuple[int, ...]) -> bool:
    """A graph tensor `[batch]`, which the configuration must write as `dims: [ 1 ] reshape { shape: [ ] }`."""
    return s.config.max_batch_size > 0 and dims == (-1,) and bool(tensor.graph_dims)


def dynamic_batch(s: Subject) -> Iterator[Problem]:
    """A batching model's tensors have a dynamic first dimension."""
    if s.config.max_batch_size <= 0:
        return
    for graph in s.graphs:
        for kind in ("input", "output"):
            for tensor, dims in _compared(s, graph, kind):
                if not dims or dims[0] != -1:
                    first = f"the fixed first dimension {dims[0]}" if dims else "no dimension"
                    message = (
                        f"{kind} `{tensor.name}` has {first} in the graph "
                        f"while `max_batch_size` is {s.config.max_batch_size}"
                    )
                    yield Problem(message, s.line("max_batch_size"))


def batched_vector(s: Subject) -> Iterator[Problem]:
    """Rank-1 tensors of batching models."""
    for graph in s.graphs:
        for kind in ("input", "output"):
            for tensor, dims in _compared(s, graph, kind):
                if _is_batched_vector(s, tensor, dims):
                    message = f"{kind} `{tensor.name}` is `[batch]` in the graph: it has no dimension besides the batch"
                    yield Problem(message, s.tensor_line(tensor, "dims"))


def _dims_differ(s: Subject, kind: str, *, exact: bool) -> Iterator[Problem]:
    batching = s.config.max_batch_size > 0
    for graph in s.graphs:
        for tensor, dims in _compared(s, graph, kind):
            if (batching and (not dims or dims[0] != -1)) or _is_batched_vector(s, tensor, dims):
                continue  # other rules
            ours, theirs = tensor.graph_dims, dims[1:] if batching else dims
            if not theirs and not batching:
                same = all(d == 1 for d in ours)
            else:
                same = len(ours) == len(theirs) and all(
                    o == t or (not exact and t == -1) for o, t in zip(ours, theirs, strict=True)
                )
            if not same and not (exact and _undecided(graph, ours, theirs)):
                message = f"{kind} `{tensor.name}` has dims {list(ours)} here and {list(theirs)} in the graph"
                cure = None
                if (
                    exact
                    and len(ours) == len(theirs)
                    and (symbols := _symbols(graph, tensor.name, batching, ours, theirs))
                ):
                    message += f", where {symbols} has no number"
                    cure = "declare the number in the graph's output shape, or write -1 here"
                yield Problem(message, s.tensor_line(tensor, "dims"), cure=cure)


def _symbols(graph: OnnxGraph, name: str, batching: bool, ours: tuple[int, ...], theirs: tuple[int, ...]) -> str:
    """The graph's names of the dimensions that have a number here and none there."""
    declared = graph.declared_outputs[name].symbols[1 if batching else 0 :]
    open_at = [i for i, (o, t) in enumerate(zip(ours, theirs, strict=True)) if t == -1 and o != -1]
    return ", ".join(f"`{declared[i]}`" if i < len(declared) and declared[i] else f"dimension {i}" for i in open_at)


def _undecided(graph: OnnxGraph, ours: tuple[int, ...], theirs: tuple[int, ...]) -> bool:
    """Whether ONNX Runtime may know more than ONNX: dims left open behind operators of other domains."""
    return (
        bool(graph.custom_operators)
        and len(ours) == len(theirs)
        and all(t in (o, -1) for o, t in zip(ours, theirs, strict=True))
    )


def input_dims(s: Subject) -> Iterator[Problem]:
    """Dims of inputs: equal, or narrower where the graph is dynamic."""
    return _dims_differ(s, "input", exact=False)


def output_dims(s: Subject) -> Iterator[Problem]:
    """Dims of outputs: equal both ways."""
    return _dims_differ(s, "output", exact=True)


def undecided_dims(s: Subject) -> Iterator[Problem]:
    """Output dims that only ONNX Runtime itself can infer."""
    batching = s.config.max_batch_size > 0
    for graph in s.graphs:
        for tensor, found in _pairs(s, graph, "output"):
            theirs = None if found.dims is None else found.dims[1 if batching else 0 :]
            ours = tensor.graph_dims
            if theirs is None:
                message = f"output `{tensor.name}` has no shape in the graph that could be compared"
            elif theirs != ours and _undecided(graph, ours, theirs):
                message = (
                    f"output `{tensor.name}` has dims {list(ours)} here and {list(theirs)} in the graph, "
                    f"behind {_names(graph.custom_operators)}"
                )
            else:
                continue
            yield Problem(message, s.tensor_line(tensor, "dims"))


def only_tensors(s: Subject) -> Iterator[Problem]:
    """Sequences, maps and the like at the graph's borders."""
    for graph in s.graphs:
        for name, tensor in (graph.inputs | graph.declared_outputs).items():
            if tensor.kind != "tensor":
                yield Problem(f"`{name}` is a {tensor.kind}, not a tensor", path=graph.path)


def served_types(s: Subject) -> Iterator[Problem]:
    """BF16 at the graph's borders."""
    for graph in s.graphs:
        for name, tensor in (graph.inputs | graph.declared_outputs).items():
            if tensor.data_type == "TYPE_BF16":
                yield Problem(f"`{name}` is BF16 in the graph", path=graph.path)


def unused_outputs(s: Subject) -> Iterator[Problem]:
    """Graph outputs that nobody can ask for."""
    if not s.config.outputs:
        return
    for graph in s.graphs:
        if left := graph.declared_outputs.keys() - {t.name for t in s.config.outputs}:
            yield Problem(f"the graph also has {_names(left)}, which no request can ask for", s.line("output"))


def rules() -> Iterable[Rule]:
    """The rules of this file."""
    return (
        Rule(
            "L201",
            "info",
            "the graph was not opened",
            "Without the `onnx` package the rules of this chapter cannot be checked.",
            "install `onnx` and lint again",
            onnx_missing,
            scope="repository",
        ),
        Rule(
            "L202",
            "error",
            "the model file is no ONNX graph",
            "The file is damaged, cut short (a git-LFS pointer, an interrupted download) or of another format.",
            "fetch or export the file again",
            graph_opens,
            scope="repository",
        ),
        Rule(
            "L203",
            "error",
            "the IR version is too new for the release",
            "Each ONNX Runtime refuses graphs of an IR version that it does not know. The `onnx` package stamps its "
            "own "
            "newest version unless told otherwise.",
            "set `ir_version` when exporting (8 to 10 load everywhere), or serve with a newer release",
            ir_version,
            scope="repository",
        ),
        Rule(
            "L204",
            "error",
            "the opset is too new for the release",
            "Each ONNX Runtime refuses opsets newer than the last one released when it was built.",
            "export with opset 17 or 18, which load everywhere, or serve with a newer release",
            opset,
            scope="repository",
        ),
        Rule(
            "L205",
            "error",
            "a graph input is not listed",
            "The onnxruntime backend refuses a configuration that lists fewer inputs than the graph has.",
            "list the input, or remove it from the graph",
            inputs_listed,
            scope="repository",
        ),
        Rule(
            "L206",
            "error",
            "a listed input is not in the graph",
            "The onnxruntime backend refuses inputs, batch inputs and sequence controls that the graph does not have.",
            "remove the input here, or give it its name in the graph",
            inputs_exist,
            scope="repository",
        ),
        Rule(
            "L207",
            "error",
            "an input has another type in the graph",
            "Types must be equal; nothing is converted.",
            "write the graph's type",
            input_types,
            scope="repository",
        ),
        Rule(
            "L208",
            "error",
            "an input's dims do not fit the graph",
            "A number in the graph must be the same number here; where the graph is dynamic, -1 or a number is fine.",
            "write the graph's dims, without the batch dimension when `max_batch_size` is above 0",
            input_dims,
            scope="repository",
        ),
        Rule(
            "L209",
            "error",
            "a listed output is not in the graph",
            "The onnxruntime backend refuses outputs that the graph does not have.",
            "remove the output here, or give it its name in the graph",
            outputs_exist,
            scope="repository",
        ),
        Rule(
            "L210",
            "error",
            "an output has another type in the graph",
            "Types must be equal; nothing is converted.",
            "write the graph's type",
            output_types,
            scope="repository",
        ),
        Rule(
            "L211",
            "error",
            "an output's dims are not the graph's",
            "Unlike inputs, outputs must match exactly, both ways, against the shape that ONNX Runtime infers: -1 "
            "against "
            "a number is refused, and a number against a symbol is refused.",
            "write the dims as the graph has them",
            output_dims,
            scope="repository",
        ),
        Rule(
            "L212",
            "error",
            "batching needs a dynamic first dimension",
            "With `max_batch_size` above 0 the first dimension of every configured tensor must be dynamic in the "
            "graph.",
            "export with a dynamic batch dimension, or set `max_batch_size: 0` and write full dims",
            dynamic_batch,
            scope="repository",
        ),
        Rule(
            "L213",
            "error",
            "one number per row needs `reshape`",
            "A graph tensor `[batch]` has no dims left without its batch dimension, and Triton wants at least one.",
            "write `dims: [ 1 ] reshape { shape: [ ] }`",
            batched_vector,
            scope="repository",
        ),
        Rule(
            "L214",
            "error",
            "the graph takes or gives something else than tensors",
            "The onnxruntime backend refuses sequences, maps and sparse tensors, also those that are not configured.",
            "change the graph: a sequence of equal tensors can be concatenated (`zipmap: False` in sklearn exports)",
            only_tensors,
            scope="repository",
        ),
        Rule(
            "L215",
            "warning",
            "an output's dims could not be checked",
            "The graph leaves the shape open, behind operators whose shapes only ONNX Runtime knows or without any "
            "shape.",
            "declare the output's shape in the graph, with the numbers written here",
            undecided_dims,
            scope="repository",
        ),
        Rule(
            "L216",
            "error",
            "the graph's border is BF16",
            "The onnxruntime backend maps BF16 inputs and outputs from 26.03 only.",
            "cast at the graph's borders to FP32, or serve with 26.03 or newer",
            served_types,
            scope="repository",
            until=Release(26, 3),
        ),
        Rule(
            "L217",
            "info",
            "graph outputs are computed for nobody",
            "ONNX Runtime computes what the graph's outputs need, whether they are configured or not.",
            "remove the outputs from the graph, or list them",
            unused_outputs,
            scope="repository",
        ),
    )
