"""`serve`, `triton` and `up`: the commands that run until they are stopped."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from sie_triton.cli.build import build_options, graph_options, run_build
from sie_triton.cli.loading import IdleEvict, Load, MemoryBudget, Pin, Preload, loading_settings
from sie_triton.cli.models import wanted_models
from sie_triton.cli.options import (
    BOTH_DEVICES,
    DEFAULT_FORMAT_NAME,
    DEFAULT_LOG_DIR,
    DEFAULT_REPOSITORY,
    ApiKeysFile,
    BuiltRepository,
    Bundles,
    Device,
    Format,
    Host,
    Layout,
    LayoutName,
    LogDir,
    Models,
    Packing,
    Port,
    Precision,
    PrecisionName,
    SaveBundle,
    ServeDevice,
    ServedRepository,
    TrustRemoteCode,
    Weights,
)
from sie_triton.cli.printing import say
from sie_triton.cli.repositories import built_manifest, served_repository


def serve(
    repository: ServedRepository = str(DEFAULT_REPOSITORY),
    host: Host = "127.0.0.1",
    port: Port = 8080,
    device: Device = ServeDevice.auto,
    triton_url: Annotated[
        str | None,
        typer.Option(
            "--triton-url",
            envvar="SIE_TRITON_TRITON_URL",
            help="Use Tritons that already run: `host:port`, several joined by commas, or `dns://name:port` for every "
            "address of a name.",
        ),
    ] = None,
    api_keys_file: ApiKeysFile = None,
    load: Load = None,
    memory_budget: MemoryBudget = None,
    preload: Preload = [],  # noqa: B006 - typer copies the default
    pin: Pin = [],  # noqa: B006
    idle_evict_s: IdleEvict = None,
    log_dir: LogDir = DEFAULT_LOG_DIR,
) -> None:
    """Serve a built repository: tritonserver as a child process, the frontend in front of it."""
    from sie_frontend.storage import is_url

    from sie_triton.serving.following import followed
    from sie_triton.serving.serve import serve_repository

    location, manifest = served_repository(repository, embedded=triton_url is None)
    fetched = is_url(repository) and isinstance(location, Path)
    with followed(repository, Path(location), say) if fetched else contextlib.nullcontext():
        serve_repository(
            location,
            manifest,
            host=host,
            port=port,
            device=device.value,
            triton_url=triton_url,
            api_keys_file=api_keys_file,
            log_dir=log_dir,
            announce=say,
            **loading_settings(load, memory_budget, preload, pin, idle_evict_s),
        )


def triton(
    repository: ServedRepository = str(DEFAULT_REPOSITORY),
    host: Annotated[str, typer.Option(help="Address tritonserver listens on.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="Port of Triton's HTTP API.", min=1, max=65535)] = 8000,
    metrics_port: Annotated[int, typer.Option(help="Port of Triton's metrics.", min=1, max=65535)] = 8002,
    device: Device = ServeDevice.auto,
    log_dir: LogDir = DEFAULT_LOG_DIR,
) -> None:
    """Run the embedded tritonserver alone, for frontends elsewhere. Beyond loopback nobody may load models."""
    from sie_triton.serving.serve import serve_triton

    location, manifest = served_repository(repository, embedded=True)
    serve_triton(
        Path(location),
        manifest,
        host=host,
        http_port=http_port,
        metrics_port=metrics_port,
        device=device.value,
        log_dir=log_dir,
        announce=say,
    )


def up(
    model: Models,
    bundles: Bundles = None,
    weights: Weights = [],  # noqa: B006 - typer copies the default
    repository: BuiltRepository = DEFAULT_REPOSITORY,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    graph_format: Format = DEFAULT_FORMAT_NAME,
    layout: Layout = LayoutName.auto,
    packing: Packing = True,
    precision: Precision = PrecisionName.auto,
    device: Device = ServeDevice.auto,
    save_bundle: SaveBundle = None,
    trust_remote_code: TrustRemoteCode = False,
    api_keys_file: ApiKeysFile = None,
    load: Load = None,
    memory_budget: MemoryBudget = None,
    preload: Preload = [],  # noqa: B006 - typer copies the default
    pin: Pin = [],  # noqa: B006
    idle_evict_s: IdleEvict = None,
    log_dir: LogDir = DEFAULT_LOG_DIR,
) -> None:
    """Build what is missing, for CPU and CUDA, then serve it."""
    from sie_triton.cli.left_out import check_left_out
    from sie_triton.cli.targets import load_all
    from sie_triton.serving.machines import check_embedded_device
    from sie_triton.serving.serve import check_prerequisites, serve_repository

    wanted = wanted_models(model, weights)
    if os.environ.get("SIE_TRITON_TRITON_URL"):
        say("`up` starts a tritonserver of its own: `SIE_TRITON_TRITON_URL` has no effect; use `serve` instead")
    check_left_out(wanted, load_all(bundles), trust_remote_code=trust_remote_code)
    # Report a taken port, a missing tritonserver or a missing GPU before minutes of building.
    check_prerequisites(host, port, say)
    check_embedded_device(device.value, {graph_format.value})
    graphs = graph_options(graph_format, layout, packing, precision, BOTH_DEVICES)
    options = build_options(repository, wanted, graphs)
    run_build(wanted, bundles, replace(options, trust_remote_code=trust_remote_code), save_bundle=save_bundle)
    serve_repository(
        repository,
        built_manifest(repository),
        host=host,
        port=port,
        device=device.value,
        triton_url=None,
        api_keys_file=api_keys_file,
        log_dir=log_dir,
        announce=say,
        **loading_settings(load, memory_budget, preload, pin, idle_evict_s),
    )
