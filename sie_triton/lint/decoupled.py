"""Rules on ensembles with decoupled models, which answer a request any number of times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sie_triton.lint.ensemble import Step, matching_config, reachable, step_line, steps
from sie_triton.lint.rule import Problem, Rule, Subject

Origin = int | None
"""Which decoupled step the answers stem from that reach a tensor; None for the request itself."""


def one_origin(s: Subject) -> Iterator[Problem]:
    """No step joins answers of different decoupled steps."""
    origins: dict[str, Origin] = {t.name: None for t in s.config.inputs}
    pending = steps(s)
    while runnable := [step for step in pending if origins.keys() >= set(step.reads.values())]:
        for step in runnable:
            theirs = {tensor: origins[tensor] for tensor in step.reads.values()}
            if len(set(theirs.values())) > 1:
                yield Problem(_told(step, theirs), step_line(s, step))
            origin = step.index if _is_decoupled(s, step) else next(iter(theirs.values()), None)
            for tensor in step.writes.values():
                origins.setdefault(tensor, origin)
        pending = [step for step in pending if step not in runnable]


def _is_decoupled(s: Subject, step: Step) -> bool:
    """Whether the step's model is decoupled; an ensemble is if a model inside it is."""
    models = (s.repository.models.get(name) for name in reachable(s, step.model))
    configs = (matching_config(model, s.served_as or s.config.path.name) for model in models if model)
    return any(config.message.model_transaction_policy.decoupled for config in configs if config)


def _told(step: Step, origins: dict[str, Origin]) -> str:
    sources = ", ".join(
        f"`{tensor}` from {'the request' if origin is None else f'step {origin}'}" for tensor, origin in origins.items()
    )
    return f"step {step.index} (`{step.model}`) joins what comes of different decoupled models: {sources}"


def rules() -> Iterable[Rule]:
    """The rules of this file."""
    return (
        Rule(
            "L322",
            "error",
            "a step joins different decoupled models",
            "A decoupled model answers a request any number of times, so nothing says which of its answers goes with "
            "which of another's, or with the request's own tensor. Triton refuses a step whose inputs do not all come "
            "of one decoupled step, or all of none.",
            "hand everything that the step needs through the decoupled model, or make the models not decoupled",
            one_origin,
            scope="repository",
        ),
    )
