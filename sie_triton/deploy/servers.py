"""Pods that compute: a tritonserver, NVIDIA's or the embedded one, with every model loaded."""

from __future__ import annotations

from typing import Any

from sie_frontend.manifest import Manifest

from sie_triton.deploy.filling import waiting
from sie_triton.deploy.options import Deployment
from sie_triton.deploy.pods import (
    DRAIN_SECONDS,
    GRPC_PORT,
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
from sie_triton.deploy.sizing import MIB, Needs, RepositorySize, quantity, start_seconds, triton_needs

Object = dict[str, Any]

# Who may load models is in the same pod. Metrics would be where HTTP is, and a thread that loads a model answers
# nothing else meanwhile.
_ALONE = ["--http-address=127.0.0.1", "--metrics-address=0.0.0.0", "--http-thread-count=64"]
# ONNX Runtime then writes no id of the machine and looks up no telemetry host.
TRITON_ENVIRONMENT = {"ORT_DISABLE_TELEMETRY": "1"}


def triton_pod(deployment: Deployment, manifest: Manifest, size: RepositorySize) -> Object:
    """Template of a pod with one tritonserver that serves the whole repository."""
    needs = triton_needs(size, deployment)
    ports = {"http": HTTP_PORT, **({"grpc": GRPC_PORT} if deployment.grpc else {}), "metrics": METRICS_PORT}
    container: Object = {
        "name": "triton",
        "image": deployment.triton_image,
        "args": triton_arguments(deployment),
        "env": environment(TRITON_ENVIRONMENT),
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        **triton_probes(size, HTTP_PORT),
        "lifecycle": late_end(),
        "resources": triton_resources(deployment, needs),
        "securityContext": container_security(),
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
    }
    volumes: list[Object] = [triton_scratch(deployment, size)]
    share_memory(container, volumes, needs)
    see_repository(deployment, [container], volumes)
    return {
        "metadata": {
            "labels": pod_labels(deployment, "triton"),
            "annotations": pod_annotations(manifest, METRICS_PORT),
        },
        "spec": pod_spec(
            deployment, "triton", [container], volumes, waiting(deployment, manifest, deployment.triton_image)
        ),
    }


def late_end() -> Object:
    """The hook that delays SIGTERM until others know that the pod leaves."""
    return {"preStop": {"sleep": {"seconds": LEAVE_SECONDS}}}


def triton_scratch(deployment: Deployment, size: RepositorySize) -> Object:
    """The volume of temporary files: tritonserver copies a repository from an object store there before loading it."""
    room = 128 * MIB if deployment.source.is_claim else 128 * MIB + size.repository_bytes * 5 // 4
    return {"name": "scratch", "emptyDir": {"sizeLimit": quantity(room)}}


def share_memory(container: Object, volumes: list[Object], needs: Needs) -> None:
    """Room for the tensors that the embedded server hands to its models' processes."""
    if needs.shm:
        container["volumeMounts"].append({"name": "shm", "mountPath": "/dev/shm"})
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": quantity(needs.shm)}})


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
        # Nobody may load a model of theirs through the port, unless the port is for the same pod alone.
        f"--model-control-mode={'explicit' if deployment.on_demand else 'none'}",
        "--disable-auto-complete-config",
        "--exit-on-error=true",
        # What is loaded on demand, or could not be, makes nothing else unready.
        f"--strict-readiness={'false' if deployment.on_demand else 'true'}",
        f"--exit-timeout-secs={DRAIN_SECONDS}",
        *([f"--grpc-port={GRPC_PORT}"] if deployment.grpc else ["--allow-grpc=false"]),
        f"--http-port={port}",
        *(_ALONE if deployment.on_demand else []),
        f"--metrics-port={METRICS_PORT}",
    ]


def triton_probes(size: RepositorySize, port: int) -> Object:
    """Ready means that every model is loaded; the start may take as long as reading the repository does."""
    return {
        "startupProbe": probe("/v2/health/ready", port, failures=-(-start_seconds(size) // PROBE_SECONDS)),
        "readinessProbe": probe("/v2/health/ready", port, failures=2),
        "livenessProbe": probe("/v2/health/live", port, failures=6, period=10),
    }


def triton_resources(deployment: Deployment, needs: Needs) -> Object:
    """Of a container with a tritonserver: one GPU where it computes on one."""
    return resources(needs, gpus=1 if deployment.device == "cuda" else 0)
