"""`doctor`: what this machine has."""

from __future__ import annotations

from typing import Annotated

import typer

from sie_triton.cli.app import ExitCode
from sie_triton.cli.printing import out


def doctor(
    port: Annotated[int, typer.Option(help="Port the frontend would listen on.", min=1, max=65535)] = 8080,
) -> None:
    """Say what this machine has and what would be used. Exits 1 if something would fail."""
    from sie_triton.serving.doctor import examine

    checks = list(examine(port))
    for check in checks:
        out.print(f"{check.verdict:8}{check.subject}: {check.message}", markup=False)
        if check.hint:
            out.print(f"        hint: {check.hint}", markup=False)
    if any(check.verdict == "problem" for check in checks):
        raise typer.Exit(ExitCode.FAILED)
