"""Rules on ensembles: the data flow inside one, and its wires to the composing models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from sie_triton.lint.config import Config, Tensor
from sie_triton.lint.release import Release
from sie_triton.lint.repository import CONFIG_NAME, Model
from sie_triton.lint.rule import Problem, Rule, Subject


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what it reads and writes. Both maps go from the model's tensor name to the ensemble's."""

    index: int
    model: str
    version: int
    reads: dict[str, str]
    writes: dict[str, str]


def steps(s: Subject) -> list[Step]:
    """The ensemble's steps; none for other models."""
    return [
        Step(i, str(m.model_name), int(m.model_version), _map(m.input_map), _map(m.output_map))
        for i, m in enumerate(s.config.message.ensemble_scheduling.step)
    ]


def _map(entries: dict[str, str]) -> dict[str, str]:
    return {str(key): str(value) for key, value in sorted(entries.items())}


def step_line(s: Subject, step: Step, *field: str) -> int | None:
    """Line of a step, or of one of its fields."""
    return s.line("ensemble_scheduling", "step", step.index, *field)


def _wire_line(s: Subject, step: Step, field: str, name: str) -> int | None:
    line = s.config.lines.entry(("ensemble_scheduling", "step", step.index, field), name)
    return line or step_line(s, step)


def _composing(s: Subject, step: Step) -> Config | None:
    """The composing model's configuration of the same variant, else its `config.pbtxt`."""
    model = s.repository.models.get(step.model)
    return None if model is None else matching_config(model, s.served_as or s.config.path.name)


def matching_config(model: Model, file_name: str) -> Config | None:
    """What `--model-config-name` picks: the file of that name, else `config.pbtxt`."""
    by_name = {config.path.name: config for config in model.configs}
    return by_name.get(file_name) or by_name.get(CONFIG_NAME)


def foreign_variants(s: Subject) -> list[str]:
    """File names of variants that composing models have and the ensemble, served by its `config.pbtxt`, has not."""
    if s.config.path.name != CONFIG_NAME:
        return []
    models = (s.repository.models.get(step.model) for step in steps(s))
    theirs = {config.path.name for model in models if model for config in model.configs}
    return sorted(theirs - {config.path.name for config in s.model.configs})


def is_wired(s: Subject) -> Iterator[Problem]:
    """Platform, backend and scheduling agree that this is an ensemble."""
    message = s.config.message
    scheduled = message.HasField("ensemble_scheduling")
    if scheduled and message.platform != "ensemble":
        yield Problem('`ensemble_scheduling` without `platform: "ensemble"`', s.line("ensemble_scheduling"))
    if message.platform == "ensemble" and not scheduled:
        yield Problem('`platform: "ensemble"` without `ensemble_scheduling`', s.line("platform"))
    if s.config.is_ensemble and message.backend:
        yield Problem(f"an ensemble has no backend, but `backend` is `{message.backend}`", s.line("backend"))
    if scheduled and not message.ensemble_scheduling.step:
        yield Problem("the ensemble has no `step`", s.line("ensemble_scheduling"))


def refused_fields(s: Subject) -> Iterator[Problem]:
    """Fields that belong to the composing models."""
    if s.config.is_ensemble:
        for field in ("instance_group", "optimization", "model_warmup"):
            if any(f.name == field for f, _ in s.config.message.ListFields()):
                yield Problem(f"an ensemble has no `{field}`", s.line(field))


def models_exist(s: Subject) -> Iterator[Problem]:
    """Composing models are in the repository."""
    for step in steps(s):
        if step.model not in s.repository.models:
            line = step_line(s, step, "model_name")
            yield Problem(f"step {step.index} names the model `{step.model}`, which is not in this repository", line)


def versions_exist(s: Subject) -> Iterator[Problem]:
    """The versions that steps ask for are there."""
    for step in steps(s):
        model = s.repository.models.get(step.model)
        if model is not None and step.version > 0 and step.version not in model.versions:
            line = step_line(s, step, "model_version")
            yield Problem(f"step {step.index} asks for version {step.version} of `{step.model}`, which is absent", line)


def inputs_mapped(s: Subject) -> Iterator[Problem]:
    """Every required input of a composing model is fed."""
    for step in steps(s):
        config = _composing(s, step)
        for tensor in config.inputs if config else ():
            if tensor.name not in step.reads and not tensor.optional:
                line = step_line(s, step)
                yield Problem(f"step {step.index}: input `{tensor.name}` of `{step.model}` is not mapped", line)


