"""The two pods of a deployment: their containers, users and probes.

Both satisfy the Pod Security Standard *restricted*. User 1000 is also the user of NVIDIA's image and of KServe's
runtime; a repository is published world-readable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from sie_frontend.manifest import Manifest, dump_manifest

from sie_triton.deploy.options import Deployment
from sie_triton.deploy.sizing import MIB, Needs, RepositorySize, frontend_needs, quantity, start_seconds, triton_needs

Object = dict[str, Any]

HTTP_PORT = 8000
METRICS_PORT = 8002
FRONTEND_PORT = 8080
# Where a frontend that asks for keys tells Prometheus its metrics.
ADMIN_PORT = 8081
PENDING_REQUESTS = "nv_inference_pending_request_count"
PENDING_ITEMS = "sie_frontend_pending_items"
# A claim is mounted whole: a build replaces the repository's folder, and a mount of that folder would keep the old.
MOUNT = "/models"
USER = 1000
_KEYS = "/etc/sie-triton/keys"
# The time in which others learn that a pod leaves. A frontend waits it out itself, since its own `/readyz` says so too;
# tritonserver would not, so that a hook delays its SIGTERM.
_LEAVE_SECONDS = 5
# The time in which what is in flight is finished.
_DRAIN_SECONDS = 30
_PROBE_SECONDS = 5


def labels(deployment: Deployment, component: str) -> dict[str, str]:
    """The labels by which services, policies and budgets find the pods of a component."""
    return {
        "app.kubernetes.io/name": "sie-triton",
        "app.kubernetes.io/instance": deployment.name,
        "app.kubernetes.io/component": component,
    }


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


# ONNX Runtime then writes no id of the machine and looks up no telemetry host.
TRITON_ENVIRONMENT = {"ORT_DISABLE_TELEMETRY": "1"}


def environment(variables: Mapping[str, str]) -> list[Object]:
    """Environment variables in the form of a container's `env` list."""
    return [{"name": name, "value": value} for name, value in variables.items()]


def triton_pod(deployment: Deployment, manifest: Manifest, size: RepositorySize) -> Object:
    """Template of a pod with one tritonserver that serves the whole repository."""
    needs = triton_needs(size, deployment)
    container: Object = {
        "name": "triton",
        "image": deployment.triton_image,
        "args": triton_arguments(deployment),
        "env": environment(TRITON_ENVIRONMENT),
        "ports": [{"name": "http", "containerPort": HTTP_PORT}, {"name": "metrics", "containerPort": METRICS_PORT}],
        **triton_probes(size, HTTP_PORT),
        "lifecycle": {"preStop": {"sleep": {"seconds": _LEAVE_SECONDS}}},
        "resources": triton_resources(deployment, needs),
        "securityContext": container_security(),
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
    }
    # tritonserver copies a repository from an object store here before it loads it.
    scratch = 128 * MIB if deployment.source.is_claim else 128 * MIB + size.repository_bytes * 5 // 4
    volumes: list[Object] = [{"name": "scratch", "emptyDir": {"sizeLimit": quantity(scratch)}}]
    if needs.shm:
        container["volumeMounts"].append({"name": "shm", "mountPath": "/dev/shm"})
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": quantity(needs.shm)}})
    return _pod(deployment, "triton", manifest, METRICS_PORT, container, volumes)


def frontend_pod(deployment: Deployment, manifest: Manifest, size: RepositorySize, triton_port: int) -> Object:
    """Template of a pod with one frontend process; `triton_port` is the one on which the Triton pods listen."""
    needs = frontend_needs(size)
    settings = {
        "SIE_TRITON_REPOSITORY": repository_path(deployment),
        # The service is headless: its name has the address of each pod, and the frontend chooses among them.
        "SIE_TRITON_TRITON_URL": f"dns://{deployment.name}-triton:{triton_port}",
        # There are about as many frontends as Tritons, and each of them sends this much.
        "SIE_TRITON_KEEP_BUSY": "1",
        "SIE_TRITON_HOST": "0.0.0.0",
        "SIE_TRITON_PORT": str(FRONTEND_PORT),
        "SIE_TRITON_DEVICE": deployment.device,
        "SIE_TRITON_DRAIN_DELAY_S": str(_LEAVE_SECONDS),
        "SIE_TRITON_SHUTDOWN_GRACE_S": str(_DRAIN_SECONDS),
        "SIE_TRITON_LOG_FORMAT": "json",
    }
    if deployment.api_keys_secret:
        settings |= {
            "SIE_TRITON_API_KEYS_FILE": f"{_KEYS}/keys.txt",
            "SIE_TRITON_ADMIN_HOST": "0.0.0.0",
            "SIE_TRITON_ADMIN_PORT": str(ADMIN_PORT),
        }
    container: Object = {
        "name": "frontend",
        "image": deployment.frontend_image,
        "env": environment(settings),
        "ports": [{"name": "http", "containerPort": FRONTEND_PORT}],
        # `livez` says that the process answers; `readyz` also that every model does. A Triton that is away must take
        # a frontend out of its service, not restart it.
        "startupProbe": _probe("/livez", FRONTEND_PORT, failures=60, period=2),
        "readinessProbe": _probe("/readyz", FRONTEND_PORT, failures=2, period=2),
        "livenessProbe": _probe("/livez", FRONTEND_PORT, failures=6, period=10),
        "resources": {
            "requests": {"cpu": str(needs.cpus), "memory": quantity(needs.memory)},
            "limits": {"memory": quantity(needs.memory_limit)},
        },
        "securityContext": container_security(),
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
    }
    # A frontend copies manifest and tokenizers from an object store here.
    scratch = 128 * MIB if deployment.source.is_claim else 128 * MIB + size.tokenizer_bytes * 5 // 4
    volumes: list[Object] = [{"name": "scratch", "emptyDir": {"sizeLimit": quantity(scratch)}}]
    if deployment.api_keys_secret:
        # The whole folder, which follows the Secret: a single file would stay as it was.
        container["volumeMounts"].append({"name": "keys", "mountPath": _KEYS, "readOnly": True})
        volumes.append({"name": "keys", "secret": {"secretName": deployment.api_keys_secret}})
        container["ports"].append({"name": "admin", "containerPort": ADMIN_PORT})
    return _pod(deployment, "frontend", manifest, metrics_port_of(deployment), container, volumes)


