"""Rules on ensembles with decoupled models, which answer a request any number of times."""

from __future__ import annotations

from collections.abc import Iterator

from sie_triton.lint.ensembles import StepEntry, reachable, steps
from sie_triton.lint.rule import LintSubject, Problem, rule

_StepIndex = int | None
"""The decoupled step whose answers reach a tensor; None for the request itself."""


@rule(
    "L322",
    "error",
    title="a step joins different decoupled models",
    explanation=(
        "A decoupled model answers a request any number of times, so nothing says which of its answers goes with "
        "which of another's, or with the request's own tensor. Triton refuses a step whose inputs do not all come of "
        "one decoupled step, or all of none."
    ),
    hint="hand everything that the step needs through the decoupled model, or make the models not decoupled",
    scope="repository",
)
def _one_origin(s: LintSubject) -> Iterator[Problem]:
    origins: dict[str, _StepIndex] = {t.name: None for t in s.config.inputs}
    pending = steps(s)
    while runnable := [step for step in pending if origins.keys() >= set(step.reads.values())]:
        for step in runnable:
            theirs = {tensor: origins[tensor] for tensor in step.reads.values()}
            if len(set(theirs.values())) > 1:
                yield Problem(_told(step, theirs), step.line(s))
            origin = step.index if _is_decoupled(s, step) else next(iter(theirs.values()), None)
            for tensor in step.writes.values():
                origins.setdefault(tensor, origin)
        pending = [step for step in pending if step not in runnable]


def _is_decoupled(s: LintSubject, step: StepEntry) -> bool:
    """Whether the step's model is decoupled; an ensemble is if a model inside it is."""
    models = (s.repository.models.get(name) for name in reachable(s, step.model))
    configs = (model.config_named(s.file_name) for model in models if model)
    return any(config.message.model_transaction_policy.decoupled for config in configs if config)


def _told(step: StepEntry, origins: dict[str, _StepIndex]) -> str:
    sources = ", ".join(
        f"`{tensor}` from {'the request' if origin is None else f'step {origin}'}" for tensor, origin in origins.items()
    )
    return f"step {step.index} (`{step.model}`) joins what comes of different decoupled models: {sources}"
