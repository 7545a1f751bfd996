"""`deploy`: manifests for a cluster, from a built repository."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from sie_triton.cli.loading import LoadName
from sie_triton.cli.options import DEFAULT_REPOSITORY, DeviceName, Repository
from sie_triton.cli.printing import out, say


class DeployKind(str, Enum):
    """Kinds of cluster that manifests are rendered for."""

    kubernetes = "kubernetes"
    kserve = "kserve"


class DeployEngine(str, Enum):
    """Tritonservers that the pods may run: NVIDIA's container or our CPU image."""

    nvidia = "nvidia"
    embedded = "embedded"


class DeployAutoscaler(str, Enum):
    """Autoscalers that may scale the pods; `none` leaves the number of replicas alone."""

    hpa = "hpa"
    keda = "keda"
    none = "none"


class DeployAccess(str, Enum):
    """Who may mount a claim: pods on many machines, or on one."""

    many = "ReadWriteMany"
    once = "ReadWriteOnce"


def deploy(
    kind: Annotated[DeployKind, typer.Argument(help="What to render for.")],
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder that the manifests are written to.")],
    repository: Repository = DEFAULT_REPOSITORY,
    name: Annotated[str, typer.Option(help="Prefix of every object's name.")] = "sie-triton",
    namespace: Annotated[str, typer.Option(help="Namespace of every object.")] = "default",
    source: Annotated[
        str | None, typer.Option(help="Where the pods find the repository: `pvc://`, `s3://` or `gs://`.")
    ] = None,
    fill: Annotated[
        str | None,
        typer.Option(
            help="What a Job puts into the claim: `build` compiles the repository's models in the cluster; `s3://` or "
            "`gs://` is a built repository to copy."
        ),
    ] = None,
    storage_class: Annotated[str | None, typer.Option(help="Storage class of the claim.")] = None,
    access_mode: Annotated[DeployAccess, typer.Option(help="Who may mount the claim.")] = DeployAccess.many,
    device: Annotated[DeviceName, typer.Option(help="What Triton computes on.")] = DeviceName.cpu,
    engine: Annotated[
        DeployEngine | None,
        typer.Option(
            help="Whose tritonserver runs. Default: ours on the CPU from a claim, else NVIDIA's.", show_default=False
        ),
    ] = None,
    triton_image: Annotated[str | None, typer.Option(help="Image of tritonserver. Default: by device.")] = None,
    frontend_image: Annotated[str | None, typer.Option(help="Image of the frontend.")] = None,
    builder_image: Annotated[str | None, typer.Option(help="Image of the Job that fills the claim.")] = None,
    image_pull_secret: Annotated[list[str], typer.Option(help="Secret with which images are pulled. Repeatable.")] = [],  # noqa: B006 - typer copies the default
    node_selector: Annotated[
        list[str], typer.Option(help="`KEY=VALUE` of nodes for the pods that compute. Repeatable.")
    ] = [],  # noqa: B006
    toleration: Annotated[
        list[str], typer.Option(help="`KEY[=VALUE][:EFFECT]` of a taint that these pods tolerate. Repeatable.")
    ] = [],  # noqa: B006
    frontend_node_selector: Annotated[list[str], typer.Option(help="The same for frontends. Repeatable.")] = [],  # noqa: B006
    frontend_toleration: Annotated[list[str], typer.Option(help="The same for frontends. Repeatable.")] = [],  # noqa: B006
    service_account: Annotated[
        str | None, typer.Option(help="Service account of the pods, with rights on the object store.")
    ] = None,
    credentials_secret: Annotated[
        str | None, typer.Option(help="Secret whose keys become variables, such as `AWS_ACCESS_KEY_ID`.")
    ] = None,
    api_keys_secret: Annotated[
        str | None, typer.Option(help="Secret with a file of API keys under `keys.txt`. Default: no key is asked for.")
    ] = None,
    tls_secret: Annotated[
        str | None, typer.Option(help="Secret with the certificate of the frontends. Default: plain HTTP.")
    ] = None,
    ingress_host: Annotated[
        str | None, typer.Option(help="Host under which frontends are reached from outside. Default: not at all.")
    ] = None,
    ingress_class: Annotated[str | None, typer.Option(help="Class of the Ingress.")] = None,
    ingress_tls_secret: Annotated[str | None, typer.Option(help="Secret with the certificate of the Ingress.")] = None,
    gateway: Annotated[
        str | None, typer.Option(help="Gateway, `NAME` or `NAMESPACE/NAME`, for an HTTPRoute in place of an Ingress.")
    ] = None,
    grpc: Annotated[bool, typer.Option("--grpc", help="Offer Triton's gRPC to labelled pods.")] = False,
    load: Annotated[
        LoadName, typer.Option(help="When models are loaded: all at the start, or each when it is first asked for.")
    ] = LoadName.start,
    memory_budget: Annotated[
        str | None, typer.Option(help="What the loaded models of a pod may take together, such as `8GB`; on demand.")
    ] = None,
    preload: Annotated[list[str], typer.Option(help="Model id to load at the start, on demand. Repeatable.")] = [],  # noqa: B006
    pin: Annotated[
        list[str], typer.Option(help="Model id to load at the start and to keep, on demand. Repeatable.")
    ] = [],  # noqa: B006
    idle_evict_s: Annotated[
        float | None, typer.Option(help="Seconds without a request after which a model is unloaded, on demand.", min=0)
    ] = None,
    triton_replicas: Annotated[int | None, typer.Option(help="Fewest Tritons. Default: 2.")] = None,
    triton_max_replicas: Annotated[int | None, typer.Option(help="Most Tritons. Default: 8.")] = None,
    frontend_replicas: Annotated[int | None, typer.Option(help="Fewest frontends. Default: 2.")] = None,
    frontend_max_replicas: Annotated[int | None, typer.Option(help="Most frontends. Default: 8.")] = None,
    autoscaler: Annotated[DeployAutoscaler, typer.Option(help="What scales the pods.")] = DeployAutoscaler.hpa,
    queued_tokens: Annotated[
        int | None,
        typer.Option(
            help="Tokens in hand for each Triton, beyond which there are more. Default: what it computes at once."
        ),
    ] = None,
    prometheus_url: Annotated[str | None, typer.Option(help="Where KEDA asks for metrics.")] = None,
    monitoring_namespace: Annotated[str | None, typer.Option(help="Namespace that may read Triton's metrics.")] = None,
) -> None:
    """Render Kubernetes or KServe manifests for a built repository, and print what to do with them."""
    from sie_triton.deploy import DeployOptions, next_steps, write_manifests

    chosen: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "source": source,
        "fill": fill,
        "storage_class": storage_class,
        "access_mode": access_mode.value,
        "device": device.value,
        "engine": engine.value if engine else None,
        "triton_image": triton_image,
        "frontend_image": frontend_image,
        "builder_image": builder_image,
        "image_pull_secret": tuple(image_pull_secret),
        "node_selector": tuple(node_selector),
        "toleration": tuple(toleration),
        "frontend_node_selector": tuple(frontend_node_selector),
        "frontend_toleration": tuple(frontend_toleration),
        "service_account": service_account,
        "credentials_secret": credentials_secret,
        "api_keys_secret": api_keys_secret,
        "tls_secret": tls_secret,
        "ingress_host": ingress_host,
        "ingress_class": ingress_class,
        "ingress_tls_secret": ingress_tls_secret,
        "gateway": gateway,
        "grpc": grpc,
        "load": load.value,
        "memory_budget": memory_budget,
        "preload": tuple(preload),
        "pin": tuple(pin),
        "idle_evict_s": idle_evict_s,
        "triton_replicas": triton_replicas,
        "triton_max_replicas": triton_max_replicas,
        "frontend_replicas": frontend_replicas,
        "frontend_max_replicas": frontend_max_replicas,
        "autoscaler": autoscaler.value,
        "queued_tokens": queued_tokens,
        "prometheus_url": prometheus_url,
        "monitoring_namespace": monitoring_namespace,
    }
    options = DeployOptions(**{option: value for option, value in chosen.items() if value is not None})
    for path in write_manifests(kind.value, repository, out_dir, options):
        out.print(str(path), markup=False)
    for line in next_steps(options.checked(kind.value), out_dir):
        say(line)
