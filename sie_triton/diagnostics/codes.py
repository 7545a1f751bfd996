"""The table of every diagnostic code: what it means, its usual cause, what mends it.

`docs/diagnostics.md` is made from it, and `sie-triton explain` prints its rows. The table is `codes.txt`, a line for
each code, so that branches that add codes merge. A code that the source uses and the table lacks fails a test, and so
does a row that nothing uses. A number that is no longer used is never given another meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TABLE = Path(__file__).parent / "codes.txt"
AREAS: Mapping[str, str] = {
    "1": "Bundles",
    "2": "Catalogue and plan",
    "3": "Weights and checkpoints",
    "4": "Export",
    "5": "Verification",
    "6": "The repository",
    "7": "Serving",
    "8": "Deployment",
    "9": "Migration",
}
"""The first digit of a code -> what it is about."""

# Mistakes in what the user wrote, as against work that failed.
_USAGE = ("SIE1", "SIE2", "SIE712", "SIE716", "SIE801", "SIE901", "SIE904", "SIE905", "SIE906")


@dataclass(frozen=True, slots=True)
class Code:
    """One row. `hint` is the general one; a diagnostic's own is more exact."""

    code: str
    meaning: str
    cause: str
    hint: str

    @property
    def area(self) -> str:
        """What the code is about, as in `AREAS`."""
        return AREAS[self.code[3]]

    @property
    def exit_code(self) -> int:
        """What a command ends with if all that it reports are of this kind."""
        return 2 if is_usage(self.code) else 1


def is_usage(code: str) -> bool:
    """Whether a code is about what the user wrote (exit code 2) rather than about work that failed (1)."""
    return code.startswith(_USAGE)


@cache
def known_codes() -> Mapping[str, Code]:
    """Every code with its row, in the order of the table."""
    rows = (line.split(" | ") for line in TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    return {row[0]: Code(*row) for row in rows}
