"""Writes rendered objects as YAML files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from sie_frontend.manifest import ManifestError, read_manifest

from sie_triton.deploy.adapter import FILE_NAME, adapter_values
from sie_triton.deploy.kserve import render_kserve
from sie_triton.deploy.kubernetes import render_kubernetes
from sie_triton.deploy.options import DeployOptions, Kind
from sie_triton.deploy.sizing import measure
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.repository.publish import check_whole

HEADER = "# Rendered by `sie-triton deploy`: change the options and render again.\n"
_FILES = (
    "storage.yaml",
    "fill.yaml",
    "triton.yaml",
    "serving-runtime.yaml",
    "inference-service.yaml",
    "frontend.yaml",
    "entry.yaml",
    "network-policy.yaml",
    "autoscaling.yaml",
    "kustomization.yaml",
    FILE_NAME,
)

# Readers disagree on what an unquoted `1e3`, `0o7` or `y` is: only plain words go without quotes.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*")
_NOT_STRINGS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def write_manifests(kind: Kind, repository: Path, out: Path, options: DeployOptions) -> list[Path]:
    """Render the manifests for the repository into the folder `out`, and return the files.

    Files that only an earlier rendering had are removed. If a file of the same name is not ours, nothing is written.
    Raises `DiagnosticError`: `SIE603` (no repository), `SIE604` (no
    model in it), `SIE610` (files of it are missing), `SIE801` (an option), `SIE802` (somebody's file in the way).
    """
    try:
        manifest = read_manifest(repository)
    except ManifestError as error:
        raise DiagnosticError([Diagnostic("SIE603", str(error), Where(repository))]) from None
    if not manifest.models:
        raise DiagnosticError([Diagnostic("SIE604", f"`{repository}` holds no model", hint="`sie-triton build -m ID`")])
    deployment = options.checked(kind)
    check_whole(repository, manifest)
    size = measure(repository, manifest, deployment.device)
    render = render_kubernetes if kind == "kubernetes" else render_kserve
    files = render(manifest, size, deployment)
    if (values := adapter_values(deployment)) is not None:
        files[FILE_NAME] = [values]
    out.mkdir(parents=True, exist_ok=True)
    stale = _ours(out)
    written = []
    for name, objects in files.items():
        path = out / name
        path.write_text(HEADER + to_yaml(objects), encoding="utf-8")
        written.append(path)
    for path in set(stale) - set(written):
        path.unlink()
    return written


def to_yaml(objects: list[dict[str, Any]]) -> str:
    """The objects as YAML documents that readers of YAML 1.1 and 1.2 understand in the same way."""
    return yaml.dump_all(objects, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1_000_000)


def _ours(out: Path) -> list[Path]:
    """The files that an earlier call wrote; raises `DiagnosticError` if others have their names."""
    found = [out / name for name in _FILES if (out / name).exists()]
    foreign = [path for path in found if not path.is_file() or not path.read_bytes().startswith(HEADER.encode())]
    if foreign:
        raise DiagnosticError(
            [
                Diagnostic(
                    "SIE802", "the file was not written by `sie-triton deploy`", Where(path), "choose another folder"
                )
                for path in foreign
            ]
        )
    return found


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        """Objects share parts in memory; the files shall not refer to each other by anchors."""
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(text) and text.lower() not in _NOT_STRINGS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _represent_text)
