"""Rules on the data flow inside an ensemble, for which its own configuration is enough."""

from __future__ import annotations

from collections.abc import Iterator

from sie_triton.backends.releases import Release
from sie_triton.lint.ensembles import steps
from sie_triton.lint.rule import LintSubject, Problem, rule


@rule(
    "L301",
    "error",
    title="half an ensemble",
    explanation=(
        'An ensemble has `platform: "ensemble"`, no `backend`, and `ensemble_scheduling` with at least one step.'
    ),
    hint="write all three, or none",
)
def _is_wired(s: LintSubject) -> Iterator[Problem]:
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


@rule(
    "L302",
    "error",
    title="a field that ensembles cannot have",
    explanation="An ensemble runs nothing itself: `instance_group`, `optimization` and `model_warmup` are refused.",
    hint="move the field to the composing models",
)
def _refused_fields(s: LintSubject) -> Iterator[Problem]:
    if s.config.is_ensemble:
        for field in ("instance_group", "optimization", "model_warmup"):
            if any(f.name == field for f, _ in s.config.message.ListFields()):
                yield Problem(f"an ensemble has no `{field}`", s.line(field))


@rule(
    "L308",
    "error",
    title="an ensemble tensor is written twice",
    explanation="Each tensor of an ensemble has one writer: the request or one step.",
    hint="give the second tensor a name of its own",
)
def _written_once(s: LintSubject) -> Iterator[Problem]:
    writers = {t.name: "the request" for t in s.config.inputs}
    for step in steps(s):
        for name, tensor in step.writes.items():
            if tensor in writers:
                line = step.wire_line(s, "output_map", name)
                message = f"step {step.index} writes `{tensor}`, which {writers[tensor]} already writes"
                yield Problem(message, line)
            writers.setdefault(tensor, f"step {step.index}")


@rule(
    "L309",
    "error",
    title="a step reads what is never written",
    explanation="A step runs when its inputs are there. A tensor that nobody writes, or a cycle, means never.",
    hint="map the input to a tensor that an earlier step or the request writes",
)
def _reads_written(s: LintSubject) -> Iterator[Problem]:
    ready = _ready(s)
    written = {tensor for step in steps(s) for tensor in step.writes.values()}
    for step in steps(s):
        for name, tensor in step.reads.items():
            if tensor not in ready:
                why = "is part of a cycle or waits for one" if tensor in written else "is written by nobody"
                line = step.wire_line(s, "input_map", name)
                yield Problem(f"step {step.index} reads `{tensor}`, which {why}", line)


def _ready(s: LintSubject) -> set[str]:
    """Tensors that get written when the request has come, as the ensemble scheduler walks."""
    ready = {t.name for t in s.config.inputs}
    pending = steps(s)
    while runnable := [step for step in pending if ready.issuperset(step.reads.values())]:
        ready.update(tensor for step in runnable for tensor in step.writes.values())
        pending = [step for step in pending if step not in runnable]
    return ready


@rule(
    "L310",
    "error",
    title="an ensemble input is unused",
    explanation="Triton refuses ensemble inputs that no step reads.",
    hint="remove the input, or map it",
)
def _inputs_used(s: LintSubject) -> Iterator[Problem]:
    read = {tensor for step in steps(s) for tensor in step.reads.values()}
    for tensor in s.config.inputs if steps(s) else ():
        if tensor.name not in read:
            yield Problem(f"no step reads the ensemble's input `{tensor.name}`", s.tensor_line(tensor, "name"))


@rule(
    "L311",
    "error",
    title="an ensemble output is never written",
    explanation="Triton refuses ensemble outputs that no step writes.",
    hint="map a step's output to it, or remove it",
)
def _outputs_written(s: LintSubject) -> Iterator[Problem]:
    written = {tensor for step in steps(s) for tensor in step.writes.values()}
    for tensor in s.config.outputs if steps(s) else ():
        if tensor.name not in written:
            yield Problem(f"no step writes the ensemble's output `{tensor.name}`", s.tensor_line(tensor, "name"))


@rule(
    "L312",
    "error",
    title="an ensemble tensor is unused",
    explanation="Triton refuses tensors that a step writes and nobody reads.",
    hint="remove the entry of `output_map`, or make the tensor an output",
)
def _writes_used(s: LintSubject) -> Iterator[Problem]:
    used = {t.name for t in s.config.outputs} | {tensor for step in steps(s) for tensor in step.reads.values()}
    for step in steps(s):
        for name, tensor in step.writes.items():
            if tensor not in used:
                line = step.wire_line(s, "output_map", name)
                yield Problem(f"step {step.index} writes `{tensor}`, which nobody reads", line)


@rule(
    "L319",
    "error",
    title="a step gives nothing",
    explanation="A step without `output_map` has no effect that a request could see.",
    hint="map an output, or remove the step",
)
def _step_writes(s: LintSubject) -> Iterator[Problem]:
    for step in steps(s):
        if not step.writes:
            yield Problem(f"step {step.index} (`{step.model}`) maps no output", step.line(s))


@rule(
    "L320",
    "warning",
    title="the response cache of ensembles leaks",
    explanation="Before 25.09 a cached ensemble loses memory with each hit.",
    hint="serve with 25.09 or newer, or cache in the composing models only",
    until=Release(25, 9),
)
def _cache_leak(s: LintSubject) -> Iterator[Problem]:
    if s.config.is_ensemble and s.config.message.response_cache.enable:
        yield Problem("`response_cache` is on in an ensemble", s.line("response_cache"))