def _unknown(s: Subject, kind: str) -> Iterator[Problem]:
    for step in steps(s):
        config = _composing(s, step)
        tensors = getattr(config, f"{kind}s") if config else ()
        known = {t.name for t in tensors}
        if not known:
            continue  # left to auto-complete
        for name in step.reads if kind == "input" else step.writes:
            if name not in known:
                line = _wire_line(s, step, f"{kind}_map", name)
                yield Problem(f"step {step.index}: `{step.model}` has no {kind} `{name}`", line)


def inputs_known(s: Subject) -> Iterator[Problem]:
    """Mapped inputs exist."""
    return _unknown(s, "input")


def outputs_known(s: Subject) -> Iterator[Problem]:
    """Mapped outputs exist."""
    return _unknown(s, "output")


def written_once(s: Subject) -> Iterator[Problem]:
    """Every ensemble tensor has one writer."""
    writers = {t.name: "the request" for t in s.config.inputs}
    for step in steps(s):
        for name, tensor in step.writes.items():
            if tensor in writers:
                line = _wire_line(s, step, "output_map", name)
                message = f"step {step.index} writes `{tensor}`, which {writers[tensor]} already writes"
                yield Problem(message, line)
            writers.setdefault(tensor, f"step {step.index}")


def _ready(s: Subject) -> set[str]:
    """Tensors that get written when the request has come, as the ensemble scheduler walks."""
    ready = {t.name for t in s.config.inputs}
    pending = steps(s)
    while runnable := [step for step in pending if ready.issuperset(step.reads.values())]:
        ready.update(tensor for step in runnable for tensor in step.writes.values())
        pending = [step for step in pending if step not in runnable]
    return ready


def reads_written(s: Subject) -> Iterator[Problem]:
    """What a step reads is written before."""
    ready = _ready(s)
    written = {tensor for step in steps(s) for tensor in step.writes.values()}
    for step in steps(s):
        for name, tensor in step.reads.items():
            if tensor not in ready:
                why = "is part of a cycle or waits for one" if tensor in written else "is written by nobody"
                line = _wire_line(s, step, "input_map", name)
                yield Problem(f"step {step.index} reads `{tensor}`, which {why}", line)


def inputs_used(s: Subject) -> Iterator[Problem]:
    """Ensemble inputs are read."""
    read = {tensor for step in steps(s) for tensor in step.reads.values()}
    for tensor in s.config.inputs if steps(s) else ():
        if tensor.name not in read:
            yield Problem(f"no step reads the ensemble's input `{tensor.name}`", s.tensor_line(tensor, "name"))


def outputs_written(s: Subject) -> Iterator[Problem]:
    """Ensemble outputs are written."""
    written = {tensor for step in steps(s) for tensor in step.writes.values()}
    for tensor in s.config.outputs if steps(s) else ():
        if tensor.name not in written:
            yield Problem(f"no step writes the ensemble's output `{tensor.name}`", s.tensor_line(tensor, "name"))


def writes_used(s: Subject) -> Iterator[Problem]:
    """What a step writes is read, or is an output."""
    used = {t.name for t in s.config.outputs} | {tensor for step in steps(s) for tensor in step.reads.values()}
    for step in steps(s):
        for name, tensor in step.writes.items():
            if tensor not in used:
                line = _wire_line(s, step, "output_map", name)
                yield Problem(f"step {step.index} writes `{tensor}`, which nobody reads", line)


@dataclass(frozen=True, slots=True)
class End:
    """One end of a wire: who says which type and dims the ensemble's tensor has. `full_dims` include the batch."""

    owner: str
    data_type: str
    dims: tuple[int, ...]
    full_dims: tuple[int, ...]
    line: int | None


def _end(owner: str, config: Config, tensor: Tensor, dims: tuple[int, ...], line: int | None) -> End:
    return End(owner, tensor.data_type, dims, (-1, *dims) if config.max_batch_size > 0 else dims, line)


