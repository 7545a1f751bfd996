"""Pods that speak SIE's contract: a frontend process, with a Triton of its own where models are loaded on demand."""

from __future__ import annotations

from typing import Any

from sie_frontend.manifest import Manifest

from sie_triton.deploy.filling import waiting
from sie_triton.deploy.options import Deployment
from sie_triton.deploy.pods import (
    ADMIN_PORT,
    DRAIN_SECONDS,
    FRONTEND_PORT,
    GRACE_SECONDS,
    HTTP_PORT,
    LEAVE_SECONDS,
    METRICS_PORT,
    PROBE_SECONDS,
    container_security,
    environment,
    pod_annotations,
    pod_labels,
    pod_spec,
    probe,
    repository_path,
    resources,
    see_repository,
)
from sie_triton.deploy.servers import (
    TRITON_ENVIRONMENT,
    share_memory,
    triton_arguments,
    triton_resources,
    triton_scratch,
)
from sie_triton.deploy.sizing import (
    MIB,
    RepositorySize,
    both_needs,
    frontend_needs,
    on_demand_needs,
    quantity,
    start_seconds,
)

Object = dict[str, Any]

_KEYS = "/etc/sie-triton/keys"
_TLS = "/etc/sie-triton/tls"
# A pod with both ends its Triton when the frontend is done.
_END_OF_BOTH = 15


def frontend_pod(deployment: Deployment, manifest: Manifest, size: RepositorySize, triton_port: int) -> Object:
    """Template of a pod with one frontend process; `triton_port` is the one on which the Triton pods listen.

    Where models are loaded on demand, the pod has a Triton of its own.
    """
    if deployment.together:
        return _together(deployment, manifest, size)
    container = frontend_container(deployment, size, f"dns://{deployment.name}-triton:{triton_port}")
    # There are about as many frontends as Tritons, and each of them sends this much.
    container["env"] += environment({"SIE_TRITON_KEEP_BUSY": "1"})
    volumes = [frontend_scratch(deployment, size)]
    _hold_secrets(deployment, container, volumes)
    see_repository(deployment, [container], volumes)
    return _template(deployment, manifest, [container], volumes)


def frontend_container(deployment: Deployment, size: RepositorySize, triton_url: str) -> Object:
    """The container of a frontend in front of the Tritons at `triton_url`. What it mounts beyond `/tmp` is left out."""
    scheme = "HTTPS" if deployment.tls_secret else "HTTP"
    container: Object = {
        "name": "frontend",
        "image": deployment.frontend_image,
        "env": environment(frontend_settings(deployment, triton_url)),
        "ports": [{"name": "http", "containerPort": FRONTEND_PORT}],
        # `livez` says that the process answers; `readyz` also that every model does. A Triton that is away must take
        # a frontend out of its service, not restart it.
        "startupProbe": probe("/livez", FRONTEND_PORT, failures=60, period=2, scheme=scheme),
        "readinessProbe": probe("/readyz", FRONTEND_PORT, failures=2, period=2, scheme=scheme),
        "livenessProbe": probe("/livez", FRONTEND_PORT, failures=6, period=10, scheme=scheme),
        "resources": resources(frontend_needs(size)),
        "securityContext": container_security(),
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
    }
    return container


def frontend_settings(deployment: Deployment, triton_url: str | None) -> dict[str, str]:
    """The frontend's variables, but for what depends on the number of Tritons; None is a Triton of its own."""
    settings = {"SIE_TRITON_REPOSITORY": repository_path(deployment)}
    if triton_url:
        settings["SIE_TRITON_TRITON_URL"] = triton_url
    settings |= {
        "SIE_TRITON_HOST": "0.0.0.0",
        "SIE_TRITON_PORT": str(FRONTEND_PORT),
        "SIE_TRITON_DEVICE": deployment.device,
        "SIE_TRITON_DRAIN_DELAY_S": str(LEAVE_SECONDS),
        "SIE_TRITON_SHUTDOWN_GRACE_S": str(DRAIN_SECONDS),
        "SIE_TRITON_LOG_FORMAT": "json",
    }
    if deployment.api_keys_secret:
        settings["SIE_TRITON_API_KEYS_FILE"] = f"{_KEYS}/keys.txt"
    if deployment.tls_secret:
        settings["SIE_TRITON_TLS_CERTIFICATE"] = f"{_TLS}/tls.crt"
        settings["SIE_TRITON_TLS_KEY"] = f"{_TLS}/tls.key"
    if metrics_port_of(deployment) == ADMIN_PORT:
        settings["SIE_TRITON_ADMIN_HOST"] = "0.0.0.0"
        settings["SIE_TRITON_ADMIN_PORT"] = str(ADMIN_PORT)
    if deployment.on_demand:
        settings |= _loading(deployment)
    return settings


