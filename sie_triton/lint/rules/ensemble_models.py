"""Rules on an ensemble and its composing models: that they are there, and that the wires to them fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sie_triton.backends.received import ConfigTensor, Role
from sie_triton.lint.config import ConfigFile
from sie_triton.lint.ensembles import composing, reachable, steps
from sie_triton.lint.rule import LintSubject, Problem, rule
from sie_triton.lint.wording import quoted


@rule(
    "L303",
    "error",
    title="a composing model is missing",
    explanation="Triton loads an ensemble only after all its models.",
    hint="add the model to the repository, or correct the name",
    scope="repository",
)
def _models_exist(s: LintSubject) -> Iterator[Problem]:
    for step in steps(s):
        if step.model not in s.repository.models:
            line = step.line(s, "model_name")
            yield Problem(f"step {step.index} names the model `{step.model}`, which is not in this repository", line)


@rule(
    "L304",
    "error",
    title="a composing model's version is missing",
    explanation="A step asks for a fixed version, which must be present and served.",
    hint="write `model_version: -1` for the newest, or add the version",
    scope="repository",
)
def _versions_exist(s: LintSubject) -> Iterator[Problem]:
    for step in steps(s):
        model = s.repository.models.get(step.model)
        if model is not None and step.version > 0 and step.version not in model.versions:
            line = step.line(s, "model_version")
            yield Problem(f"step {step.index} asks for version {step.version} of `{step.model}`, which is absent", line)


@rule(
    "L305",
    "error",
    title="an input of a composing model is not mapped",
    explanation="Every required input of a step's model needs an entry in `input_map`.",
    hint="map the input to an ensemble tensor",
    scope="repository",
)
def _inputs_mapped(s: LintSubject) -> Iterator[Problem]:
    for step in steps(s):
        config = composing(s, step)
        for tensor in config.inputs if config else ():
            if tensor.name not in step.reads and not tensor.optional:
                line = step.line(s)
                yield Problem(f"step {step.index}: input `{tensor.name}` of `{step.model}` is not mapped", line)


@rule(
    "L306",
    "error",
    title="a mapped input does not exist",
    explanation="The keys of `input_map` are the composing model's input names, the values the ensemble's tensors.",
    hint="write an input of that model; key and value may be swapped",
    scope="repository",
)
def _inputs_known(s: LintSubject) -> Iterator[Problem]:
    return _unknown(s, "input")


@rule(
    "L307",
    "error",
    title="a mapped output does not exist",
    explanation="The keys of `output_map` are the composing model's output names, the values the ensemble's tensors.",
    hint="write an output of that model; key and value may be swapped",
    scope="repository",
)
def _outputs_known(s: LintSubject) -> Iterator[Problem]:
    return _unknown(s, "output")


def _unknown(s: LintSubject, role: Role) -> Iterator[Problem]:
    for step in steps(s):
        config = composing(s, step)
        tensors = (config.inputs if role == "input" else config.outputs) if config else ()
        known = {t.name for t in tensors}
        if not known:
            continue  # left to auto-complete
        for name in step.reads if role == "input" else step.writes:
            if name not in known:
                line = step.wire_line(s, f"{role}_map", name)
                yield Problem(f"step {step.index}: `{step.model}` has no {role} `{name}`", line)


@dataclass(frozen=True, slots=True)
class WireEnd:
    """What `owner`, the ensemble or one of its models, says of an ensemble's tensor. `full_dims` include the batch."""

    owner: str
    data_type: str
    dims: tuple[int, ...]
    full_dims: tuple[int, ...]
    line: int | None


def _end(owner: str, config: ConfigFile, tensor: ConfigTensor, dims: tuple[int, ...], line: int | None) -> WireEnd:
    return WireEnd(owner, tensor.data_type, dims, (-1, *dims) if config.max_batch_size > 0 else dims, line)


