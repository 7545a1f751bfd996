"""`sie-triton` called in this process, as the console script calls it."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from sie_triton.cli import main


@dataclass(frozen=True)
class Outcome:
    """What one call left: its exit code and everything it printed."""

    code: int
    stdout: str
    stderr: str


def sie_triton(*arguments: str | Path) -> Outcome:
    """Run the command line to its end."""
    stdout, stderr = io.StringIO(), io.StringIO()
    code = 0
    with (
        mock.patch.object(sys, "argv", ["sie-triton", *map(str, arguments)]),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    return Outcome(code, stdout.getvalue(), stderr.getvalue())
