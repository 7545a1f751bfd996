"""A linter for any Triton model repository: what Triton will refuse, ignore or answer wrongly, before it does."""

from __future__ import annotations

from sie_triton.lint.engine import explain, lint_model_config, lint_repository
from sie_triton.lint.rule import Problem, Rule
from sie_triton.lint.rules import RULES
from sie_triton.lint.violation import SEVERITIES, Machine, Severity, Violation

__all__ = [
    "RULES",
    "SEVERITIES",
    "Machine",
    "Problem",
    "Rule",
    "Severity",
    "Violation",
    "explain",
    "lint_model_config",
    "lint_repository",
]
