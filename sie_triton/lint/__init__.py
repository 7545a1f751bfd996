"""A linter for any Triton model repository: what Triton will refuse, ignore or answer wrongly, before it does."""

from __future__ import annotations

from sie_triton.lint.engine import RULES, explain, lint_model_config, lint_repository
from sie_triton.lint.finding import SEVERITIES, Finding, Machine, Severity
from sie_triton.lint.rule import Problem, Rule

__all__ = [
    "RULES",
    "SEVERITIES",
    "Finding",
    "Machine",
    "Problem",
    "Rule",
    "Severity",
    "explain",
    "lint_model_config",
    "lint_repository",
]
