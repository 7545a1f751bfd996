"""Rules that compare a configuration with its ONNX graph, as the C++ onnxruntime backend does when it loads."""

from __future__ import annotations

from collections.abc import Iterator

from sie_triton.backends.onnxruntime.signature import (
    GraphTensor,
    Misfit,
    misfit,
    pairs,
    types_differ,
    unfed_inputs,
    unknown_inputs,
    unknown_outputs,
)
from sie_triton.backends.onnxruntime.types import BF16_SINCE
from sie_triton.backends.received import ConfigTensor, Role
from sie_triton.lint.onnx_graph import OnnxGraph
from sie_triton.lint.rule import LintSubject, Problem, rule
from sie_triton.lint.wording import quoted


def _pairs(s: LintSubject, graph: OnnxGraph, role: Role) -> Iterator[tuple[ConfigTensor, GraphTensor]]:
    """Configured tensors with the graph's, those that a request may override among them."""
    if role == "input":
        return pairs(s.config.inputs, graph.inputs | graph.overridable)
    return pairs(s.config.outputs, graph.outputs)


def _misfits(
    s: LintSubject, graph: OnnxGraph, *roles: Role
) -> Iterator[tuple[ConfigTensor, tuple[int, ...] | None, Misfit]]:
    """Tensors whose dims the backend does not take, with the graph's dims: None where it declares no shape."""
    for role in roles:
        for tensor, found in _pairs(s, graph, role):
            if (wrong := misfit(s.config.received, tensor, found)) is not None:
                yield tensor, found.dims, wrong


@rule(
    "L205",
    "error",
    title="a graph input is not listed",
    explanation="The onnxruntime backend refuses a configuration that lists fewer inputs than the graph has.",
    hint="list the input, or remove it from the graph",
    scope="repository",
)
def _inputs_listed(s: LintSubject) -> Iterator[Problem]:
    if not s.config.inputs:
        return
    for graph in s.graphs:
        for name in unfed_inputs(s.config.received, graph.inputs):
            yield Problem(f"the graph's input `{name}` is not listed", s.line("input"))


@rule(
    "L206",
    "error",
    title="a listed input is not in the graph",
    explanation=(
        "The onnxruntime backend refuses inputs, batch inputs and sequence controls that the graph does not have."
    ),
    hint="remove the input here, or give it its name in the graph",
    scope="repository",
)
def _inputs_exist(s: LintSubject) -> Iterator[Problem]:
    for graph in s.graphs:
        known = graph.inputs.keys() | graph.overridable.keys()
        for name in unknown_inputs(s.config.received, known | graph.initializers):
            line = s.config.lines.entry(("input",), name, key="name") or s.line("batch_input")
            yield Problem(f"the graph has no input `{name}`; it has {quoted(sorted(known))}", line)


@rule(
    "L207",
    "error",
    title="an input has another type in the graph",
    explanation="Types must be equal; nothing is converted.",
    hint="write the graph's type",
    scope="repository",
)
def _input_types(s: LintSubject) -> Iterator[Problem]:
    return _types_differ(s, "input")


@rule(
    "L208",
    "error",
    title="an input's dims do not fit the graph",
    explanation=(
        "A number in the graph must be the same number here; where the graph is dynamic, -1 or a number is fine."
    ),
    hint="write the graph's dims, without the batch dimension when `max_batch_size` is above 0",
    scope="repository",
)
def _input_dims(s: LintSubject) -> Iterator[Problem]:
    return _dims_differ(s, "input")


@rule(
    "L209",
    "error",
    title="a listed output is not in the graph",
    explanation="The onnxruntime backend refuses outputs that the graph does not have.",
    hint="remove the output here, or give it its name in the graph",
    scope="repository",
)
def _outputs_exist(s: LintSubject) -> Iterator[Problem]:
    for graph in s.graphs:
        for tensor in unknown_outputs(s.config.received, graph.declared_outputs):
            message = f"the graph has no output `{tensor.name}`; it has {quoted(sorted(graph.declared_outputs))}"
            yield Problem(message, s.tensor_line(tensor, "name"))


@rule(
    "L210",
    "error",
    title="an output has another type in the graph",
    explanation="Types must be equal; nothing is converted.",
    hint="write the graph's type",
    scope="repository",
)
def _output_types(s: LintSubject) -> Iterator[Problem]:
    return _types_differ(s, "output")


def _types_differ(s: LintSubject, role: Role) -> Iterator[Problem]:
    for graph in s.graphs:
        for tensor, found in _pairs(s, graph, role):
            if types_differ(tensor, found):
                message = f"{role} `{tensor.name}` is {tensor.data_type} here and {found.data_type} in the graph"
                yield Problem(message, s.tensor_line(tensor, "data_type"))