def metrics_port_of(deployment: Deployment) -> int:
    """The port of a frontend's metrics."""
    return ADMIN_PORT if deployment.api_keys_secret else FRONTEND_PORT


def triton_arguments(deployment: Deployment, *, path: str | None = None, port: int = HTTP_PORT) -> list[str]:
    """The arguments after the image's entry point; `path` overrides where `source` says that the repository is."""
    path = path or repository_path(deployment)
    if deployment.engine == "embedded":
        return [
            "triton",
            f"--repository={path}",
            "--host=0.0.0.0",
            f"--http-port={port}",
            f"--metrics-port={METRICS_PORT}",
            "--log-dir=/tmp/log",
        ]
    return [
        "tritonserver",
        f"--model-repository={path}",
        f"--model-config-name={deployment.device}",
        # Nobody may load a model of theirs through the port.
        "--model-control-mode=none",
        "--disable-auto-complete-config",
        "--exit-on-error=true",
        "--strict-readiness=true",
        f"--exit-timeout-secs={_DRAIN_SECONDS}",
        "--allow-grpc=false",
        f"--http-port={port}",
        f"--metrics-port={METRICS_PORT}",
    ]


def triton_probes(size: RepositorySize, port: int) -> Object:
    """Ready means that every model is loaded; the start may take as long as reading the repository does."""
    return {
        "startupProbe": _probe("/v2/health/ready", port, failures=-(-start_seconds(size) // _PROBE_SECONDS)),
        "readinessProbe": _probe("/v2/health/ready", port, failures=2),
        "livenessProbe": _probe("/v2/health/live", port, failures=6, period=10),
    }


def triton_resources(deployment: Deployment, needs: Needs) -> Object:
    """Requests and limits. There is no limit on CPU: the threads are counted already, and throttling costs latency."""
    requests: dict[str, str] = {"cpu": str(needs.cpus), "memory": quantity(needs.memory)}
    limits: dict[str, str] = {"memory": quantity(needs.memory_limit)}
    if deployment.device == "cuda":
        requests["nvidia.com/gpu"] = limits["nvidia.com/gpu"] = "1"
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


def _claim_volume(deployment: Deployment) -> Object:
    """The volume of the repository's claim, read-only."""
    return {
        "name": "repository",
        "persistentVolumeClaim": {"claimName": deployment.source.host, "readOnly": True},
    }


def _pod(
    deployment: Deployment,
    component: str,
    manifest: Manifest,
    metrics_port: int,
    container: Object,
    volumes: list[Object],
) -> Object:
    if deployment.source.is_claim:
        container["volumeMounts"].append({"name": "repository", "mountPath": MOUNT, "readOnly": True})
        volumes.append(_claim_volume(deployment))
    elif deployment.credentials_secret:
        container["envFrom"] = [{"secretRef": {"name": deployment.credentials_secret}}]
    spec: Object = {
        "automountServiceAccountToken": False,
        # Kubernetes would set SIE_TRITON_PORT and the like, after the names of services, to what no setting means.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _LEAVE_SECONDS + _DRAIN_SECONDS + 10,
        "securityContext": pod_security(),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels(deployment, component)},
            }
        ],
        "containers": [container],
        "volumes": volumes,
    }
    if deployment.service_account:
        spec["serviceAccountName"] = deployment.service_account
    return {
        "metadata": {
            "labels": labels(deployment, component),
            "annotations": {
                # A repository that was built anew rolls out when it is rendered anew.
                "sie-triton/manifest-sha256": hashlib.sha256(dump_manifest(manifest)).hexdigest(),
                "prometheus.io/scrape": "true",
                "prometheus.io/port": str(metrics_port),
                "prometheus.io/path": "/metrics",
            },
        },
        "spec": spec,
    }


def _probe(path: str, port: int, *, failures: int, period: int = _PROBE_SECONDS) -> Object:
    return {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": period,
        "timeoutSeconds": _PROBE_SECONDS,
        "failureThreshold": failures,
    }