def _loading(deployment: Deployment) -> dict[str, str]:
    settings = {"SIE_TRITON_LOAD": "on-demand"}
    if deployment.memory_budget is not None:
        settings["SIE_TRITON_MEMORY_BUDGET"] = deployment.memory_budget
    if deployment.preload:
        settings["SIE_TRITON_PRELOAD"] = ",".join(deployment.preload)
    if deployment.pin:
        settings["SIE_TRITON_PIN"] = ",".join(deployment.pin)
    if deployment.idle_evict_s is not None:
        settings["SIE_TRITON_IDLE_EVICT_S"] = f"{deployment.idle_evict_s:g}"
    return settings


def metrics_port_of(deployment: Deployment) -> int:
    """The port of a frontend's metrics: one of its own where the API's port asks for a key or speaks TLS."""
    return ADMIN_PORT if deployment.api_keys_secret or deployment.tls_secret else FRONTEND_PORT


def frontend_scratch(deployment: Deployment, size: RepositorySize) -> Object:
    """The volume of temporary files: a frontend copies manifest and tokenizers from an object store there."""
    room = 128 * MIB if deployment.source.is_claim else 128 * MIB + size.tokenizer_bytes * 5 // 4
    return {"name": "scratch", "emptyDir": {"sizeLimit": quantity(room)}}


def _hold_secrets(deployment: Deployment, container: Object, volumes: list[Object]) -> None:
    # The whole folder, which follows the Secret: a single file would stay as it was.
    for name, path, secret in (("keys", _KEYS, deployment.api_keys_secret), ("tls", _TLS, deployment.tls_secret)):
        if secret:
            container["volumeMounts"].append({"name": name, "mountPath": path, "readOnly": True})
            volumes.append({"name": name, "secret": {"secretName": secret}})
    if metrics_port_of(deployment) == ADMIN_PORT:
        container["ports"].append({"name": "admin", "containerPort": ADMIN_PORT})


def _template(
    deployment: Deployment,
    manifest: Manifest,
    containers: list[Object],
    volumes: list[Object],
    first: tuple[Object, ...] = (),
    grace: int = GRACE_SECONDS,
) -> Object:
    image = containers[0]["image"]
    first = (*waiting(deployment, manifest, image), *first)
    return {
        "metadata": {
            "labels": pod_labels(deployment, "frontend"),
            "annotations": pod_annotations(manifest, metrics_port_of(deployment)),
        },
        "spec": pod_spec(deployment, "frontend", containers, volumes, first, grace=grace),
    }


def _together(deployment: Deployment, manifest: Manifest, size: RepositorySize) -> Object:
    """Both in one pod. What the pod reserves is the budget, or every model where there is none."""
    needs = on_demand_needs(size, deployment)
    embedded = deployment.engine == "embedded"
    container = frontend_container(deployment, size, f"127.0.0.1:{HTTP_PORT}")
    volumes = [triton_scratch(deployment, size)]
    first: tuple[Object, ...] = ()
    if embedded:
        container["image"] = deployment.triton_image
        container["args"] = ["serve", "--log-dir=/tmp/log"]
        container["env"] = environment({**frontend_settings(deployment, None), **TRITON_ENVIRONMENT})
        container["resources"] = triton_resources(deployment, both_needs(needs, frontend_needs(size)))
        share_memory(container, volumes, needs)
        see_repository(deployment, [container], volumes)
    else:
        triton = _sidecar(deployment, size)
        triton["resources"] = triton_resources(deployment, needs)
        first = (triton,)
        see_repository(deployment, [triton, container], volumes)
    _hold_secrets(deployment, container, volumes)
    return _template(deployment, manifest, [container], volumes, first, GRACE_SECONDS + _END_OF_BOTH)


def _sidecar(deployment: Deployment, size: RepositorySize) -> Object:
    """NVIDIA's Triton beside the frontend: it starts before it and ends after it, and listens to nobody else."""
    asks = (
        "import sys, urllib.request as r; "
        f"r.urlopen('http://127.0.0.1:{HTTP_PORT}/v2/health/' + sys.argv[1], timeout={PROBE_SECONDS - 2})"
    )

    def probing(word: str, failures: int, period: int) -> Object:
        return {
            "exec": {"command": ["python3", "-c", asks, word]},
            "periodSeconds": period,
            "timeoutSeconds": PROBE_SECONDS,
            "failureThreshold": failures,
        }

    return {
        "name": "triton",
        "image": deployment.triton_image,
        "restartPolicy": "Always",
        "args": triton_arguments(deployment),
        "env": environment(TRITON_ENVIRONMENT),
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT}],
        "startupProbe": probing("live", -(-start_seconds(size) // PROBE_SECONDS), PROBE_SECONDS),
        "livenessProbe": probing("live", 6, 10),
        "securityContext": container_security(),
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
    }
