"""Pods scale by tokens in hand: metrics that exist, queries that Prometheus reads, rules that make what is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from sie_frontend.watch.metrics import Metrics

from deploy.metric_names import TRITON_METRICS, exposed_names
from deploy.test_dashboards import selectors
from deploy.test_manifests import KINDS, of_kind, render
from sie_triton.deploy import DeployOptions, write_manifests
from sie_triton.deploy.options import Kind

promql_parser = pytest.importorskip("promql_parser", reason="development dependency `promql-parser`")

KNOWN = TRITON_METRICS | exposed_names(Metrics().registry)


def adapter_rules(kind: Kind, options: DeployOptions, repository: Path, out: Path) -> dict[str, list[dict[str, Any]]]:
    write_manifests(kind, repository, out, options)
    rules: dict[str, list[dict[str, Any]]] = yaml.safe_load((out / "prometheus-adapter.yaml").read_text())["rules"]
    return rules


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [DeployOptions(), DeployOptions(load="on-demand")], ids=["apart", "together"])
def test_the_adapter_makes_every_metric_that_is_scaled_by(
    kind: Kind, options: DeployOptions, repository: Path, tmp_path: Path
) -> None:
    if kind == "kserve" and options.on_demand:
        pytest.skip("KServe does not load on demand")
    rules = adapter_rules(kind, options, repository, tmp_path / "out")
    made = {where: {rule["name"]["as"] for rule in found} for where, found in rules.items()}
    asked: dict[str, set[str]] = {}
    for scaler in of_kind(render(kind, options, repository), "HorizontalPodAutoscaler").values():
        for metric in scaler["spec"]["metrics"]:
            where = {"Pods": "custom", "External": "external"}[metric["type"]]
            asked.setdefault(where, set()).add(metric[metric["type"].lower()]["metric"]["name"])
    assert made == asked


def test_cpu_scales_nothing(repository: Path) -> None:
    for kind in KINDS:
        for autoscaler in ("hpa", "keda"):
            files = render(kind, DeployOptions(autoscaler=autoscaler), repository)
            scalers = [*of_kind(files, "HorizontalPodAutoscaler").values(), *of_kind(files, "ScaledObject").values()]
            assert len(scalers) == 2
            assert "cpu" not in str(scalers).lower()


@pytest.mark.parametrize("kind", KINDS)
def test_queries_ask_for_what_exists_of_these_frontends(kind: Kind, repository: Path, tmp_path: Path) -> None:
    options = DeployOptions(name="embed", namespace="prod")
    rules = adapter_rules(kind, options, repository, tmp_path / "out")
    queries = [(rule["seriesQuery"], rule["metricsQuery"]) for rule in (*rules["custom"], *rules["external"])]
    frontends = "embed-transformer-.+" if kind == "kserve" else "embed-frontend-.+"
    for series, query in queries:
        # What the adapter puts in place of its templates.
        name = series.partition("{")[0]
        filled = query.replace("<<.GroupBy>>", "pod").replace("<<.Series>>", name)
        filled = filled.replace("<<.LabelMatchers>>", 'namespace="prod",pod=~"a|b"')
        for text in (series, filled):
            for selector in selectors(promql_parser.parse(text)):
                assert selector.name in KNOWN
    _, external = queries[-1]
    assert f'pod=~"{frontends}"' in external
    files = render(kind, DeployOptions(name="embed", namespace="prod", autoscaler="keda"), repository)
    for scaled in of_kind(files, "ScaledObject").values():
        for trigger in scaled["spec"]["triggers"]:
            query = trigger["metadata"]["query"]
            [selector] = selectors(promql_parser.parse(query))
            assert selector.name in KNOWN
            assert f'namespace="prod",pod=~"{frontends}"' in query
            assert float(trigger["metadata"]["threshold"]) > 0
    triton = of_kind(files, "ScaledObject")["embed-triton"]["spec"]["triggers"]
    # KEDA asks Prometheus what the adapter would.
    assert [trigger["metadata"]["query"] for trigger in triton] == [external]


def test_the_goal_is_what_a_triton_computes_at_a_time(repository: Path) -> None:
    def goal(**options: Any) -> str:
        scalers = of_kind(render("kubernetes", DeployOptions(**options), repository), "HorizontalPodAutoscaler")
        [metric] = scalers["sie-triton-triton"]["spec"]["metrics"]
        return str(metric["external"]["target"]["averageValue"])

    assert goal() == str(512 * 2)  # the run and the streams of the repository's model
    assert goal(queued_tokens=9000) == "9000"


def test_pods_go_slowly_and_come_fast(repository: Path) -> None:
    for scaler in of_kind(render("kubernetes", DeployOptions(), repository), "HorizontalPodAutoscaler").values():
        down, up = scaler["spec"]["behavior"]["scaleDown"], scaler["spec"]["behavior"]["scaleUp"]
        assert down["stabilizationWindowSeconds"] >= 300
        assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]
        assert up["stabilizationWindowSeconds"] == 0


def test_fixed_numbers_need_no_rules(repository: Path, tmp_path: Path) -> None:
    for autoscaler in ("keda", "none"):
        written = write_manifests(
            "kubernetes",
            repository,
            tmp_path / "out",
            DeployOptions(autoscaler=autoscaler),
        )
        assert "prometheus-adapter.yaml" not in {path.name for path in written}
