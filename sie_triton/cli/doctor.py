"""`doctor`: what this machine has, and what we left on it."""

from __future__ import annotations

from typing import Annotated

import typer

from sie_triton.cli.app import ExitCode
from sie_triton.cli.printing import out


def doctor(
    port: Annotated[int, typer.Option(help="Port the frontend would listen on.", min=1, max=65535)] = 8080,
    clean: Annotated[
        bool,
        typer.Option(
            "--clean",
            help="List our caches and what killed processes left, with sizes, and remove them if you agree. Never a "
            "repository that you built, never the cache of Hugging Face.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With `--clean`: remove without asking.")] = False,
) -> None:
    """Say what this machine has and what would be used. Exits 1 if something would fail."""
    if clean:
        _clean(ask=not yes)
        return
    from sie_triton.serving.doctor import examine

    checks = list(examine(port))
    for check in checks:
        out.print(f"{check.verdict:8}{check.subject}: {check.message}", markup=False)
        if check.hint:
            out.print(f"        hint: {check.hint}", markup=False)
    if any(check.verdict == "problem" for check in checks):
        raise typer.Exit(ExitCode.FAILED)


def _clean(*, ask: bool) -> None:
    from sie_triton.diagnostics import DiagnosticError
    from sie_triton.serving.leavings import leavings, remove

    found = leavings()
    for leaving in found:
        stays = " (stays)" if leaving.kept else ""
        out.print(f"{leaving.size / 1e6:9,.1f} MB  {leaving.path}: {leaving.what}{stays}", markup=False)
    for reason in dict.fromkeys(leaving.kept for leaving in found if leaving.kept):
        out.print(f"What stays: {reason}", markup=False)
    going = [leaving for leaving in found if not leaving.kept]
    size = f"{sum(leaving.size for leaving in going) / 1e6:,.1f} MB"
    if not going:
        out.print("nothing to remove now" if found else "nothing to remove")
        return
    if ask:
        typer.confirm(f"Remove {len(going)} of these, {size}?", abort=True)
    failed = remove(going)
    if failed:
        raise DiagnosticError(failed)
    out.print(f"removed {size}")
