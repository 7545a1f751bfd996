"""Runs the rules over a repository or over one configuration."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from sie_triton.lint import (
    accelerators,
    batching,
    decoupled,
    ensemble,
    files,
    graph,
    graph_content,
    instances,
    operations,
    parameters,
    schema,
    sequences,
    tensorrt,
    torchscript,
    variants,
)
from sie_triton.lint.config import ParseFailure, parse
from sie_triton.lint.finding import SEVERITIES, Finding, Machine
from sie_triton.lint.release import Release
from sie_triton.lint.repository import Model, Repository
from sie_triton.lint.rule import Problem, Rule, Scope, Subject

_PARSES = "L101"
_FILES = (
    schema,
    sequences,
    graph,
    graph_content,
    ensemble,
    decoupled,
    batching,
    instances,
    files,
    variants,
    parameters,
    accelerators,
    tensorrt,
    torchscript,
    operations,
)

RULES: dict[str, Rule] = dict(sorted((rule.id, rule) for file in _FILES for rule in file.rules()))
"""Every rule by its id, in the order of ids."""


def lint_repository(repository: Path, *, triton: str = "24.10", machine: Machine | None = None) -> list[Finding]:
    """Check every configuration of every model below `repository`, in the order of paths and lines.

    Args:
        repository: the folder that `--model-repository` names; nothing is written or executed.
        triton: the release that will serve it, by its container tag.
        machine: the machine that will serve it; without one, rules on cores and GPUs stay silent.

    Raises:
        NotADirectoryError: `repository` is no folder.
        ValueError: `triton` is no release that is known.
    """
    release = Release.parse(triton)
    read = Repository.read(repository)
    return _ordered(finding for model in read.models.values() for finding in _lint_model(read, model, release, machine))


def lint_model_config(
    text: str | bytes,
    *,
    path: Path = Path("config.pbtxt"),
    triton: str = "24.10",
    machine: Machine | None = None,
) -> list[Finding]:
    """Check the text of one configuration by the rules that need nothing else; `path` is only reported.

    Raises:
        ValueError: `triton` is no release that is known.
    """
    release = Release.parse(triton)
    config = parse(path, text.encode() if isinstance(text, str) else text)
    if isinstance(config, ParseFailure):
        return [_parse_finding(path, config)]
    name = str(config.message.name)
    nowhere = Repository(path.parent)
    model = Model(path.parent, name, (config,), on_disk=False)
    return _ordered(_check(Subject(nowhere, model, config, release, machine), ("config",)))


def explain(rule_id: str) -> str:
    """What the rule is about, for which releases it holds, and the cure.

    Raises:
        KeyError: there is no such rule.
    """
    if rule_id not in RULES:
        raise KeyError(f"there is no rule `{rule_id}`; rules are `{next(iter(RULES))}` to `{list(RULES)[-1]}`")
    rule = RULES[rule_id]
    paragraphs = (
        f"{rule.id} ({rule.severity}): {rule.title}",
        rule.explanation,
        f"Holds for Triton releases: {rule.versions}.",
        f"Cure: {rule.cure}.",
    )
    return "\n\n".join(textwrap.fill(p, 100, break_long_words=False, break_on_hyphens=False) for p in paragraphs)


def _lint_model(repository: Repository, model: Model, release: Release, machine: Machine | None) -> Iterator[Finding]:
    for path, failure in model.failures:
        yield _parse_finding(path, failure)
    for config in model.configs:
        subject = Subject(repository, model, config, release, machine)
        findings = list(_check(subject, ("config", "repository")))
        yield from findings
        yield from _lint_as_variants(subject, set(findings))


def _lint_as_variants(subject: Subject, known: set[Finding]) -> Iterator[Finding]:
    """What is wrong with an ensemble only where its models run variants that it lacks itself."""
    for name in ensemble.foreign_variants(subject):
        for finding in _check(replace(subject, served_as=name), ("config", "repository")):
            if finding not in known:
                chosen = f"with `--model-config-name={name.removesuffix('.pbtxt')}`"
                yield replace(finding, message=f"{chosen}: {finding.message}")


def _check(subject: Subject, scopes: tuple[Scope, ...]) -> Iterator[Finding]:
    for rule in RULES.values():
        if rule.scope in scopes and rule.holds_for(subject.release):
            for problem in rule.check(subject):
                yield _finding(rule, subject, problem)


def _finding(rule: Rule, subject: Subject, problem: Problem) -> Finding:
    path = problem.path or subject.config.path
    return Finding(rule.id, rule.severity, path, problem.line, problem.message, problem.cure or rule.cure)


def _parse_finding(path: Path, failure: ParseFailure) -> Finding:
    rule = RULES[_PARSES]
    return Finding(rule.id, rule.severity, path, failure.line, failure.message, rule.cure)


def _ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Without repetitions (variants of a configuration share their model's files), by place and severity."""
    return sorted(
        dict.fromkeys(findings),
        key=lambda f: (f.path, f.line or 0, SEVERITIES.index(f.severity), f.rule_id, f.message),
    )
