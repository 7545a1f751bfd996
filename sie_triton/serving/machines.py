"""The kind of machine that a repository is served on, whether it can be, and which configurations are read there."""

from __future__ import annotations

import http.client
import importlib.util
import json
import urllib.error
from collections.abc import Collection
from pathlib import Path

from sie_frontend.manifest import Manifest
from sie_frontend.triton.reach import DIRECT, first_address

from sie_triton.backends.embedded import CONFIG_NAME as EMBEDDED
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.embedded.cuda_options import accelerators
from sie_triton.serving.gpus import gpu_obstacle

RUNTIMES = {"onnx": ("onnxruntime", "cpu"), "torchscript": ("torch", "export")}
"""Format -> the package that computes it in the embedded server, and the extra that has it."""


def choose_machine(manifest: Manifest, device: str, repository: str | Path, triton_url: str | None = None) -> str:
    """The kind of machine to serve on: `cpu`, `cuda` or `cuda-tensorrt`.

    `auto` is the CPU for the embedded server, and otherwise what the Triton at `triton_url` says of its models. Raises
    `DiagnosticError` if a model of the repository is not built for it, or if the embedded server cannot compute on it.
    """
    built = [set(entry.configs) for entry in manifest.built.values()]
    # A repository without a record of builds has one configuration, which is taken to be for the CPU.
    common = set.intersection(*built) if built else {"cpu"}
    if device == "auto":
        device = "cpu" if triton_url is None else remote_machine(manifest, triton_url)
    if device not in common:
        offered = ", ".join(sorted(common)) or "nothing in common"
        raise DiagnosticError(
            [
                Diagnostic(
                    "SIE605",
                    f"`{repository}` is not built for {device}; its models are for {offered}",
                    hint="build it with `--device cpu --device cuda`",
                )
            ]
        )
    if triton_url is None:
        formats = {built.format for built in manifest.built.values()}
        check_embedded_device(device, formats)
        check_runtimes(formats)
    return device


def check_runtimes(formats: Collection[str]) -> None:
    """Raise `DiagnosticError` (`SIE714`) if the package is missing with which the embedded server computes a format."""
    for graph_format in formats:
        package, extra = RUNTIMES[graph_format]
        if importlib.util.find_spec(package) is None:
            message = f"the embedded server computes {graph_format} graphs with {package}, which is not installed"
            raise DiagnosticError([Diagnostic("SIE714", message, hint=f"`pip install 'sie-triton[{extra}]'`")])


def check_embedded_device(device: str, formats: Collection[str]) -> None:
    """Raise `DiagnosticError` if the embedded server cannot compute graphs of `formats` on a device here."""
    if device in ("auto", "cpu") or (obstacle := gpu_obstacle(device, formats)) is None:
        return
    hint = (
        f"serve the repository with NVIDIA's Triton image, started with `--model-config-name={device}`, and point "
        "`--triton-url` at it"
    )
    raise DiagnosticError(
        [Diagnostic("SIE606", f"the embedded server cannot compute on {device}: {obstacle}", hint=hint)]
    )


def remote_machine(manifest: Manifest, triton_url: str) -> str:
    """What a running Triton computes on, by the configuration of a model with instances; `cpu` if it does not say.

    An unreachable Triton is not asked again: the frontend may start before its Triton does.
    """
    first = first_address(triton_url)
    for name in manifest.triton_models:
        try:
            with DIRECT.open(f"http://{first}/v2/models/{name}/config", timeout=5) as answer:
                config = json.load(answer)
        except urllib.error.HTTPError:
            continue  # it answers, and does not have this model
        except (OSError, ValueError, http.client.HTTPException):
            break
        kinds = {group.get("kind") for group in config.get("instance_group", ())}
        if "KIND_GPU" in kinds:
            return "cuda-tensorrt" if "tensorrt" in accelerators(config) else "cuda"
        if kinds:
            break
    return "cpu"


def config_name(manifest: Manifest, machine: str) -> str | None:
    """The `--model-config-name` for a kind of machine; None if every model uses its `config.pbtxt`.

    A model whose default configuration suits the machine has no file of that name; Triton then uses `config.pbtxt`.
    """
    return machine if any(entry.configs.get(machine) for entry in manifest.built.values()) else None


def embedded_name(repository: Path, manifest: Manifest, machine: str) -> str | None:
    """The same for the embedded server; None where it may read what is written for itself alone.

    Builds of before have no such file, and where their `config.pbtxt` is a GPU's, that of CPUs must be named.
    """
    name = config_name(manifest, machine)
    if name is None or machine != "cpu":
        return name
    files = (repository / model / "configs" / f"{EMBEDDED}.pbtxt" for model in manifest.triton_models)
    return None if all(file.is_file() for file in files) else name
