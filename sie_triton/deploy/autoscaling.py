"""Autoscaling by tokens that are not computed yet, wherever they wait.

A frontend sends Triton only what its instances compute plus one run; the rest waits in the frontend.
`sie_frontend_queued_tokens` counts both. The sum over all frontends, divided by what one Triton computes at a time,
says how many Tritons there is work for: it is below their number while some are idle, and above it as soon as anything
waits. So it is a measure of load as well as of a queue, and does not fall to nothing as soon as the queue is gone. One
frontend keeps one Triton busy: frontends follow the same number, and `sie_frontend_pending_items` for what is still
being read. CPU is no signal: a Triton with work uses all of it, whether one run waits or a thousand.
"""

from __future__ import annotations

from typing import Any

from sie_frontend.manifest import Manifest

from sie_triton.deploy.options import Deployment, Device
from sie_triton.deploy.pods import metadata

Object = dict[str, Any]

QUEUED_TOKENS = "sie_frontend_queued_tokens"
PENDING_ITEMS = "sie_frontend_pending_items"
PENDING_TARGET = 512
_RUN_TOKENS = 512
_CALM_SECONDS = 300
# Adapters and scalers look at the last minute.
WINDOW = "1m"


def autoscalers(deployment: Deployment, manifest: Manifest) -> list[Object]:
    """The autoscalers of the pods that compute and of the frontends; empty for `none`."""
    if deployment.autoscaler == "none":
        return []
    target = queue_target(deployment, manifest)
    made = _hpa if deployment.autoscaler == "hpa" else _scaled_object
    of_frontends = (deployment.frontend_replicas, deployment.frontend_max_replicas)
    of_tritons = (deployment.triton_replicas, deployment.triton_max_replicas)
    if deployment.together:
        return [made(deployment, "frontend", deployment.frontends, of_tritons, {QUEUED_TOKENS: target})]
    return [
        made(deployment, "triton", deployment.tritons, of_tritons, {external_metric(deployment): target}),
        made(
            deployment,
            "frontend",
            deployment.frontends,
            of_frontends,
            {QUEUED_TOKENS: target, PENDING_ITEMS: PENDING_TARGET},
        ),
    ]


def queue_target(deployment: Deployment, manifest: Manifest) -> int:
    """Tokens in hand for each Triton: what was asked for, or what its largest model computes at a time."""
    if deployment.queued_tokens is not None:
        return deployment.queued_tokens
    return max(_tokens_at_once(manifest, deployment.device), default=_RUN_TOKENS)


def external_metric(deployment: Deployment) -> str:
    """What the metrics adapter calls the tokens in hand of all frontends of the deployment."""
    return f"{deployment.name.replace('-', '_')}_queued_tokens"


def queue_query(deployment: Deployment, metric: str = QUEUED_TOKENS) -> str:
    """PromQL for the sum of a frontends' metric over all of them, averaged over the window."""
    selector = f'namespace="{deployment.namespace}",pod=~"{deployment.frontends}-.+"'
    return f"sum(avg_over_time({metric}{{{selector}}}[{WINDOW}]))"


def _tokens_at_once(manifest: Manifest, device: Device) -> list[int]:
    entries = (entry for model in manifest.models.values() for entry in model.inputs.values())
    batchings = [entry.batching[device] for entry in entries if device in entry.batching]
    return [batching.run_tokens * batching.streams for batching in batchings]


def _behavior() -> Object:
    return {
        # Twice as many each minute: loading a model takes about that long, and before it the signal does not fall.
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 60}],
        },
        # Only what was needed at no moment of the last minutes goes, and one pod at a time.
        "scaleDown": {
            "stabilizationWindowSeconds": _CALM_SECONDS,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        },
    }


def _hpa_metric(name: str, average: int) -> Object:
    """A metric of the target's own pods, or one of the whole deployment that the API divides by their number."""
    goal = {"type": "AverageValue", "averageValue": str(average)}
    if name in (QUEUED_TOKENS, PENDING_ITEMS):
        return {"type": "Pods", "pods": {"metric": {"name": name}, "target": goal}}
    return {"type": "External", "external": {"metric": {"name": name}, "target": goal}}


def _hpa(
    deployment: Deployment, component: str, target: str, replicas: tuple[int, int], goals: dict[str, int]
) -> Object:
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(deployment, component),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target},
            "minReplicas": replicas[0],
            "maxReplicas": replicas[1],
            "metrics": [_hpa_metric(name, average) for name, average in goals.items()],
            "behavior": _behavior(),
        },
    }


def _trigger(deployment: Deployment, name: str, threshold: int) -> Object:
    """A KEDA trigger; KEDA divides the query's value by the number of pods."""
    metric = name if name in (QUEUED_TOKENS, PENDING_ITEMS) else QUEUED_TOKENS
    return {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": deployment.prometheus_url,
            "query": queue_query(deployment, metric),
            "threshold": str(threshold),
        },
    }


def _scaled_object(
    deployment: Deployment, component: str, target: str, replicas: tuple[int, int], goals: dict[str, int]
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
            "triggers": [_trigger(deployment, name, threshold) for name, threshold in goals.items()],
        },
    }
