"""What every pod of a deployment has in common: its labels, its user, its volumes, and the time that it has to leave.

All satisfy the Pod Security Standard *restricted*. User 1000 is also the user of NVIDIA's image and of KServe's
runtime; a repository is published world-readable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from sie_frontend.manifest import Manifest, dump_manifest

from sie_triton.deploy.options import Deployment
from sie_triton.deploy.scheduling import placement, spread
from sie_triton.deploy.sizing import Needs

Object = dict[str, Any]

HTTP_PORT = 8000
GRPC_PORT = 8001
METRICS_PORT = 8002
FRONTEND_PORT = 8080
# Where a frontend that asks for keys, or speaks TLS, tells Prometheus its metrics.
ADMIN_PORT = 8081
# A claim is mounted whole: a build replaces the repository's folder, and a mount of that folder would keep the old.
MOUNT = "/models"
USER = 1000
# The time in which others learn that a pod leaves. A frontend waits it out itself, since its own `/readyz` says so too;
# tritonserver would not, so that a hook delays its SIGTERM.
LEAVE_SECONDS = 5
# The time in which what is in flight is finished.
DRAIN_SECONDS = 30
GRACE_SECONDS = LEAVE_SECONDS + DRAIN_SECONDS + 10
PROBE_SECONDS = 5


def labels(deployment: Deployment, component: str) -> dict[str, str]:
    """The labels of the objects of a component, and of its pods where they are ours."""
    return {
        "app.kubernetes.io/name": "sie-triton",
        "app.kubernetes.io/instance": deployment.name,
        "app.kubernetes.io/component": component,
    }


def pod_labels(deployment: Deployment, component: str) -> dict[str, str]:
    """The labels by which services, policies and budgets find the pods of a component; KServe gives its own."""
    kserve = {"frontend": "transformer", "triton": "predictor"}
    if deployment.kind == "kserve" and component in kserve:
        return {"serving.kserve.io/inferenceservice": deployment.name, "component": kserve[component]}
    return labels(deployment, component)


def metadata(deployment: Deployment, component: str, *, suffix: str | None = None) -> Object:
    """Metadata of an object `NAME-COMPONENT`, or `NAME-SUFFIX`."""
    return {
        "name": f"{deployment.name}-{suffix or component}",
        "namespace": deployment.namespace,
        "labels": labels(deployment, component),
    }


def repository_path(deployment: Deployment) -> str:
    """Where a pod finds the repository: a folder of the mounted claim, or the object store's URI."""
    source = deployment.source
    if not source.is_claim:
        return source.uri
    return f"{MOUNT}/{source.path}" if source.path else MOUNT


def environment(variables: Mapping[str, str]) -> list[Object]:
    """Environment variables in the form of a container's `env` list."""
    return [{"name": name, "value": value} for name, value in variables.items()]


def probe(path: str, port: int, *, failures: int, period: int = PROBE_SECONDS, scheme: str = "HTTP") -> Object:
    """A probe by HTTP; `scheme` is left out where it is the usual one."""
    asked: Object = {"path": path, "port": port}
    if scheme != "HTTP":
        asked["scheme"] = scheme
    return {
        "httpGet": asked,
        "periodSeconds": period,
        "timeoutSeconds": PROBE_SECONDS,
        "failureThreshold": failures,
    }


def resources(needs: Needs, *, gpus: int = 0) -> Object:
    """Requests and limits. There is no limit on CPU: the threads are counted already, and throttling costs latency."""
    requests: dict[str, str] = {"cpu": str(needs.cpus), "memory": needs.memory_quantity}
    limits: dict[str, str] = {"memory": needs.limit_quantity}
    if gpus:
        requests["nvidia.com/gpu"] = limits["nvidia.com/gpu"] = str(gpus)
    return {"requests": requests, "limits": limits}


def container_security() -> Object:
    """The `securityContext` of every container: no privileges, no capabilities, a read-only root file system."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def pod_security() -> Object:
    """The `securityContext` of every pod: the user and group of its containers."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def see_repository(deployment: Deployment, containers: Sequence[Object], volumes: list[Object]) -> None:
    """Let containers read the repository: mounted from its claim, or fetched with the credentials that were named."""
    if deployment.source.is_claim:
        for container in containers:
            container["volumeMounts"].append({"name": "repository", "mountPath": MOUNT, "readOnly": True})
        volumes.append(
            {
                "name": "repository",
                "persistentVolumeClaim": {"claimName": deployment.source.host, "readOnly": True},
            }
        )
    elif deployment.credentials_secret:
        for container in containers:
            container["envFrom"] = [{"secretRef": {"name": deployment.credentials_secret}}]


def pod_spec(
    deployment: Deployment,
    component: str,
    containers: list[Object],
    volumes: list[Object],
    first: Sequence[Object] = (),
    *,
    grace: int = GRACE_SECONDS,
) -> Object:
    """The specification of a pod of a component; `first` are the containers that start before the others."""
    computes = component != "frontend" or deployment.together
    spec: Object = {
        "automountServiceAccountToken": False,
        # Kubernetes would set SIE_TRITON_PORT and the like, after the names of services, to what no setting means.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace,
        "securityContext": pod_security(),
        "topologySpreadConstraints": spread(pod_labels(deployment, component)),
        **placement(
            deployment.node_selector if computes else deployment.frontend_node_selector,
            deployment.toleration if computes else deployment.frontend_toleration,
            deployment.image_pull_secret,
        ),
    }
    if first:
        spec["initContainers"] = list(first)
    spec |= {"containers": containers, "volumes": volumes}
    if deployment.service_account:
        spec["serviceAccountName"] = deployment.service_account
    return spec


def pod_annotations(manifest: Manifest, metrics_port: int) -> dict[str, str]:
    """What Prometheus looks for, and the manifest's hash, with which pods roll when the repository is another."""
    return {
        "sie-triton/manifest-sha256": manifest_hash(manifest),
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(metrics_port),
        "prometheus.io/path": "/metrics",
    }


def manifest_hash(manifest: Manifest) -> str:
    """The SHA-256 of a manifest."""
    return hashlib.sha256(dump_manifest(manifest)).hexdigest()
