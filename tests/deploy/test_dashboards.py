"""The dashboard and the alerts ask only for metrics, and by labels, that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sie_frontend.watch.metrics import Metrics

from deploy.conftest import ROOT
from deploy.metric_names import TRITON_METRICS, exposed_labels, exposed_names

promql_parser = pytest.importorskip("promql_parser", reason="development dependency `promql-parser`")

DASHBOARD = ROOT / "dashboards" / "grafana.json"
ALERTS = ROOT / "dashboards" / "alerts.yml"
# Put on every series by Prometheus itself.
TARGET_LABELS = {"instance", "job", "namespace", "pod"}
TRITON_LABELS = {"model", "version", "reason", "gpu_uuid"}


def dashboard() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return content


def rules() -> list[dict[str, Any]]:
    content = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m")
    for rule in rules():
        yield rule["alert"], rule["expr"]


def selectors(node: Any) -> Iterator[Any]:
    """The vector selectors of a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    elif isinstance(node, promql_parser.MatrixSelector):
        yield node.vector_selector
    else:
        for name in ("expr", "lhs", "rhs"):
            if (child := getattr(node, name, None)) is not None:
                yield from selectors(child)
        for child in getattr(node, "args", ()) or ():
            yield from selectors(child)


@pytest.mark.parametrize(("title", "expression"), list(expressions()))
def test_expressions_ask_for_what_exists(title: str, expression: str) -> None:
    registry = Metrics().registry
    known = TRITON_METRICS | exposed_names(registry)
    labels = exposed_labels(registry)
    found = list(selectors(promql_parser.parse(expression)))
    assert found, f"{title} selects nothing"
    for selector in found:
        assert selector.name in known, f"{title}: {selector.name}"
        usable = (
            labels.get(selector.name) or TRITON_LABELS if selector.name in TRITON_METRICS else labels[selector.name]
        )
        asked = {matcher.name for matcher in selector.matchers.matchers}
        assert asked <= usable | TARGET_LABELS, f"{title}: {asked - usable}"
    grouped = {label.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for label in group.split(",")}
    every = frozenset().union(*labels.values()) | TRITON_LABELS | TARGET_LABELS | {"le"}
    assert grouped <= every, title


def test_a_wrong_name_is_noticed() -> None:
    with pytest.raises(AssertionError):
        test_expressions_ask_for_what_exists("x", "rate(sie_frontend_request_total[5m])")


def test_every_metric_of_the_frontend_is_shown() -> None:
    text = DASHBOARD.read_text(encoding="utf-8")
    for family in Metrics().registry.collect():
        assert family.name in text, f"{family.name} is in no panel"


def test_panels_lie_side_by_side() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        taken = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        assert max(x for x, _ in taken) < 24
        cells |= taken


def test_variables_of_the_dashboard_are_defined() -> None:
    content = dashboard()
    defined = {variable["name"] for variable in content["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z_]+)", DASHBOARD.read_text(encoding="utf-8"))) - {"__rate_interval", "__all"}
    assert used == defined
    for variable in content["templating"]["list"]:
        if variable["type"] == "query":
            metric = re.fullmatch(r"label_values\((\w+), instance\)", variable["definition"])
            assert metric
            assert metric[1] in TRITON_METRICS | exposed_names(Metrics().registry)


def test_alerts_say_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert re.fullmatch(r"\d+[mh]", rule["for"])
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(rule["annotations"]) == {"summary", "description"}
        for label in re.findall(r"\$labels\.(\w+)", str(rule["annotations"])):
            assert label in rule["expr"] or label in TARGET_LABELS | {"gpu_uuid"}


def test_files_named_in_alerts_exist() -> None:
    for name in re.findall(r"docs/[\w-]+\.md", ALERTS.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file()


def test_dashboard_is_formatted() -> None:
    assert Path(DASHBOARD).read_text(encoding="utf-8") == json.dumps(dashboard(), indent=2) + "\n"
