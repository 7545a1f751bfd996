"""KServe: an InferenceService in Standard mode with a Triton runtime of its own, and our frontends in front of it.

The cluster's own `kserve-tritonserver` runtime is not used: its image may be older than a repository needs, it
lets anybody load models, and its CPU and memory are fixed. KServe's storage initializer fetches the
repository for Triton; the frontends read manifest and tokenizers from where it came from.
"""

from __future__ import annotations

from typing import Any

from sie_frontend.manifest import Manifest

from sie_triton.deploy.autoscaling import frontend_autoscaler, triton_autoscaler
from sie_triton.deploy.kubernetes import Files, frontend, network_policies, storage, triton_service, with_kustomization
from sie_triton.deploy.options import Deployment
from sie_triton.deploy.pods import (
    METRICS_PORT,
    TRITON_ENVIRONMENT,
    container_security,
    environment,
    metadata,
    pod_security,
    triton_arguments,
    triton_probes,
    triton_resources,
)
from sie_triton.deploy.sizing import MIB, RepositorySize, quantity, triton_needs

Object = dict[str, Any]

# Where KServe puts the model, and the port on which it expects the server.
_MODELS = "/mnt/models"
_PORT = 8080


def render_kserve(manifest: Manifest, size: RepositorySize, deployment: Deployment) -> Files:
    """The objects by file. `deployment.engine` must be `nvidia`: KServe brings models to a tritonserver of its own."""
    predictor = f"{deployment.name}-predictor"
    selector = {"serving.kserve.io/inferenceservice": deployment.name, "component": "predictor"}
    return with_kustomization(
        deployment,
        {
            "storage.yaml": storage(deployment, size),
            "serving-runtime.yaml": [_runtime(deployment, size)],
            "inference-service.yaml": [
                _inference_service(deployment, size),
                # Whether KServe's own service is headless differs between its versions.
                triton_service(deployment, selector, {"http": _PORT}),
            ],
            "frontend.yaml": frontend(deployment, manifest, size, _PORT),
            "network-policy.yaml": network_policies(deployment, selector, _PORT),
            "autoscaling.yaml": [*triton_autoscaler(deployment, predictor), *frontend_autoscaler(deployment)],
        },
    )


def _runtime(deployment: Deployment, size: RepositorySize) -> Object:
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
                    "name": "kserve-container",
                    "image": deployment.triton_image,
                    "args": triton_arguments(deployment, path=_MODELS, port=_PORT),
                    "env": environment(TRITON_ENVIRONMENT),
                    "ports": [{"containerPort": _PORT, "protocol": "TCP"}],
                    **triton_probes(size, _PORT),
                    "resources": triton_resources(deployment, triton_needs(size, deployment)),
                    "securityContext": container_security(),
                    "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
                }
            ],
            "volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": quantity(128 * MIB)}}],
        },
    }


def _inference_service(deployment: Deployment, size: RepositorySize) -> Object:
    spec: Object = {
        "minReplicas": deployment.triton_replicas,
        "maxReplicas": deployment.triton_max_replicas,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "model": {
            "modelFormat": {"name": "triton", "version": "2"},
            "runtime": f"{deployment.name}-triton",
            "protocolVersion": "v2",
            "storageUri": deployment.source.uri,
            "resources": triton_resources(deployment, triton_needs(size, deployment)),
        },
    }
    if deployment.service_account:
        spec["serviceAccountName"] = deployment.service_account
    if deployment.autoscaler == "none":
        spec["maxReplicas"] = deployment.triton_replicas
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            **metadata(deployment, "triton"),
            "name": deployment.name,
            "annotations": {
                "serving.kserve.io/deploymentMode": "Standard",
                # KServe's own HPA knows CPU and memory only: what scales the predictor is in autoscaling.yaml.
                "serving.kserve.io/autoscalerClass": "external",
                "serving.kserve.io/enable-prometheus-scraping": "true",
            },
        },
        "spec": {"predictor": spec},
    }
