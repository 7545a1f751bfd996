"""The page of every diagnostic code, from their table."""

from __future__ import annotations

import re

from sie_triton.diagnostics.codes import AREAS, known_codes
from sie_triton.pages.markdown import code, table

_HEAD = """\
# Diagnostics

Generated from the code by `python -m sie_triton.pages`; do not edit.

What `sie-triton` cannot do it says in one line: the place if there is one, a code, the cause, and below it a hint. The
message and the hint of your case are more exact than this page. `sie-triton explain SIE404` prints a row of it, and
knows the rules of `lint` too. A command ends with the code's exit code; with 1 if it reports several and one of them
has 1. Errors of HTTP requests are in [operations.md](operations.md#by-status).
"""


def render() -> str:
    """`docs/diagnostics.md`."""
    chapters = [_HEAD]
    for digit, area in AREAS.items():
        rows = [
            (code(row.code), *map(_sentence, (row.meaning, row.cause, row.hint)), str(row.exit_code))
            for row in known_codes().values()
            if row.code[3] == digit
        ]
        body = table(("Code", "Means", "Usual cause", "Hint", "Exit code"), rows)
        chapters.append(f"## `SIE{digit}xx`: {area[:1].lower()}{area[1:]}\n\n{body}\n")
    return "\n".join(chapters)


def _sentence(text: str) -> str:
    linked = re.sub(r"docs/([a-z-]+\.md)", r"[\1](\1)", text)
    return linked if linked != text and linked.startswith("[") else f"{linked[:1].upper()}{linked[1:]}"