def _ends(s: Subject) -> dict[str, list[End]]:
    """For every ensemble tensor: the ensemble's own declaration first, then the composing models'."""
    ends: dict[str, list[End]] = {}
    for tensor in s.config.inputs + s.config.outputs:
        line = s.tensor_line(tensor, "name")
        ends.setdefault(tensor.name, []).append(_end("the ensemble", s.config, tensor, tensor.graph_dims, line))
    for step in steps(s):
        config = _composing(s, step)
        if config is None:
            continue
        for field, tensors, wires in (
            ("input_map", config.inputs, step.reads),
            ("output_map", config.outputs, step.writes),
        ):
            for tensor in tensors:
                if tensor.name in wires:
                    line = _wire_line(s, step, field, tensor.name)
                    # A composing model's tensor counts as its clients see it: without `reshape`.
                    end = _end(f"`{step.model}`", config, tensor, tensor.dims, line)
                    ends.setdefault(wires[tensor.name], []).append(end)
    return ends


def _may_equal(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return len(a) == len(b) and all(x == y or -1 in (x, y) for x, y in zip(a, b, strict=True))


def wire_types(s: Subject) -> Iterator[Problem]:
    """All ends of a wire have one type."""
    for name, (first, *others) in _ends(s).items():
        for end in others:
            if end.data_type != first.data_type:
                message = f"`{name}` is {first.data_type} for {first.owner} and {end.data_type} for {end.owner}"
                yield Problem(message, end.line)


def _wire_dims(s: Subject, *, open_only: bool) -> Iterator[Problem]:
    for name, (first, *others) in _ends(s).items():
        for end in others:
            consistent = _may_equal(first.dims, end.dims) or _may_equal(first.full_dims, end.full_dims)
            if consistent == open_only and first.dims != end.dims and first.full_dims != end.full_dims:
                message = f"`{name}` has dims {list(first.dims)} for {first.owner} and {list(end.dims)} for {end.owner}"
                yield Problem(message, end.line)


def batch_size_fits(s: Subject) -> Iterator[Problem]:
    """No composing model takes fewer rows than the ensemble."""
    for step in steps(s):
        config = _composing(s, step)
        if config and 0 < config.max_batch_size < s.config.max_batch_size:
            message = (
                f"the ensemble takes {s.config.max_batch_size} rows, "
                f"`{step.model}` of step {step.index} {config.max_batch_size}"
            )
            yield Problem(message, s.line("max_batch_size"))


def no_circle(s: Subject) -> Iterator[Problem]:
    """Ensembles do not contain each other."""
    for step in steps(s):
        if s.model.name in reachable(s, step.model):
            line = step_line(s, step, "model_name")
            yield Problem(f"step {step.index}: `{step.model}` contains `{s.model.name}` again", line)


def reachable(s: Subject, start: str) -> set[str]:
    """`start` and every model that it contains, however deep."""
    seen: set[str] = set()
    pending = [start]
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        model = s.repository.models.get(name)
        for config in model.configs if model else ():
            pending += [str(step.model_name) for step in config.message.ensemble_scheduling.step]
    return seen


def outputs_dropped(s: Subject) -> Iterator[Problem]:
    """Outputs of composing models that no wire takes."""
    for step in steps(s):
        config = _composing(s, step)
        left = [t.name for t in (config.outputs if config else ()) if t.name not in step.writes]
        if left and step.writes:
            names = ", ".join(f"`{name}`" for name in left)
            yield Problem(f"step {step.index} drops {names} of `{step.model}`", step_line(s, step))


def step_writes(s: Subject) -> Iterator[Problem]:
    """A step gives something."""
    for step in steps(s):
        if not step.writes:
            yield Problem(f"step {step.index} (`{step.model}`) maps no output", step_line(s, step))


def cache_leak(s: Subject) -> Iterator[Problem]:
    """The response cache of ensembles before its leak was mended."""
    if s.config.is_ensemble and s.config.message.response_cache.enable:
        yield Problem("`response_cache` is on in an ensemble", s.line("response_cache"))


def rules() -> Iterable[Rule]:
    """The rules of this file."""
    return (
        Rule(
            "L301",
            "error",
            "half an ensemble",
            'An ensemble has `platform: "ensemble"`, no `backend`, and `ensemble_scheduling` with at least one step.',
            "write all three, or none",
            is_wired,
        ),
        Rule(
            "L302",
            "error",
            "a field that ensembles cannot have",
            "An ensemble runs nothing itself: `instance_group`, `optimization` and `model_warmup` are refused.",
            "move the field to the composing models",
            refused_fields,
        ),
        Rule(
            "L303",
            "error",
            "a composing model is missing",
            "Triton loads an ensemble only after all its models.",
            "add the model to the repository, or correct the name",
            models_exist,
            scope="repository",
        ),
        Rule(
            "L304",
            "error",
            "a composing model's version is missing",
            "A step asks for a fixed version, which must be present and served.",
            "write `model_version: -1` for the newest, or add the version",
            versions_exist,
            scope="repository",
        ),
        Rule(
            "L305",
            "error",
            "an input of a composing model is not mapped",
            "Every required input of a step's model needs an entry in `input_map`.",
            "map the input to an ensemble tensor",
            inputs_mapped,
            scope="repository",
        ),
        Rule(
            "L306",
            "error",
            "a mapped input does not exist",
            "The keys of `input_map` are the composing model's input names, the values the ensemble's tensors.",
            "write an input of that model; key and value may be swapped",
            inputs_known,
            scope="repository",
        ),
        Rule(
            "L307",
            "error",
            "a mapped output does not exist",
            "The keys of `output_map` are the composing model's output names, the values the ensemble's tensors.",
            "write an output of that model; key and value may be swapped",
            outputs_known,
            scope="repository",
        ),
        Rule(
            "L308",
            "error",
            "an ensemble tensor is written twice",
            "Each tensor of an ensemble has one writer: the request or one step.",
            "give the second tensor a name of its own",
            written_once,
        ),
        Rule(
            "L309",
            "error",
            "a step reads what is never written",
            "A step runs when its inputs are there. A tensor that nobody writes, or a cycle, means never.",
            "map the input to a tensor that an earlier step or the request writes",
            reads_written,
        ),
        Rule(
            "L310",
            "error",
            "an ensemble input is unused",
            "Triton refuses ensemble inputs that no step reads.",
            "remove the input, or map it",
            inputs_used,
        ),
        Rule(
            "L311",
            "error",
            "an ensemble output is never written",
            "Triton refuses ensemble outputs that no step writes.",
            "map a step's output to it, or remove it",
            outputs_written,
        ),
        Rule(
            "L312",
            "error",
            "an ensemble tensor is unused",
            "Triton refuses tensors that a step writes and nobody reads.",
            "remove the entry of `output_map`, or make the tensor an output",
            writes_used,
        ),
        Rule(
            "L313",
            "error",
            "types differ along a wire",
            "Nothing converts between steps: all ends of an ensemble tensor have one type.",
            "write one type at all ends, and cast inside a graph where needed",
            wire_types,
            scope="repository",
        ),
        Rule(
            "L314",
            "error",
            "dims differ along a wire",
            "All ends of an ensemble tensor must agree; -1 agrees with every size. A model without batching counts its "
            "batch dimension among the dims.",
            "write the same dims at all ends",
            partial(_wire_dims, open_only=False),
            scope="repository",
        ),
        Rule(
            "L315",
            "error",
            "the ensemble takes more rows than a composing model",
            "`max_batch_size` of an ensemble may not exceed that of any batching model inside.",
            "lower the ensemble's `max_batch_size`, or raise the model's",
            batch_size_fits,
            scope="repository",
        ),
        Rule(
            "L316",
            "info",
            "dims along a wire are checked at run time only",
            "One end has a number where the other has -1: the models load, and a request of another size fails.",
            "write the number at both ends where the size is fixed",
            partial(_wire_dims, open_only=True),
            scope="repository",
        ),
        Rule(
            "L317",
            "error",
            "ensembles contain each other",
            "Triton refuses circular dependencies between ensembles.",
            "break the circle",
            no_circle,
            scope="repository",
        ),
        Rule(
            "L318",
            "info",
            "a step drops outputs",
            "A backend such as ONNX Runtime computes all outputs of the graph; a step is skipped only as a whole, when "
            "none of its outputs is needed.",
            "put heads that are not always wanted into models and steps of their own",
            outputs_dropped,
            scope="repository",
        ),
        Rule(
            "L319",
            "error",
            "a step gives nothing",
            "A step without `output_map` has no effect that a request could see.",
            "map an output, or remove the step",
            step_writes,
        ),
        Rule(
            "L320",
            "warning",
            "the response cache of ensembles leaks",
            "Before 25.09 a cached ensemble loses memory with each hit.",
            "serve with 25.09 or newer, or cache in the composing models only",
            cache_leak,
            until=Release(25, 9),
        ),
    )