@rule(
    "L211",
    "error",
    title="an output's dims are not the graph's",
    explanation=(
        "Unlike inputs, outputs must match exactly, both ways, against the shape that ONNX Runtime infers: -1 against "
        "a number is refused, and a number against a symbol is refused."
    ),
    hint="write the dims as the graph has them",
    scope="repository",
)
def _output_dims(s: LintSubject) -> Iterator[Problem]:
    return _dims_differ(s, "output")


def _dims_differ(s: LintSubject, role: Role) -> Iterator[Problem]:
    for graph in s.graphs:
        for tensor, dims, wrong in _misfits(s, graph, role):
            if dims is None or wrong not in (Misfit.DIMS, Misfit.SCALAR):
                continue
            ours, theirs = tensor.graph_dims, _without_batch(s, dims)
            if role == "output" and _is_undecided(graph, ours, theirs):
                continue
            message = f"{role} `{tensor.name}` has dims {list(ours)} here and {list(theirs)} in the graph"
            hint = None
            if role == "output" and (open_dims := _open_dims(s, graph, tensor, theirs)):
                message += f", where {open_dims} has no number"
                hint = "declare the number in the graph's output shape, or write -1 here"
            yield Problem(message, s.tensor_line(tensor, "dims"), hint=hint)


def _without_batch(s: LintSubject, dims: tuple[int, ...]) -> tuple[int, ...]:
    return dims[1:] if s.config.max_batch_size > 0 else dims


def _open_dims(s: LintSubject, graph: OnnxGraph, tensor: ConfigTensor, theirs: tuple[int, ...]) -> str:
    """The graph's names of the dimensions that have a number here and none there; "" where the ranks differ."""
    if len(tensor.graph_dims) != len(theirs):
        return ""
    declared = (graph.declared_outputs[tensor.name].shape or ())[s.config.max_batch_size > 0 :]
    open_at = [i for i, (o, t) in enumerate(zip(tensor.graph_dims, theirs, strict=True)) if t == -1 and o != -1]
    symbols = {i: symbol for i, symbol in enumerate(declared) if isinstance(symbol, str)}
    return ", ".join(f"`{symbols[i]}`" if i in symbols else f"dimension {i}" for i in open_at)


def _is_undecided(graph: OnnxGraph, ours: tuple[int, ...], theirs: tuple[int, ...]) -> bool:
    """Whether ONNX Runtime may know more than ONNX: dims left open behind operators of other domains."""
    return (
        bool(graph.custom_operators)
        and len(ours) == len(theirs)
        and all(t in (o, -1) for o, t in zip(ours, theirs, strict=True))
    )


@rule(
    "L212",
    "error",
    title="batching needs a dynamic first dimension",
    explanation=(
        "With `max_batch_size` above 0 the first dimension of every configured tensor must be dynamic in the graph."
    ),
    hint="export with a dynamic batch dimension, or set `max_batch_size: 0` and write full dims",
    scope="repository",
)
def _dynamic_batch(s: LintSubject) -> Iterator[Problem]:
    for graph in s.graphs:
        for tensor, dims, wrong in _misfits(s, graph, "input", "output"):
            if dims is not None and wrong in (Misfit.NO_BATCH, Misfit.FIXED_BATCH):
                first = f"the fixed first dimension {dims[0]}" if dims else "no dimension"
                message = (
                    f"{tensor.role} `{tensor.name}` has {first} in the graph "
                    f"while `max_batch_size` is {s.config.max_batch_size}"
                )
                yield Problem(message, s.line("max_batch_size"))


@rule(
    "L213",
    "error",
    title="one number per row needs `reshape`",
    explanation="A graph tensor `[batch]` has no dims left without its batch dimension, and Triton wants at least one.",
    hint="write `dims: [ 1 ] reshape { shape: [ ] }`",
    scope="repository",
)
def _batched_vector(s: LintSubject) -> Iterator[Problem]:
    for graph in s.graphs:
        for tensor, _, wrong in _misfits(s, graph, "input", "output"):
            if wrong is Misfit.VECTOR:
                name = f"{tensor.role} `{tensor.name}`"
                message = f"{name} is `[batch]` in the graph: it has no dimension besides the batch"
                yield Problem(message, s.tensor_line(tensor, "dims"))


@rule(
    "L214",
    "error",
    title="the graph takes or gives something else than tensors",
    explanation=(
        "The onnxruntime backend refuses sequences, maps and sparse tensors, also those that are not configured."
    ),
    hint="change the graph: a sequence of equal tensors can be concatenated (`zipmap: False` in sklearn exports)",
    scope="repository",
)
def _only_tensors(s: LintSubject) -> Iterator[Problem]:
    for graph in s.graphs:
        for name, tensor in (graph.inputs | graph.declared_outputs).items():
            if tensor.kind != "tensor":
                yield Problem(f"`{name}` is a {tensor.kind}, not a tensor", path=graph.path)


