"""`sie-triton explain`: what a diagnostic code or a lint rule means, without a search through the pages."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Annotated

import typer

from sie_triton.diagnostics.codes import Code, known_codes

_WIDTH = 100


def explain(
    codes: Annotated[
        list[str], typer.Argument(help="Diagnostic codes such as `SIE404`, and rules of `lint` such as `L401`.")
    ],
) -> None:
    """Say what a diagnostic code or a lint rule means, what causes it, and what mends it."""
    # The rules bring protobuf and numpy with them, and no other command shall wait for these.
    from sie_triton.lint import RULES
    from sie_triton.lint import explain as explain_rule

    wanted = list(dict.fromkeys(code.upper() for code in codes))
    known = {**known_codes(), **RULES}
    if unknown := [code for code in wanted if code not in known]:
        raise typer.BadParameter("; ".join(_unknown(code, known) for code in unknown), param_hint="CODES")
    texts = [explain_rule(code) if code in RULES else _explained(known_codes()[code]) for code in wanted]
    typer.echo("\n\n".join(texts))


def _explained(code: Code) -> str:
    sentences = (
        f"{code.code} ({code.area.lower()}): {code.meaning}",
        f"Usual cause: {code.cause}.",
        f"Hint: {code.hint}.",
        f"A command that reports nothing else ends with {code.exit_code}.",
    )
    return "\n\n".join(textwrap.fill(s, _WIDTH, break_long_words=False, break_on_hyphens=False) for s in sentences)


def _unknown(code: str, known: Iterable[str]) -> str:
    from sie_triton.bundle.suggest import did_you_mean

    near = did_you_mean(code, known) or "docs/diagnostics.md and docs/lint-rules.md have them all"
    return f"no code `{code}`: {near}"