def _ends(s: LintSubject) -> dict[str, list[WireEnd]]:
    """For every ensemble tensor: the ensemble's own declaration first, then the composing models'."""
    ends: dict[str, list[WireEnd]] = {}
    for tensor in s.config.inputs + s.config.outputs:
        line = s.tensor_line(tensor, "name")
        ends.setdefault(tensor.name, []).append(_end("the ensemble", s.config, tensor, tensor.graph_dims, line))
    for step in steps(s):
        config = composing(s, step)
        if config is None:
            continue
        for field, tensors, wires in (
            ("input_map", config.inputs, step.reads),
            ("output_map", config.outputs, step.writes),
        ):
            for tensor in tensors:
                if tensor.name in wires:
                    line = step.wire_line(s, field, tensor.name)
                    # A composing model's tensor counts as its clients see it: without `reshape`.
                    end = _end(f"`{step.model}`", config, tensor, tensor.dims, line)
                    ends.setdefault(wires[tensor.name], []).append(end)
    return ends


def _may_equal(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return len(a) == len(b) and all(x == y or -1 in (x, y) for x, y in zip(a, b, strict=True))


@rule(
    "L313",
    "error",
    title="types differ along a wire",
    explanation="Nothing converts between steps: all ends of an ensemble tensor have one type.",
    hint="write one type at all ends, and cast inside a graph where needed",
    scope="repository",
)
def _wire_types(s: LintSubject) -> Iterator[Problem]:
    for name, (first, *others) in _ends(s).items():
        for end in others:
            if end.data_type != first.data_type:
                message = f"`{name}` is {first.data_type} for {first.owner} and {end.data_type} for {end.owner}"
                yield Problem(message, end.line)


@rule(
    "L314",
    "error",
    title="dims differ along a wire",
    explanation=(
        "All ends of an ensemble tensor must agree; -1 agrees with every size. A model without batching counts its "
        "batch dimension among the dims."
    ),
    hint="write the same dims at all ends",
    scope="repository",
)
def _dims_contradict(s: LintSubject) -> Iterator[Problem]:
    return _wire_dims(s, open_only=False)


@rule(
    "L316",
    "info",
    title="dims along a wire are checked at run time only",
    explanation="One end has a number where the other has -1: the models load, and a request of another size fails.",
    hint="write the number at both ends where the size is fixed",
    scope="repository",
)
def _dims_left_open(s: LintSubject) -> Iterator[Problem]:
    return _wire_dims(s, open_only=True)


def _wire_dims(s: LintSubject, *, open_only: bool) -> Iterator[Problem]:
    for name, (first, *others) in _ends(s).items():
        for end in others:
            consistent = _may_equal(first.dims, end.dims) or _may_equal(first.full_dims, end.full_dims)
            if consistent == open_only and first.dims != end.dims and first.full_dims != end.full_dims:
                message = f"`{name}` has dims {list(first.dims)} for {first.owner} and {list(end.dims)} for {end.owner}"
                yield Problem(message, end.line)


@rule(
    "L315",
    "error",
    title="the ensemble takes more rows than a composing model",
    explanation="`max_batch_size` of an ensemble may not exceed that of any batching model inside.",
    hint="lower the ensemble's `max_batch_size`, or raise the model's",
    scope="repository",
)
def _batch_size_fits(s: LintSubject) -> Iterator[Problem]:
    for step in steps(s):
        config = composing(s, step)
        if config and 0 < config.max_batch_size < s.config.max_batch_size:
            message = (
                f"the ensemble takes {s.config.max_batch_size} rows, "
                f"`{step.model}` of step {step.index} {config.max_batch_size}"
            )
            yield Problem(message, s.line("max_batch_size"))


@rule(
    "L317",
    "error",
    title="ensembles contain each other",
    explanation="Triton refuses circular dependencies between ensembles.",
    hint="break the circle",
    scope="repository",
)
def _no_circle(s: LintSubject) -> Iterator[Problem]:
    for step in steps(s):
        if s.model.name in reachable(s, step.model):
            line = step.line(s, "model_name")
            yield Problem(f"step {step.index}: `{step.model}` contains `{s.model.name}` again", line)


@rule(
    "L318",
    "info",
    title="a step drops outputs",
    explanation=(
        "A backend such as ONNX Runtime computes all outputs of the graph; a step is skipped only as a whole, when "
        "none of its outputs is needed."
    ),
    hint="put heads that are not always wanted into models and steps of their own",
    scope="repository",
)
def _outputs_dropped(s: LintSubject) -> Iterator[Problem]:
    for step in steps(s):
        config = composing(s, step)
        left = [t.name for t in (config.outputs if config else ()) if t.name not in step.writes]
        if left and step.writes:
            yield Problem(f"step {step.index} drops {quoted(left)} of `{step.model}`", step.line(s))
