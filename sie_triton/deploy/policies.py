"""Who reaches whom: Triton is for frontends, metrics are for monitoring, nothing calls out but for the repository."""

from __future__ import annotations

from typing import Any

from sie_triton.deploy.options import FILL_BY_BUILDING, Deployment
from sie_triton.deploy.pods import (
    ADMIN_PORT,
    FRONTEND_PORT,
    GRPC_PORT,
    METRICS_PORT,
    metadata,
    pod_labels,
)

Object = dict[str, Any]

GRPC_CLIENT = "sie-triton/grpc-client"
"""The label of pods in the namespace that may reach Triton's gRPC; its value is the deployment's name."""

_NAMES: list[Object] = [{"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}]


def network_policies(deployment: Deployment, triton_port: int) -> list[Object]:
    """A policy for each kind of pod. A Triton that shares a pod with its frontend is reached by nobody else."""
    policies = [_frontend_policy(deployment, triton_port)]
    if not deployment.together:
        policies.insert(0, _triton_policy(deployment, triton_port))
    if deployment.fill:
        store = _store("s3" if deployment.fill == FILL_BY_BUILDING else deployment.fill.partition(":")[0])
        policies.append(_policy(deployment, "fill", [], [*_NAMES, *store]))
    return policies


def _triton_policy(deployment: Deployment, triton_port: int) -> Object:
    store = _object_store(deployment)
    ingress: list[Object] = [
        {
            "from": [{"podSelector": {"matchLabels": pod_labels(deployment, "frontend")}}],
            "ports": [_tcp(triton_port)],
        },
        {"from": [_monitoring(deployment)], "ports": [_tcp(METRICS_PORT)]},
    ]
    if deployment.grpc:
        clients = {"podSelector": {"matchLabels": {GRPC_CLIENT: deployment.name}}}
        ingress.append({"from": [clients], "ports": [_tcp(GRPC_PORT)]})
    return _policy(deployment, "triton", ingress, [*_NAMES, *store] if store else [])


def _frontend_policy(deployment: Deployment, triton_port: int) -> Object:
    ingress: list[Object] = [{"ports": [_tcp(FRONTEND_PORT)]}]
    if deployment.api_keys_secret or deployment.tls_secret:
        ingress.append({"from": [_monitoring(deployment)], "ports": [_tcp(ADMIN_PORT)]})
    store = _object_store(deployment)
    if deployment.together:
        if deployment.engine == "nvidia":
            ingress.append({"from": [_monitoring(deployment)], "ports": [_tcp(METRICS_PORT)]})
        return _policy(deployment, "frontend", ingress, [*_NAMES, *store] if store else [])
    to_triton = {
        "to": [{"podSelector": {"matchLabels": pod_labels(deployment, "triton")}}],
        "ports": [_tcp(triton_port)],
    }
    return _policy(deployment, "frontend", ingress, [to_triton, *_NAMES, *store])


def _monitoring(deployment: Deployment) -> Object:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": deployment.monitoring_namespace}}}


def _object_store(deployment: Deployment) -> list[Object]:
    return [] if deployment.source.is_claim else _store(deployment.source.scheme)


def _store(scheme: str) -> list[Object]:
    rules: list[Object] = [{"ports": [_tcp(443)]}]
    if scheme == "gs":
        # Where workload identity hands out its tokens.
        rules.append(
            {
                "to": [{"ipBlock": {"cidr": f"169.254.169.{host}/32"}} for host in (252, 254)],
                "ports": [_tcp(80), _tcp(988)],
            }
        )
    return rules


def _policy(deployment: Deployment, component: str, ingress: list[Object], egress: list[Object]) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(deployment, component),
        "spec": {
            "podSelector": {"matchLabels": pod_labels(deployment, component)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    }


def _tcp(port: int) -> Object:
    return {"protocol": "TCP", "port": port}
