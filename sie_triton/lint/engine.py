"""Runs the rules over a repository or over one configuration."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from sie_triton.backends.releases import Release
from sie_triton.lint.config import ParseFailure, parse
from sie_triton.lint.ensembles import foreign_variants
from sie_triton.lint.repository import ModelFolder, RepositoryFolder
from sie_triton.lint.rule import LintSubject, Problem, Rule, Scope
from sie_triton.lint.rules import RULES
from sie_triton.lint.violation import SEVERITIES, Machine, Violation

_PARSES = "L101"


def lint_repository(repository: Path, *, triton: str = "24.10", machine: Machine | None = None) -> list[Violation]:
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
    read = RepositoryFolder.read(repository)
    return _ordered(
        violation for model in read.models.values() for violation in _lint_model(read, model, release, machine)
    )


def lint_model_config(
    text: str | bytes,
    *,
    path: Path = Path("config.pbtxt"),
    triton: str = "24.10",
    machine: Machine | None = None,
) -> list[Violation]:
    """Check the text of one configuration by the rules that need nothing else; `path` is only reported.

    Raises:
        ValueError: `triton` is no release that is known.
    """
    release = Release.parse(triton)
    config = parse(path, text.encode() if isinstance(text, str) else text)
    if isinstance(config, ParseFailure):
        return [_parse_violation(path, config)]
    name = str(config.message.name)
    nowhere = RepositoryFolder(path.parent)
    model = ModelFolder(path.parent, name, (config,), on_disk=False)
    return _ordered(_check(LintSubject(nowhere, model, config, release, machine), ("config",)))


def explain(rule_id: str) -> str:
    """What the rule is about, for which releases it holds, and its hint.

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
        f"Hint: {rule.hint}.",
    )
    return "\n\n".join(textwrap.fill(p, 100, break_long_words=False, break_on_hyphens=False) for p in paragraphs)


def _lint_model(
    repository: RepositoryFolder, model: ModelFolder, release: Release, machine: Machine | None
) -> Iterator[Violation]:
    for path, failure in model.failures:
        yield _parse_violation(path, failure)
    for config in model.configs:
        subject = LintSubject(repository, model, config, release, machine)
        violations = list(_check(subject, ("config", "repository")))
        yield from violations
        yield from _lint_as_variants(subject, set(violations))


def _lint_as_variants(subject: LintSubject, known: set[Violation]) -> Iterator[Violation]:
    """What is wrong with an ensemble only where its models run variants that it lacks itself."""
    for name in foreign_variants(subject):
        for violation in _check(replace(subject, served_as=name), ("config", "repository")):
            if violation not in known:
                chosen = f"with `--model-config-name={name.removesuffix('.pbtxt')}`"
                yield replace(violation, message=f"{chosen}: {violation.message}")


def _check(subject: LintSubject, scopes: tuple[Scope, ...]) -> Iterator[Violation]:
    for rule in RULES.values():
        if rule.scope in scopes and rule.holds_for(subject.release):
            for problem in rule.check(subject):
                yield _violation(rule, subject, problem)


def _violation(rule: Rule, subject: LintSubject, problem: Problem) -> Violation:
    path = problem.path or subject.config.path
    return Violation(rule.id, rule.severity, path, problem.line, problem.message, problem.hint or rule.hint)


def _parse_violation(path: Path, failure: ParseFailure) -> Violation:
    rule = RULES[_PARSES]
    return Violation(rule.id, rule.severity, path, failure.line, failure.message, rule.hint)


def _ordered(violations: Iterable[Violation]) -> list[Violation]:
    """Without repetitions (variants of a configuration share their model's files), by place and severity."""
    return sorted(
        dict.fromkeys(violations),
        key=lambda f: (f.path, f.line or 0, SEVERITIES.index(f.severity), f.rule_id, f.message),
    )
