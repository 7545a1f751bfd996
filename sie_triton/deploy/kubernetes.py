"""Plain Kubernetes: a Deployment of tritonservers and a Deployment of frontends in front of them."""

from __future__ import annotations

from typing import Any

from sie_frontend.manifest import Manifest

from sie_triton.deploy.autoscaling import frontend_autoscaler, triton_autoscaler
from sie_triton.deploy.options import Deployment
from sie_triton.deploy.pods import (
    ADMIN_PORT,
    FRONTEND_PORT,
    HTTP_PORT,
    METRICS_PORT,
    frontend_pod,
    labels,
    metadata,
    triton_pod,
)
from sie_triton.deploy.sizing import RepositorySize, claim_bytes, quantity

Object = dict[str, Any]
Files = dict[str, list[Object]]


def render_kubernetes(manifest: Manifest, size: RepositorySize, deployment: Deployment) -> Files:
    """The objects by file. Files without objects are left out; `kustomization.yaml` names the others."""
    return with_kustomization(
        deployment,
        {
            "storage.yaml": storage(deployment, size),
            "triton.yaml": [
                triton_deployment(deployment, manifest, size),
                triton_service(deployment, labels(deployment, "triton"), {"http": HTTP_PORT, "metrics": METRICS_PORT}),
                _budget(deployment, "triton"),
            ],
            "frontend.yaml": frontend(deployment, manifest, size, HTTP_PORT),
            "network-policy.yaml": network_policies(deployment, labels(deployment, "triton"), HTTP_PORT),
            "autoscaling.yaml": [
                *triton_autoscaler(deployment, f"{deployment.name}-triton"),
                *frontend_autoscaler(deployment),
            ],
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
        "accessModes": ["ReadWriteMany"],
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


def triton_deployment(deployment: Deployment, manifest: Manifest, size: RepositorySize) -> Object:
    """The Deployment of tritonservers. On GPUs the old pod stops first: there is seldom a spare GPU for the new."""
    surge = {"maxSurge": 1, "maxUnavailable": 0} if deployment.device == "cpu" else {"maxSurge": 0, "maxUnavailable": 1}
    return _deployment(deployment, "triton", deployment.triton_replicas, surge, triton_pod(deployment, manifest, size))


def frontend(deployment: Deployment, manifest: Manifest, size: RepositorySize, triton_port: int) -> list[Object]:
    """The frontends, their service and their budget: the same for plain Kubernetes and for KServe."""
    surge = {"maxSurge": 1, "maxUnavailable": 0}
    return [
        _deployment(
            deployment,
            "frontend",
            deployment.frontend_replicas,
            surge,
            frontend_pod(deployment, manifest, size, triton_port),
        ),
        _service(deployment, "frontend", labels(deployment, "frontend"), {"http": FRONTEND_PORT}),
        _budget(deployment, "frontend"),
    ]


def network_policies(deployment: Deployment, triton_labels: dict[str, str], triton_port: int) -> list[Object]:
    """Only frontends reach Triton, only monitoring reads its metrics, nothing calls out except for the repository."""
    monitoring = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": deployment.monitoring_namespace}}
    }
    from_frontend = {
        "from": [{"podSelector": {"matchLabels": labels(deployment, "frontend")}}],
        "ports": [_tcp(triton_port)],
    }
    from_monitoring = {"from": [monitoring], "ports": [_tcp(METRICS_PORT)]}
    to_triton = {"to": [{"podSelector": {"matchLabels": triton_labels}}], "ports": [_tcp(triton_port)]}
    store = _object_store(deployment)
    names = [{"ports": [_port("UDP", 53), _tcp(53)]}]
    return [
        _policy(
            deployment, "triton", triton_labels, [from_frontend, from_monitoring], [*names, *store] if store else []
        ),
        _policy(
            deployment,
            "frontend",
            labels(deployment, "frontend"),
            [
                {"ports": [_tcp(FRONTEND_PORT)]},
                *([{"from": [monitoring], "ports": [_tcp(ADMIN_PORT)]}] if deployment.api_keys_secret else []),
            ],
            [to_triton, *names, *store],
        ),
    ]


def triton_service(deployment: Deployment, selector: dict[str, str], ports: dict[str, int]) -> Object:
    """`NAME-triton`, headless: its name resolves to every ready tritonserver, each listening on `ports`."""
    service = _service(deployment, "triton", selector, ports)
    service["spec"] = {"clusterIP": "None", **service["spec"]}
    for port in service["spec"]["ports"]:
        # Nothing translates ports where there is no virtual address.
        port["targetPort"] = port["port"]
    return service


def _object_store(deployment: Deployment) -> list[Object]:
    if deployment.source.is_claim:
        return []
    rules = [{"ports": [_tcp(443)]}]
    if deployment.source.scheme == "gs":
        # Where workload identity hands out its tokens.
        rules.append(
            {
                "to": [{"ipBlock": {"cidr": f"169.254.169.{host}/32"}} for host in (252, 254)],
                "ports": [_tcp(80), _tcp(988)],
            }
        )
    return rules


def _deployment(deployment: Deployment, component: str, replicas: int, surge: Object, pod: Object) -> Object:
    spec: Object = {
        "selector": {"matchLabels": labels(deployment, component)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": surge},
        "template": pod,
    }
    if deployment.autoscaler == "none":
        # Otherwise applying the file again would undo what the autoscaler decided.
        spec["replicas"] = replicas
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(deployment, component),
        "spec": spec,
    }


def _service(deployment: Deployment, component: str, selector: dict[str, str], ports: dict[str, int]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(deployment, component),
        "spec": {
            "type": "ClusterIP",
            "selector": selector,
            "ports": [
                {"name": name, "port": port, "targetPort": name, "appProtocol": "http"} for name, port in ports.items()
            ],
        },
    }


def _budget(deployment: Deployment, component: str) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(deployment, component),
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": labels(deployment, component)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _policy(
    deployment: Deployment, component: str, pods: dict[str, str], ingress: list[Object], egress: list[Object]
) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(deployment, component),
        "spec": {
            "podSelector": {"matchLabels": pods},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    }


def _tcp(port: int) -> Object:
    return _port("TCP", port)


def _port(protocol: str, port: int) -> Object:
    return {"protocol": protocol, "port": port}
