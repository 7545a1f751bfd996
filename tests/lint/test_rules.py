"""Every rule fires on its bad repository, stays silent on its good one, and can be explained."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from sie_triton.lint import RULES, Violation, explain, lint_repository, onnx_graph, rules

from .builders import RepositoryBuilder, identity_config, identity_graph
from .builds import Build
from .cases import CASES
from .cases.case import Case

# Its bad repository is any ONNX model in an environment without `onnx`.
NEEDS_ENVIRONMENT = {"L201"}


@pytest.fixture
def repository(tmp_path: Path) -> RepositoryBuilder:
    path = tmp_path / "models"
    path.mkdir()
    return RepositoryBuilder(path)


def lint(repository: RepositoryBuilder, build: Build, case: Case, triton: str) -> list[Violation]:
    build(repository)
    return lint_repository(repository.path, triton=triton, machine=case.machine)


def test_every_rule_has_a_pair() -> None:
    assert set(CASES) | NEEDS_ENVIRONMENT == set(RULES)


@pytest.mark.parametrize("rule_id", CASES)
def test_fires_on_the_bad_repository(rule_id: str, repository: RepositoryBuilder) -> None:
    case = CASES[rule_id]
    findings = lint(repository, case.bad, case, case.triton)
    found = [f for f in findings if f.rule_id == rule_id]
    assert found, [str(f) for f in findings]
    assert all(f.severity == RULES[rule_id].severity and f.hint for f in found)
    if case.line is not None:
        assert case.line in {f.line for f in found}
    if rule_id != "L101":
        assert not [str(f) for f in findings if f.rule_id == "L101"], "the bad repository must at least parse"


@pytest.mark.parametrize("rule_id", CASES)
def test_is_silent_on_the_good_repository(rule_id: str, repository: RepositoryBuilder) -> None:
    case = CASES[rule_id]
    findings = lint(repository, case.good, case, case.good_triton or case.triton)
    # A good repository is one that Triton loads, so nothing else may call it wrong either.
    assert not [str(f) for f in findings if f.rule_id == rule_id or f.severity == "error"]


@pytest.mark.parametrize("rule_id", RULES)
def test_explains_itself(rule_id: str) -> None:
    rule = RULES[rule_id]
    text = " ".join(explain(rule_id).split())
    for part in (rule.id, rule.severity, rule.title, rule.versions, " ".join(rule.hint.split())):
        assert part in text
    assert not rule.hint.endswith(".")
    assert not rule.title.endswith(".")
    assert rule.explanation.endswith(".")


def test_ids_are_ordered_and_of_one_scheme() -> None:
    assert all(re.fullmatch(r"L[1-8]\d\d", rule_id) for rule_id in RULES)
    assert list(RULES) == sorted(RULES)


def test_no_declared_rule_is_lost() -> None:
    """Neither in a file that is not collected, nor to a second rule of its id, nor to one of its name in its file."""
    files = Path(rules.__file__).parent.glob("*.py")
    functions = [n for f in files for n in ast.walk(ast.parse(f.read_text())) if isinstance(n, ast.FunctionDef)]
    decorators = [d for f in functions for d in f.decorator_list if isinstance(d, ast.Call)]
    declared = [ast.literal_eval(d.args[0]) for d in decorators if isinstance(d.func, ast.Name) and d.func.id == "rule"]
    assert sorted(declared) == list(RULES)


def test_explaining_an_unknown_rule_names_the_range() -> None:
    with pytest.raises(KeyError, match="L101"):
        explain("L999")


def test_graphs_are_not_opened_without_onnx(repository: RepositoryBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    repository.add("copy", identity_config(), identity_graph((8, 4), output=(8, 4)))
    assert {f.rule_id for f in lint_repository(repository.path)} == {"L212"}
    monkeypatch.setattr(onnx_graph, "can_open", lambda: False)
    assert {f.rule_id for f in lint_repository(repository.path)} == {"L201"}
