"""`lint`: Triton's rules applied to any model repository."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sie_triton.cli.app import ExitCode
from sie_triton.cli.options import DEFAULT_REPOSITORY, AsJson
from sie_triton.cli.printing import out, say

if TYPE_CHECKING:
    from sie_triton.lint import Machine, Violation


def lint(
    repository: Annotated[Path, typer.Argument(help="Any Triton model repository.")] = DEFAULT_REPOSITORY,
    triton: Annotated[str, typer.Option(help="The Triton release it is meant for.")] = "24.10",
    cores: Annotated[int | None, typer.Option(help="Cores of the machine that will serve it.", min=1)] = None,
    gpus: Annotated[int, typer.Option(help="GPUs of that machine.", min=0)] = 0,
    rule: Annotated[
        str | None, typer.Option("--explain", metavar="ID", help="Explain a rule and exit.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a Triton model repository, ours or anybody's, by Triton's own rules. Exits 1 if there are errors."""
    from sie_triton.lint import Machine

    if rule is not None:
        _explain_rule(rule)
        return
    findings = _findings(repository, triton, Machine(cores, gpus) if cores else None)
    if as_json:
        out.print_json(json.dumps([asdict(finding) for finding in findings], default=str))
    else:
        for finding in findings:
            out.print(str(finding), markup=False)
    counts = {level: sum(f.severity == level for f in findings) for level in ("error", "warning", "info")}
    say(", ".join(f"{count} {level}{'s' if count != 1 and level != 'info' else ''}" for level, count in counts.items()))
    if counts["error"]:
        raise typer.Exit(ExitCode.FAILED)


def _explain_rule(rule: str) -> None:
    from sie_triton.lint import RULES, explain

    if rule not in RULES:
        raise typer.BadParameter(f"no rule `{rule}`; they are {min(RULES)} to {max(RULES)}", param_hint="--explain")
    out.print(explain(rule), markup=False)


def _findings(repository: Path, triton: str, machine: Machine | None) -> Sequence[Violation]:
    """What the linter finds; raises `typer.BadParameter` if there is nothing to check or no such release."""
    from sie_triton.lint import lint_repository

    try:
        findings = lint_repository(repository, triton=triton, machine=machine)
    except NotADirectoryError:
        raise typer.BadParameter(f"`{repository}` is not a folder", param_hint="REPOSITORY") from None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--triton") from None
    if not any(path.is_dir() for path in repository.iterdir()):
        raise typer.BadParameter(f"`{repository}` holds no model: every model is a folder", param_hint="REPOSITORY")
    return findings
