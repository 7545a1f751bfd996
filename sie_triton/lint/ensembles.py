"""The steps of an ensemble, and the models that they lead to."""

from __future__ import annotations

from dataclasses import dataclass

from sie_triton.lint.config import ConfigFile
from sie_triton.lint.repository import CONFIG_NAME
from sie_triton.lint.rule import LintSubject


@dataclass(frozen=True, slots=True)
class StepEntry:
    """A step as it is written. `reads` and `writes` go from the model's tensor name to the ensemble's."""

    index: int
    model: str
    version: int
    reads: dict[str, str]
    writes: dict[str, str]

    def line(self, s: LintSubject, *field: str) -> int | None:
        """Line of a field of the step, else of the step."""
        return s.line("ensemble_scheduling", "step", self.index, *field)

    def wire_line(self, s: LintSubject, field: str, name: str) -> int | None:
        """Line of the entry of `field`, one of the two maps, for the model's tensor `name`; else of the step."""
        return s.config.lines.entry(("ensemble_scheduling", "step", self.index, field), name) or self.line(s)


def steps(s: LintSubject) -> list[StepEntry]:
    """The ensemble's steps; other models have none."""
    return [
        StepEntry(i, str(m.model_name), int(m.model_version), _map(m.input_map), _map(m.output_map))
        for i, m in enumerate(s.config.message.ensemble_scheduling.step)
    ]


def _map(entries: dict[str, str]) -> dict[str, str]:
    return {str(key): str(value) for key, value in sorted(entries.items())}


def composing(s: LintSubject, step: StepEntry) -> ConfigFile | None:
    """The configuration that serves the step's model; None where the model is absent or its configuration is broken."""
    model = s.repository.models.get(step.model)
    return None if model is None else model.config_named(s.file_name)


def reachable(s: LintSubject, start: str) -> set[str]:
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


def foreign_variants(s: LintSubject) -> list[str]:
    """File names of variants that composing models have and the ensemble, served by its `config.pbtxt`, has not."""
    if s.config.path.name != CONFIG_NAME:
        return []
    models = (s.repository.models.get(step.model) for step in steps(s))
    theirs = {config.path.name for model in models if model for config in model.configs}
    return sorted(theirs - {config.path.name for config in s.model.configs})
