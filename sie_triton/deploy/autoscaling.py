"""Autoscaling by waiting requests.

There are two queues, and a signal for each. Items wait in the frontend, which sends Triton only what its instances
compute plus one run: `sie_frontend_pending_items` grows there. In Triton that one run waits as soon as all instances
are busy: `nv_inference_pending_request_count` is then near 1 and never far above, so its target lies below 1. More
frontends send more runs, more runs wait in Triton, and Triton scales in turn. Ensembles do not count their own requests
as pending (measured), so the sum over a pod's models counts each once.
"""

from __future__ import annotations

from typing import Any

from sie_triton.deploy.options import Deployment
from sie_triton.deploy.pods import PENDING_ITEMS, PENDING_REQUESTS, metadata

Object = dict[str, Any]

# Per pod, averaged over a minute.
TRITON_TARGET = 0.5
FRONTEND_TARGET = 128
_CPU_PERCENT = 75
_CALM_SECONDS = 300


def triton_autoscaler(deployment: Deployment, target: str) -> list[Object]:
    """The autoscaler of the Deployment `target` by requests that wait in Triton; empty for `none`."""
    if deployment.autoscaler == "none":
        return []
    replicas = (deployment.triton_replicas, deployment.triton_max_replicas)
    if deployment.autoscaler == "hpa":
        metrics = [_pods_metric(PENDING_REQUESTS, TRITON_TARGET)]
        return [_hpa(deployment, "triton", target, replicas, metrics)]
    trigger = prometheus_trigger(deployment, PENDING_REQUESTS, target, TRITON_TARGET)
    return [_scaled_object(deployment, "triton", target, replicas, [trigger])]


def frontend_autoscaler(deployment: Deployment) -> list[Object]:
    """The autoscaler of the frontends, by waiting items and by CPU, which tokenising uses; empty for `none`."""
    if deployment.autoscaler == "none":
        return []
    target = f"{deployment.name}-frontend"
    replicas = (deployment.frontend_replicas, deployment.frontend_max_replicas)
    if deployment.autoscaler == "hpa":
        cpu = {
            "type": "Resource",
            "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": _CPU_PERCENT}},
        }
        metrics = [_pods_metric(PENDING_ITEMS, FRONTEND_TARGET), cpu]
        return [_hpa(deployment, "frontend", target, replicas, metrics)]
    triggers = [
        prometheus_trigger(deployment, PENDING_ITEMS, target, FRONTEND_TARGET),
        {"type": "cpu", "metricType": "Utilization", "metadata": {"value": str(_CPU_PERCENT)}},
    ]
    return [_scaled_object(deployment, "frontend", target, replicas, triggers)]


def pending_query(deployment: Deployment, metric: str, target: str) -> str:
    """PromQL for the sum of `metric` over all pods of the Deployment `target`, averaged over a minute."""
    selector = f'namespace="{deployment.namespace}",pod=~"{target}-.+"'
    return f"sum(avg_over_time({metric}{{{selector}}}[1m]))"


def prometheus_trigger(deployment: Deployment, metric: str, target: str, threshold: float) -> Object:
    """A KEDA trigger; KEDA divides the query's value by the number of pods."""
    return {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": deployment.prometheus_url,
            "query": pending_query(deployment, metric, target),
            "threshold": f"{threshold:g}",
        },
    }


def _pods_metric(name: str, average: float) -> Object:
    value = str(int(average)) if average >= 1 else f"{round(average * 1000)}m"
    return {
        "type": "Pods",
        "pods": {"metric": {"name": name}, "target": {"type": "AverageValue", "averageValue": value}},
    }


def _behavior() -> Object:
    return {
        # Twice as many each minute: loading a model takes about that long, and before it the signal does not fall.
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 60}],
        },
        "scaleDown": {
            "stabilizationWindowSeconds": _CALM_SECONDS,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        },
    }


def _hpa(
    deployment: Deployment, component: str, target: str, replicas: tuple[int, int], metrics: list[Object]
) -> Object:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(deployment, component),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
            "minReplicas": replicas[0],
            "maxReplicas": replicas[1],
            "metrics": metrics,
            "behavior": _behavior(),
        },
    }


def _scaled_object(
    deployment: Deployment, component: str, target: str, replicas: tuple[int, int], triggers: list[Object]
) -> Object:
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata(deployment, component),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
            "minReplicaCount": replicas[0],
            "maxReplicaCount": replicas[1],
            "pollingInterval": 15,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior()}},
            "triggers": triggers,
        },
    }
