"""KServe: an InferenceService in Standard mode whose address speaks SIE's contract.

Its *transformer* is the frontend: KServe routes the service's address to it. Its *predictor* is a Triton with a runtime
of its own, which only frontends reach. The cluster's own `kserve-tritonserver` runtime is not used: its image may be
older than a repository needs, it lets anybody load models, and its CPU and memory are fixed. KServe's storage
initializer fetches the repository for Triton; frontends read manifest and tokenizers from where it came from.
"""

from __future__ import annotations

from typing import Any

from sie_frontend.manifest import Manifest

from sie_triton.deploy.autoscaling import autoscalers
from sie_triton.deploy.entry import nginx_annotations
from sie_triton.deploy.filling import filling, waiting
from sie_triton.deploy.frontends import frontend_pod, metrics_port_of
from sie_triton.deploy.kubernetes import SURGE, Files, budget, storage, triton_service, triton_surge, with_kustomization
from sie_triton.deploy.options import Deployment
from sie_triton.deploy.pods import (
    GRPC_PORT,
    METRICS_PORT,
    container_security,
    environment,
    metadata,
    pod_annotations,
    pod_spec,
)
from sie_triton.deploy.policies import network_policies
from sie_triton.deploy.servers import TRITON_ENVIRONMENT, late_end, triton_arguments, triton_probes, triton_resources
from sie_triton.deploy.sizing import MIB, RepositorySize, quantity, triton_needs

Object = dict[str, Any]

# Where KServe puts the model, the port on which it expects the server, and the name that it gives a component's
# first container.
_MODELS = "/mnt/models"
_PORT = 8080
_CONTAINER = "kserve-container"


def render_kserve(manifest: Manifest, size: RepositorySize, deployment: Deployment) -> Files:
    """The objects by file. `deployment.engine` must be `nvidia`: KServe brings models to a tritonserver of its own."""
    grpc = {"grpc": GRPC_PORT} if deployment.grpc else {}
    return with_kustomization(
        deployment,
        {
            "storage.yaml": storage(deployment, size),
            "fill.yaml": filling(deployment, manifest, size),
            "serving-runtime.yaml": [_runtime(deployment, size)],
            "inference-service.yaml": [
                _inference_service(deployment, manifest, size),
                # Whether KServe's own service is headless differs between its versions.
                triton_service(deployment, {"http": _PORT, **grpc}),
                budget(deployment, "triton"),
                budget(deployment, "frontend"),
            ],
            "network-policy.yaml": network_policies(deployment, _PORT),
            "autoscaling.yaml": autoscalers(deployment, manifest),
        },
    )


def _runtime(deployment: Deployment, size: RepositorySize) -> Object:
    ports = [{"containerPort": _PORT, "protocol": "TCP"}]
    if deployment.grpc:
        ports.append({"containerPort": GRPC_PORT, "protocol": "TCP"})
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": metadata(deployment, "triton"),
        "spec": {
            "annotations": {
                "prometheus.kserve.io/port": str(METRICS_PORT),
                "prometheus.kserve.io/path": "/metrics",
            },
            "supportedModelFormats": [{"name": "triton", "version": "2"}],
            "protocolVersions": ["v2"],
            "containers": [
                {
                    "name": _CONTAINER,
                    "image": deployment.triton_image,
                    "args": triton_arguments(deployment, path=_MODELS, port=_PORT),
                    "env": environment(TRITON_ENVIRONMENT),
                    "ports": ports,
                    **triton_probes(size, _PORT),
                    "lifecycle": late_end(),
                    "resources": triton_resources(deployment, triton_needs(size, deployment)),
                    "securityContext": container_security(),
                    "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
                }
            ],
            "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": quantity(128 * MIB)}}],
        },
    }


def _inference_service(deployment: Deployment, manifest: Manifest, size: RepositorySize) -> Object:
    # External: what scales is in autoscaling.yaml, since KServe's own scaler knows CPU and memory only. None: KServe
    # keeps `minReplicas`.
    scaled = "none" if deployment.autoscaler == "none" else "external"
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            **metadata(deployment, "triton"),
            "name": deployment.name,
            "annotations": {
                "serving.kserve.io/deploymentMode": "Standard",
                "serving.kserve.io/autoscalerClass": scaled,
                "serving.kserve.io/enable-prometheus-scraping": "true",
                # KServe gives its Ingress the annotations of the InferenceService.
                **nginx_annotations(tls_behind=False),
            },
        },
        "spec": {
            "predictor": _predictor(deployment, manifest, size),
            "transformer": _transformer(deployment, manifest, size),
        },
    }


def _predictor(deployment: Deployment, manifest: Manifest, size: RepositorySize) -> Object:
    pod = pod_spec(deployment, "triton", [], [], _waiting_here(deployment, manifest))
    volumes = pod.pop("volumes")
    if "initContainers" in pod:
        volumes.append(
            {"name": "repository", "persistentVolumeClaim": {"claimName": deployment.source.host, "readOnly": True}}
        )
    del pod["containers"]
    return {
        **_scale(deployment, deployment.triton_replicas, deployment.triton_max_replicas),
        "annotations": {"sie-triton/manifest-sha256": pod_annotations(manifest, 0)["sie-triton/manifest-sha256"]},
        "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": triton_surge(deployment)},
        **pod,
        **({"volumes": volumes} if volumes else {}),
        "model": {
            "modelFormat": {"name": "triton", "version": "2"},
            "runtime": f"{deployment.name}-triton",
            "protocolVersion": "v2",
            "storageUri": deployment.source.uri,
            "resources": triton_resources(deployment, triton_needs(size, deployment)),
        },
    }


def _waiting_here(deployment: Deployment, manifest: Manifest) -> list[Object]:
    return waiting(deployment, manifest, deployment.triton_image)


def _transformer(deployment: Deployment, manifest: Manifest, size: RepositorySize) -> Object:
    """The frontend. KServe hands every transformer arguments of its own convention, which the shell swallows."""
    template = frontend_pod(deployment, manifest, size, _PORT)
    pod = template["spec"]
    [container] = pod["containers"]
    container["name"] = _CONTAINER
    container["command"] = ["sh", "-c", "exec sie-triton-frontend"]
    metrics = str(metrics_port_of(deployment))
    return {
        **_scale(deployment, deployment.frontend_replicas, deployment.frontend_max_replicas),
        "annotations": {
            **template["metadata"]["annotations"],
            "prometheus.kserve.io/port": metrics,
            "prometheus.kserve.io/path": "/metrics",
        },
        "deploymentStrategy": {"type": "RollingUpdate", "rollingUpdate": SURGE},
        **pod,
    }


def _scale(deployment: Deployment, fewest: int, most: int) -> Object:
    return {"minReplicas": fewest, "maxReplicas": fewest if deployment.autoscaler == "none" else most}
