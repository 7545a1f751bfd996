"""Plain Kubernetes: a Deployment of tritonservers and a Deployment of frontends in front of them.

Where models are loaded on demand there is one Deployment, whose pods have both.
"""

from __future__ import annotations

from typing import Any

from sie_frontend.manifest import Manifest

from sie_triton.deploy.autoscaling import autoscalers
from sie_triton.deploy.entry import entries
from sie_triton.deploy.filling import filling
from sie_triton.deploy.frontends import frontend_pod
from sie_triton.deploy.options import Deployment
from sie_triton.deploy.pods import FRONTEND_PORT, GRPC_PORT, HTTP_PORT, METRICS_PORT, metadata, pod_labels
from sie_triton.deploy.policies import network_policies
from sie_triton.deploy.servers import triton_pod
from sie_triton.deploy.sizing import RepositorySize, claim_bytes, quantity

Object = dict[str, Any]
Files = dict[str, list[Object]]

# Longer than it takes until frontends ask a new Triton: they look its name up every two seconds, and servers of names
# remember an answer for five.
_KNOWN_SECONDS = 10
# One more pod at a time, and none less.
SURGE: Object = {"maxSurge": 1, "maxUnavailable": 0}


def render_kubernetes(manifest: Manifest, size: RepositorySize, deployment: Deployment) -> Files:
    """The objects by file. Files without objects are left out; `kustomization.yaml` names the others."""
    tritons: list[Object] = []
    if not deployment.together:
        grpc = {"grpc": GRPC_PORT} if deployment.grpc else {}
        tritons = [
            triton_deployment(deployment, manifest, size),
            triton_service(deployment, {"http": HTTP_PORT, **grpc, "metrics": METRICS_PORT}),
            budget(deployment, "triton"),
        ]
    return with_kustomization(
        deployment,
        {
            "storage.yaml": storage(deployment, size),
            "fill.yaml": filling(deployment, manifest, size),
            "triton.yaml": tritons,
            "frontend.yaml": frontend(deployment, manifest, size),
            "entry.yaml": entries(deployment),
            "network-policy.yaml": network_policies(deployment, HTTP_PORT),
            "autoscaling.yaml": autoscalers(deployment, manifest),
        },
    )


def with_kustomization(deployment: Deployment, files: Files) -> Files:
    """`files` without the empty ones, and what `kubectl apply -k` reads first."""
    files = {name: objects for name, objects in files.items() if objects}
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": deployment.namespace,
        "resources": list(files),
    }
    return {**files, "kustomization.yaml": [kustomization]}


def storage(deployment: Deployment, size: RepositorySize) -> list[Object]:
    """The claim; empty if the repository is in a claim that exists already, or in an object store."""
    if not deployment.own_claim:
        return []
    spec: Object = {
        "accessModes": [deployment.access_mode],
        "resources": {"requests": {"storage": quantity(claim_bytes(size))}},
    }
    if deployment.storage_class:
        spec["storageClassName"] = deployment.storage_class
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": metadata(deployment, "repository"),
            "spec": spec,
        }
    ]


def triton_surge(deployment: Deployment) -> Object:
    """How the pods that compute are exchanged: on GPUs the old one goes first, since there is seldom a spare GPU for
    the new, but never the last one.
    """
    spare = deployment.device == "cpu" or deployment.triton_replicas == 1
    return SURGE if spare else {"maxSurge": 0, "maxUnavailable": 1}


def triton_deployment(deployment: Deployment, manifest: Manifest, size: RepositorySize) -> Object:
    """The Deployment of tritonservers."""
    return _deployment(
        deployment,
        "triton",
        deployment.triton_replicas,
        triton_surge(deployment),
        triton_pod(deployment, manifest, size),
    )


def frontend(deployment: Deployment, manifest: Manifest, size: RepositorySize) -> list[Object]:
    """The frontends, their service and their budget."""
    together = deployment.together
    return [
        _deployment(
            deployment,
            "frontend",
            deployment.triton_replicas if together else deployment.frontend_replicas,
            triton_surge(deployment) if together else SURGE,
            frontend_pod(deployment, manifest, size, HTTP_PORT),
        ),
        _service(deployment, "frontend", {"http": FRONTEND_PORT}, "https" if deployment.tls_secret else "http"),
        budget(deployment, "frontend"),
    ]


def triton_service(deployment: Deployment, ports: dict[str, int]) -> Object:
    """`NAME-triton`, headless: its name resolves to every ready tritonserver, each listening on `ports`."""
    service = _service(deployment, "triton", ports)
    service["spec"] = {"clusterIP": "None", **service["spec"]}
    for port in service["spec"]["ports"]:
        # Nothing translates ports where there is no virtual address.
        port["targetPort"] = port["port"]
    return service


def budget(deployment: Deployment, component: str) -> Object:
    """At most one pod of a component leaves at a time where machines are emptied."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(deployment, component),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": pod_labels(deployment, component)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _deployment(deployment: Deployment, component: str, replicas: int, surge: Object, pod: Object) -> Object:
    spec: Object = {
        "selector": {"matchLabels": pod_labels(deployment, component)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": surge},
        "template": pod,
    }
    if component == "triton":
        spec = {"minReadySeconds": _KNOWN_SECONDS, **spec}
    if deployment.autoscaler == "none":
        # Otherwise applying the file again would undo what the autoscaler decided.
        spec["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(deployment, component),
        "spec": spec,
    }


def _service(deployment: Deployment, component: str, ports: dict[str, int], protocol: str = "http") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(deployment, component),
        "spec": {
            "type": "ClusterIP",
            "selector": pod_labels(deployment, component),
            "ports": [
                {
                    "name": name,
                    "port": port,
                    "targetPort": name,
                    "appProtocol": "kubernetes.io/h2c" if name == "grpc" else protocol,
                }
                for name, port in ports.items()
            ],
        },
    }
