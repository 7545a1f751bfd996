"""`deploy`: manifests for a cluster, from a built repository."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from sie_triton.cli.options import DEFAULT_REPOSITORY, DeviceName, Repository
from sie_triton.cli.printing import out


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


def deploy(
    kind: Annotated[DeployKind, typer.Argument(help="What to render for.")],
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder that the manifests are written to.")],
    repository: Repository = DEFAULT_REPOSITORY,
    name: Annotated[str, typer.Option(help="Prefix of every object's name.")] = "sie-triton",
    namespace: Annotated[str, typer.Option(help="Namespace of every object.")] = "default",
    source: Annotated[
        str | None, typer.Option(help="Where the pods find the repository: `pvc://`, `s3://` or `gs://`.")
    ] = None,
    device: Annotated[DeviceName, typer.Option(help="What Triton computes on.")] = DeviceName.cpu,
    engine: Annotated[
        DeployEngine | None,
        typer.Option(
            help="Whose tritonserver runs. Default: ours on the CPU from a claim, else NVIDIA's.", show_default=False
        ),
    ] = None,
    autoscaler: Annotated[DeployAutoscaler, typer.Option(help="What scales the pods.")] = DeployAutoscaler.hpa,
    triton_image: Annotated[str | None, typer.Option(help="Image of tritonserver. Default: by device.")] = None,
    frontend_image: Annotated[str | None, typer.Option(help="Image of the frontend.")] = None,
    storage_class: Annotated[str | None, typer.Option(help="Storage class of the claim.")] = None,
    service_account: Annotated[
        str | None, typer.Option(help="Service account of the pods, with rights on the object store.")
    ] = None,
    credentials_secret: Annotated[
        str | None, typer.Option(help="Secret whose keys become variables, such as `AWS_ACCESS_KEY_ID`.")
    ] = None,
    api_keys_secret: Annotated[
        str | None, typer.Option(help="Secret with a file of API keys under `keys.txt`. Default: no key is asked for.")
    ] = None,
    triton_replicas: Annotated[int | None, typer.Option(help="Fewest Tritons. Default: 2.")] = None,
    triton_max_replicas: Annotated[int | None, typer.Option(help="Most Tritons. Default: 8.")] = None,
    frontend_replicas: Annotated[int | None, typer.Option(help="Fewest frontends. Default: 2.")] = None,
    frontend_max_replicas: Annotated[int | None, typer.Option(help="Most frontends. Default: 8.")] = None,
    prometheus_url: Annotated[str | None, typer.Option(help="Where KEDA asks for metrics.")] = None,
    monitoring_namespace: Annotated[str | None, typer.Option(help="Namespace that may read Triton's metrics.")] = None,
) -> None:
    """Render Kubernetes or KServe manifests for a built repository."""
    from sie_triton.deploy import DeployOptions, write_manifests

    chosen: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "source": source,
        "device": device.value,
        "engine": engine.value if engine else None,
        "autoscaler": autoscaler.value,
        "triton_image": triton_image,
        "frontend_image": frontend_image,
        "storage_class": storage_class,
        "service_account": service_account,
        "credentials_secret": credentials_secret,
        "api_keys_secret": api_keys_secret,
        "triton_replicas": triton_replicas,
        "triton_max_replicas": triton_max_replicas,
        "frontend_replicas": frontend_replicas,
        "frontend_max_replicas": frontend_max_replicas,
        "prometheus_url": prometheus_url,
        "monitoring_namespace": monitoring_namespace,
    }
    options = DeployOptions(**{option: value for option, value in chosen.items() if value is not None})
    for path in write_manifests(kind.value, repository, out_dir, options):
        out.print(str(path), markup=False)
