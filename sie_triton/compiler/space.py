"""What a build will write, told before the minutes that it takes."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.formats import Precision
from sie_triton.room import shortage

_BYTES: Final[Mapping[Precision, float]] = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1}
# A graph may leave tensors of the checkpoint out, such as a head that nobody asks for.
_CERTAIN: Final = 0.75


def check_room(numbers: int, precisions: Collection[Precision], repository: Path) -> None:
    """Raise `DiagnosticError` (`SIE612`) where graphs of `numbers` numbers in each of these precisions do not fit."""
    needed = {repository.absolute().parent: _CERTAIN * numbers * sum(_BYTES[name] for name in set(precisions))}
    hint = "free some space, or choose another `--repository`; what was published is as it was"
    if "int8" in precisions:
        # It is made of float32, which lies among the temporary files meanwhile.
        needed.setdefault(Path(tempfile.gettempdir()), _CERTAIN * numbers * _BYTES["float32"])
        hint = "free some space, choose another `--repository`, or set TMPDIR to a larger disk"
    found = [short for folder, size in needed.items() if (short := shortage(folder, size))]
    if found:
        message = f"there is no room for what would be built: {'; '.join(found)}"
        raise DiagnosticError([Diagnostic("SIE612", message, hint=hint)])