@rule(
    "L215",
    "warning",
    title="an output's dims could not be checked",
    explanation=(
        "The graph leaves the shape open, behind operators whose shapes only ONNX Runtime knows or without any shape."
    ),
    hint="declare the output's shape in the graph, with the numbers written here",
    scope="repository",
)
def _undecided_dims(s: LintSubject) -> Iterator[Problem]:
    for graph in s.graphs:
        for tensor, found in _pairs(s, graph, "output"):
            ours, theirs = tensor.graph_dims, None if found.dims is None else _without_batch(s, found.dims)
            if theirs is None:
                message = f"output `{tensor.name}` has no shape in the graph that could be compared"
            elif theirs != ours and _is_undecided(graph, ours, theirs):
                message = (
                    f"output `{tensor.name}` has dims {list(ours)} here and {list(theirs)} in the graph, "
                    f"behind {quoted(graph.custom_operators)}"
                )
            else:
                continue
            yield Problem(message, s.tensor_line(tensor, "dims"))


@rule(
    "L216",
    "error",
    title="the graph's border is BF16",
    explanation="The onnxruntime backend maps BF16 inputs and outputs from 26.03 only.",
    hint="cast at the graph's borders to FP32, or serve with 26.03 or newer",
    scope="repository",
    until=BF16_SINCE,
)
def _served_types(s: LintSubject) -> Iterator[Problem]:
    for graph in s.graphs:
        for name, tensor in (graph.inputs | graph.declared_outputs).items():
            if tensor.data_type == "TYPE_BF16":
                yield Problem(f"`{name}` is BF16 in the graph", path=graph.path)


@rule(
    "L217",
    "info",
    title="graph outputs are computed for nobody",
    explanation="ONNX Runtime computes what the graph's outputs need, whether they are configured or not.",
    hint="remove the outputs from the graph, or list them",
    scope="repository",
)
def _unused_outputs(s: LintSubject) -> Iterator[Problem]:
    if not s.config.outputs:
        return
    for graph in s.graphs:
        if left := graph.declared_outputs.keys() - {t.name for t in s.config.outputs}:
            yield Problem(f"the graph also has {quoted(sorted(left))}, which no request can ask for", s.line("output"))


@rule(
    "L218",
    "error",
    title="an initializer is listed as a required input",
    explanation=(
        "The onnxruntime backend counts the inputs of the configuration that are not `optional` against those that "
        "the graph requires, and an initializer is none of these. From IR version 4 on one that is also a graph input "
        "is a default that a request may override; before, it is a constant."
    ),
    hint=(
        "do not list it; or write `optional: true` (without batching, and from IR version 4 on); or take the "
        "initializer out of the graph"
    ),
    scope="repository",
)
def _required_initializers(s: LintSubject) -> Iterator[Problem]:
    for graph in s.graphs:
        for tensor in s.config.inputs:
            if tensor.name not in graph.initializers:
                continue
            line = s.tensor_line(tensor, "name")
            if tensor.name not in graph.overridable:
                yield Problem(f"input `{tensor.name}` is a constant of the graph", line)
            elif not tensor.optional:
                yield Problem(f"input `{tensor.name}` is an initializer of the graph, and not `optional` here", line)


@rule(
    "L219",
    "error",
    title="a graph input has no shape",
    explanation=(
        "ONNX Runtime tells of such an input what it tells of a scalar: no dimensions. The backend then accepts no "
        "dims but ones."
    ),
    hint="declare the input's shape in the graph, with names for what varies",
    scope="repository",
)
def _shapes_declared(s: LintSubject) -> Iterator[Problem]:
    for graph in s.graphs:
        for tensor, dims, _ in _misfits(s, graph, "input"):
            if dims is None:
                text = f"input `{tensor.name}` has dims {list(tensor.graph_dims)} here and no shape in the graph"
                yield Problem(text, s.tensor_line(tensor, "dims"))


@rule(
    "L222",
    "error",
    title="an optional input without a default",
    explanation=(
        "The onnxruntime backend does not count optional inputs. One that the graph requires makes the counts differ."
    ),
    hint="remove `optional`, or give the graph an initializer of the input's name",
    scope="repository",
)
def _optional_initializers(s: LintSubject) -> Iterator[Problem]:
    for graph in s.graphs:
        for tensor in s.config.inputs:
            if tensor.optional and not tensor.ragged and tensor.name in graph.inputs:
                line = s.tensor_line(tensor, "optional")
                yield Problem(f"input `{tensor.name}` is optional and has no initializer in the graph", line)
