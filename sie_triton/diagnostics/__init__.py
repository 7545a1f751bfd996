"""The users' mistakes as values: collected, printed once, never raised across a stage.

Exceptions remain for our own bugs and for the disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a file. `line` and `column` count from 1; 0 means the whole file."""

    path: Path
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return str(self.path)
        return f"{self.path}:{self.line}:{self.column}" if self.column else f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake of the user's: what is wrong, where, and how to mend it.

    `code` is stable and has a row in `diagnostics.codes`: `SIE1xx` bundle, `SIE2xx` catalogue and plan, `SIE3xx`
    weights, `SIE4xx` export, `SIE5xx` verification, `SIE6xx` repository, `SIE7xx` serving, `SIE8xx` deployment,
    `SIE9xx` migration.
    `message` names the cause without a final full stop; `hint` says what mends it.
    """

    code: str
    message: str
    where: Where | None = None
    hint: str | None = None

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{place}{self.code}: {self.message}{hint}"


class DiagnosticError(Exception):
    """Carries diagnostics through code that cannot return them, up to the nearest stage that can."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n".join(str(d) for d in self.diagnostics))
