"""What to do with rendered files: the commands in their order, for whoever has just rendered them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sie_triton.deploy.adapter import FILE_NAME
from sie_triton.deploy.options import FILL_BY_BUILDING, Deployment
from sie_triton.deploy.pods import FRONTEND_PORT
from sie_triton.deploy.policies import GRPC_CLIENT


def next_steps(deployment: Deployment, out: Path) -> list[str]:
    """Lines for people; each command can be pasted."""
    steps = [*_before(deployment), *_apply(deployment, out), *_after(deployment, out)]
    return ["", "next:", *(f"  {number}. {step}" for number, step in enumerate(steps, 1))]


def _before(deployment: Deployment) -> Iterator[str]:
    images = {deployment.frontend_image: "frontend", deployment.triton_image: "server"}
    if deployment.fill == FILL_BY_BUILDING:
        images[deployment.builder_image] = "builder"
    # What has no host in its name was built here and not pushed.
    for image, stage in images.items():
        if "/" not in image and (stage != "server" or deployment.engine == "embedded"):
            yield f"push `{image}` (docker build --target {stage}) to where the cluster pulls from, or load it there"
    kubectl = _kubectl(deployment)
    if deployment.namespace != "default":
        yield f"kubectl create namespace {deployment.namespace}"
    for secret in deployment.image_pull_secret:
        yield f"kubectl {kubectl}create secret docker-registry {secret} --docker-server=… --docker-username=…"
    if deployment.credentials_secret:
        yield f"kubectl {kubectl}create secret generic {deployment.credentials_secret} --from-env-file=credentials.env"
    if deployment.api_keys_secret:
        yield f"kubectl {kubectl}create secret generic {deployment.api_keys_secret} --from-file=keys.txt"
    for certificate in (deployment.tls_secret, deployment.ingress_tls_secret):
        if certificate:
            yield f"kubectl {kubectl}create secret tls {certificate} --cert=tls.crt --key=tls.key"


def _apply(deployment: Deployment, out: Path) -> Iterator[str]:
    kubectl = _kubectl(deployment)
    yield f"kubectl apply -k {out} --dry-run=server   # changes nothing, and says what the cluster would refuse"
    yield f"kubectl apply -k {out}"
    if deployment.fill:
        yield (
            f"kubectl {kubectl}wait --for=condition=complete --timeout=1h job "
            f"-l app.kubernetes.io/instance={deployment.name},app.kubernetes.io/component=fill"
        )
    elif deployment.own_claim:
        yield f"fill the claim `{deployment.source.host}`: docs/kubernetes.md says how; pods wait for it"
    if deployment.kind == "kserve":
        yield f"kubectl {kubectl}wait --for=condition=Ready --timeout=30m inferenceservice/{deployment.name}"
    else:
        yield f"kubectl {kubectl}rollout status deployment/{deployment.frontends} --timeout=30m"


def _after(deployment: Deployment, out: Path) -> Iterator[str]:
    kubectl = _kubectl(deployment)
    service, port = (
        (deployment.frontends, 80) if deployment.kind == "kserve" else (f"{deployment.name}-frontend", FRONTEND_PORT)
    )
    yield f"kubectl {kubectl}port-forward service/{service} {FRONTEND_PORT}:{port}"
    scheme = "https" if deployment.tls_secret else "http"
    key = ' -H "Authorization: Bearer $(cat search.key)"' if deployment.api_keys_secret else ""
    yield f"curl {scheme}://localhost:{FRONTEND_PORT}/v1/models{key}"
    if deployment.autoscaler == "hpa":
        yield f"give the rules of `{out / FILE_NAME}` to prometheus-adapter, once for a cluster: docs/kubernetes.md"
    if deployment.grpc:
        yield f"label the pods that may call gRPC: {GRPC_CLIENT}={deployment.name}"


def _kubectl(deployment: Deployment) -> str:
    return "" if deployment.namespace == "default" else f"-n {deployment.namespace} "
