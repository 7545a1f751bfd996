"""A rule, and what its check is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from sie_triton.backends.received import ConfigTensor
from sie_triton.backends.releases import Release
from sie_triton.lint.config import ConfigFile
from sie_triton.lint.onnx_graph import OnnxGraph
from sie_triton.lint.repository import ModelFolder, RepositoryFolder
from sie_triton.lint.violation import Machine, Severity

Scope = Literal["config", "repository"]
"""`config`: the text of one configuration is enough. `repository`: the rule looks at files or at other models."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What a check found. `path` defaults to the configuration, `hint` to the rule's."""

    message: str
    line: int | None = None
    path: Path | None = None
    hint: str | None = None


@dataclass(frozen=True)
class LintSubject:
    """One configuration of one model, with everything that a check may look at.

    `served_as` is the file name that `--model-config-name` asks every model for; None means that of `config`.
    """

    repository: RepositoryFolder
    model: ModelFolder
    config: ConfigFile
    release: Release
    machine: Machine | None
    served_as: str | None = None

    @cached_property
    def backend(self) -> str:
        """The backend that will run the model; "" for ensembles and where nothing tells."""
        return self.model.backend(self.config)

    @property
    def is_onnx(self) -> bool:
        """Whether the onnxruntime backend runs the model."""
        return self.backend == "onnxruntime"

    @property
    def graphs(self) -> list[OnnxGraph]:
        """The ONNX graphs of the served versions that could be opened."""
        return self.model.open_graphs(self.config)

    @property
    def file_name(self) -> str:
        """The file name by which the server picks the configuration of every model."""
        return self.served_as or self.config.path.name

    def beside(self, model: ModelFolder, config: ConfigFile) -> LintSubject:
        """Another configuration of the same repository, for the same release and machine."""
        return LintSubject(self.repository, model, config, self.release, self.machine)

    def line(self, *path: str | int) -> int | None:
        """Line of a field of the configuration, else of the nearest field around it."""
        return self.config.lines.line(*path)

    def tensor_line(self, tensor: ConfigTensor, *path: str | int) -> int | None:
        """Line of a field of an input or output."""
        return self.config.lines.line(tensor.role, tensor.index, *path)

    def on_cpu(self, kind: str) -> bool | None:
        """Whether an instance group of this kind runs on the CPU; None where that depends on an unknown machine."""
        if kind == "KIND_AUTO":
            return None if self.machine is None else self.machine.gpus == 0
        return kind == "KIND_CPU"


Check = Callable[[LintSubject], Iterable[Problem]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that is checked. It holds for releases from `since` up to, but without, `until`."""

    id: str
    severity: Severity
    title: str
    explanation: str
    hint: str
    check: Check
    scope: Scope
    since: Release | None
    until: Release | None

    def holds_for(self, release: Release) -> bool:
        """Whether the rule applies to `release`."""
        return (self.since is None or self.since <= release) and (self.until is None or release < self.until)

    @property
    def versions(self) -> str:
        """The releases for which the rule holds, in words."""
        if self.since and self.until:
            return f"from {self.since}, before {self.until}"
        if self.since:
            return f"from {self.since}"
        return f"before {self.until}" if self.until else "all"


def rule(
    rule_id: str,
    severity: Severity,
    *,
    title: str,
    explanation: str,
    hint: str,
    scope: Scope = "config",
    since: Release | None = None,
    until: Release | None = None,
) -> Callable[[Check], Rule]:
    """Make a rule of the check below it. `explanation` is sentences; `title` and `hint` have no final full stop."""

    def made(check: Check) -> Rule:
        return Rule(rule_id, severity, title, explanation, hint, check, scope, since, until)

    return made
