"""What the linter says, and what it may be told about the machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Severity = Literal["error", "warning", "info"]
"""`error`: Triton refuses it or answers wrongly; `warning`: it runs, but not as written; `info`: worth knowing."""

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule broken at one place. `line` counts from 1; None means the whole file or folder."""

    rule_id: str
    severity: Severity
    path: Path
    line: int | None
    message: str
    hint: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{place}: {self.severity} {self.rule_id}: {self.message}\n  hint: {self.hint}"


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine that will serve the repository: CPU cores that the server may use, and GPUs."""

    cores: int
    gpus: int = 0
