"""Values for prometheus-adapter's chart: how the HorizontalPodAutoscalers' metrics come out of Prometheus.

It is no object of Kubernetes and is not applied with the others: the adapter serves the whole cluster.
"""

from __future__ import annotations

from typing import Any

from sie_triton.deploy.autoscaling import PENDING_ITEMS, QUEUED_TOKENS, WINDOW, external_metric, queue_query
from sie_triton.deploy.options import Deployment

Object = dict[str, Any]

FILE_NAME = "prometheus-adapter.yaml"


def adapter_values(deployment: Deployment) -> Object | None:
    """The rules; None where no HorizontalPodAutoscaler is rendered."""
    if deployment.autoscaler != "hpa":
        return None
    rules: Object = {"custom": [_of_pods(QUEUED_TOKENS)]}
    if not deployment.together:
        rules["custom"].append(_of_pods(PENDING_ITEMS))
        selector = f'namespace="{deployment.namespace}",pod=~"{deployment.frontends}-.+"'
        rules["external"] = [
            {
                "seriesQuery": f"{QUEUED_TOKENS}{{{selector}}}",
                "resources": {"overrides": {"namespace": {"resource": "namespace"}}},
                "name": {"as": external_metric(deployment)},
                "metricsQuery": queue_query(deployment),
            }
        ]
    return {"rules": rules}


def _of_pods(metric: str) -> Object:
    return {
        "seriesQuery": f'{metric}{{namespace!="",pod!=""}}',
        "resources": {"overrides": {"namespace": {"resource": "namespace"}, "pod": {"resource": "pod"}}},
        "name": {"as": metric},
        "metricsQuery": f"sum by (<<.GroupBy>>) (avg_over_time(<<.Series>>{{<<.LabelMatchers>>}}[{WINDOW}]))",
    }
