"""Rules that come and go with releases, and what each release's ONNX Runtime reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from sie_triton.backends.releases import OLDEST, Release, onnx_runtime
from sie_triton.lint import RULES, lint_repository

from .builders import RepositoryBuilder, identity_config, identity_graph
from .cases import CASES


def month_before(release: Release) -> Release:
    return Release(release.year - 1, 12) if release.month == 1 else Release(release.year, release.month - 1)


@pytest.mark.parametrize("rule_id", [r.id for r in RULES.values() if r.since or r.until])
def test_a_rule_is_silent_on_its_bad_repository_outside_its_releases(rule_id: str, tmp_path: Path) -> None:
    rule, case = RULES[rule_id], CASES[rule_id]
    case.bad(RepositoryBuilder(tmp_path))
    inside = month_before(rule.until) if rule.until else rule.since
    outside = rule.until or (month_before(rule.since) if rule.since else OLDEST)

    def ids(release: Release | None) -> set[str]:
        return {f.rule_id for f in lint_repository(tmp_path, triton=str(release), machine=case.machine)}

    assert rule_id in ids(inside)
    assert rule_id not in ids(outside)


@pytest.mark.parametrize(
    ("triton", "runtime", "ir_version", "opset"),
    [
        ("24.10", "1.19.2", 10, 21),
        ("24.12", "1.19.2", 10, 21),
        ("25.05", "1.21", 10, 22),
        ("25.12", "1.23", 11, 23),
        ("26.03", "1.24.2", 13, 25),
        ("26.11", "1.28.0", 13, 26),
        ("30.01", "1.28.0", 13, 26),
    ],
)
def test_onnx_runtime_of_a_release(triton: str, runtime: str, ir_version: int, opset: int) -> None:
    found = onnx_runtime(Release.parse(triton))
    assert (found.version, found.max_ir_version, found.max_opset) == (runtime, ir_version, opset)


@pytest.mark.parametrize(("triton", "refused"), [("25.02", {"L204"}), ("25.03", set())])
def test_an_opset_becomes_fine_with_a_newer_release(triton: str, refused: set[str], tmp_path: Path) -> None:
    graph = identity_graph()
    graph.opset_import[0].version = 22
    RepositoryBuilder(tmp_path).add("copy", identity_config(), graph)
    assert {f.rule_id for f in lint_repository(tmp_path, triton=triton)} == refused


def test_releases_are_ordered_and_read_with_their_suffix() -> None:
    assert Release.parse("24.10-py3") == Release(24, 10)
    assert str(Release(25, 3)) == "25.03"
    assert Release.parse("24.12") < Release.parse("25.01")
