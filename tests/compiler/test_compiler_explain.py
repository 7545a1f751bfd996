"""`sie-triton explain`: what the table and the linter say of a code, and near ones for a code that is none."""

from __future__ import annotations

import pytest

from compiler.command import sie_triton
from sie_triton.diagnostics.codes import known_codes
from sie_triton.lint import RULES
from sie_triton.lint import explain as explain_rule


def flat(text: str) -> str:
    """Text without the line breaks and the frames that a width puts into it."""
    return " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize("code", known_codes())
def test_every_code_is_explained_with_all_that_the_table_says(code: str) -> None:
    done = sie_triton("explain", code)
    row = known_codes()[code]
    assert (done.code, done.stderr) == (0, "")
    said = flat(done.stdout)
    assert said.startswith(f"{code} ({row.area.lower()}): {row.meaning}")
    assert f"Usual cause: {row.cause}." in said
    assert f"Hint: {row.hint}." in said
    assert said.endswith(f"ends with {row.exit_code}.")


def test_every_rule_of_the_linter_is_explained_as_lint_does_it() -> None:
    done = sie_triton("explain", *RULES)
    assert (done.code, done.stdout) == (0, "\n\n".join(map(explain_rule, RULES)) + "\n")


def test_several_at_once_in_any_case_and_each_once() -> None:
    done = sie_triton("explain", "sie404", "L401", "SIE404")
    assert done.stdout.count("SIE404 (export)") == done.stdout.count("L401 (info)") == 1
    assert done.stdout.index("SIE404") < done.stdout.index("L401")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [("SIE4O4", "`SIE404`"), ("404", "`SIE404`"), ("L401x", "`L401`"), ("nonsense", "docs/diagnostics.md")],
)
def test_an_unknown_code_is_wrong_usage_and_near_ones_are_named(wrong: str, told: str) -> None:
    done = sie_triton("explain", "SIE101", wrong)
    assert (done.code, done.stdout) == (2, "")
    assert f"no code `{wrong.upper()}`" in flat(done.stderr)
    assert told in flat(done.stderr)
