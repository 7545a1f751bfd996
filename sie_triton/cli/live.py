"""`add`, `remove`, `rollback`, `list` and `status`: the models of a repository, and of a server that runs on it."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sie_triton.cli.build import build_options, graph_options, run_build
from sie_triton.cli.models import wanted_models
from sie_triton.cli.options import (
    BOTH_DEVICES,
    DEFAULT_FORMAT_NAME,
    DEFAULT_REPOSITORY,
    AsJson,
    BuiltRepository,
    Bundles,
    Devices,
    Format,
    Layout,
    LayoutName,
    Models,
    Packing,
    Precision,
    PrecisionName,
    SaveBundle,
    TrustRemoteCode,
    Weights,
)
from sie_triton.cli.printing import out, say
from sie_triton.cli.repositories import built_manifest
from sie_triton.diagnostics import DiagnosticError

if TYPE_CHECKING:
    from sie_frontend.manifest import Manifest

_HEADER = ("model", "state", "version", "precision", "cosine", "memory", "requests", "last error")
_NUMBERS = frozenset({"memory", "requests"})
DEFAULT_URL = "http://127.0.0.1:8080"

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="SIE_BASE_URL", help=f"The server that is told of it. Default: {DEFAULT_URL}."),
]
AskedUrl = Annotated[
    str | None,
    typer.Option("--url", help=f"Ask this server. Default: {DEFAULT_URL}, or the folder where none is there."),
]
Key = Annotated[
    str | None,
    typer.Option("--api-key", envvar="SIE_API_KEY", help="Key of the verb `admin`, where the server asks for keys."),
]
Folder = Annotated[
    Path | None,
    typer.Option("--repository", "-r", help="A repository, a folder, instead of a server."),
]
ModelId = Annotated[str, typer.Argument(help="Model id, `id` or `id:profile`.", show_default=False)]


def add(
    model: Models,
    bundles: Bundles = None,
    weights: Weights = [],  # noqa: B006 - typer copies the default
    repository: BuiltRepository = DEFAULT_REPOSITORY,
    url: Url = None,
    api_key: Key = None,
    graph_format: Format = DEFAULT_FORMAT_NAME,
    layout: Layout = LayoutName.auto,
    packing: Packing = True,
    precision: Precision = PrecisionName.auto,
    device: Devices = BOTH_DEVICES,
    save_bundle: SaveBundle = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Build a model, or another version of one, into a repository; where a server runs on it, wait until it serves it.

    The server loads the model beside what it serves, asks it for its stored reference, and only then switches.
    """
    wanted = wanted_models(model, weights)
    options = build_options(repository, wanted, graph_options(graph_format, layout, packing, precision, device))
    built = run_build(wanted, bundles, replace(options, trust_remote_code=trust_remote_code), save_bundle=save_bundle)
    _follow(url, api_key, repository, {i for result in built for i in result.model_ids})


def remove(
    model_id: ModelId,
    repository: BuiltRepository = DEFAULT_REPOSITORY,
    url: Url = None,
    api_key: Key = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete its files too, so that `rollback` cannot bring it back.")
    ] = False,
    previous: Annotated[
        bool, typer.Option("--previous", help="Keep the model, and delete what `rollback` would go back to.")
    ] = False,
) -> None:
    """Take a model, with its profiles, out of a repository, and out of a server that runs on it."""
    from sie_triton.repository.changes import forget, take_away

    if previous:
        ids = forget(repository, model_id)
        say(f"forgotten what {', '.join(ids)} could be taken back to")
    else:
        ids = take_away(repository, model_id, purge=purge)
        back = "" if purge else f"; `sie-triton rollback {model_id}` brings it back"
        say(f"removed {', '.join(ids)} from {repository}{back}")
    _follow(url, api_key, repository, ids)


def rollback(
    model_id: ModelId, repository: BuiltRepository = DEFAULT_REPOSITORY, url: Url = None, api_key: Key = None
) -> None:
    """Take a model back to what it was before it was replaced or removed. A second time undoes the first."""
    from sie_triton.repository.changes import roll_back

    ids = roll_back(repository, model_id)
    say(f"{', '.join(ids)} in {repository}: back to the version before")
    _follow(url, api_key, repository, ids)


def list_models(repository: Folder = None, url: AskedUrl = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """Print the ids of a server or of a repository, one a line."""
    status = _status(repository, url, api_key)
    if as_json:
        out.print_json(json.dumps(list(status["models"])))
        return
    for model_id in status["models"]:
        out.print(model_id, markup=False)


def status(repository: Folder = None, url: AskedUrl = None, api_key: Key = None, as_json: AsJson = False) -> None:
    """Print how each model of a server stands: state, memory, requests, certificate, the last error."""
    found = _status(repository, url, api_key)
    if as_json:
        out.print_json(json.dumps(found))
        return
    for line in _columns([_HEADER, *(_cells(model_id, model) for model_id, model in found["models"].items())]):
        out.print(line, markup=False)
    for line in _notes(found):
        out.print(line, markup=False)


def _status(repository: Path | None, url: str | None, key: str | None) -> dict[str, Any]:
    """Of a server, or of a folder that is named, or that is there where nobody listens."""
    from sie_triton.serving.running import NobodyThere, RunningServer, nobody

    if repository is not None and url is None:
        return _of_folder(repository, built_manifest(repository))
    try:
        return RunningServer(url or DEFAULT_URL, key).status()
    except NobodyThere:
        if url is not None or not DEFAULT_REPOSITORY.is_dir():
            raise nobody(url or DEFAULT_URL) from None
    say(f"nothing listens at {DEFAULT_URL}; this is the folder {DEFAULT_REPOSITORY}")
    return _of_folder(DEFAULT_REPOSITORY, built_manifest(DEFAULT_REPOSITORY))


def _of_folder(repository: Path, manifest: Manifest) -> dict[str, Any]:
    """What can be said of models that nobody serves."""
    from sie_frontend.live.report import built_facts

    return {
        "repository": str(repository.absolute()),
        "phase": "not served",
        "unreadable": None,
        "models": {
            model_id: {"state": "built", **built_facts(manifest, model_id, model)}
            for model_id, model in manifest.models.items()
        },
        "removed": sorted(model_id for model_id in manifest.previous if model_id not in manifest.models),
        "events": [],
    }


def _cells(model_id: str, model: Mapping[str, Any]) -> list[str]:
    certificate = model.get("certificate") or {}
    cosine = certificate.get("min_cosine")
    refused = model.get("refused")
    error = f"not {refused['change']}: {refused['reason']}" if refused else model.get("last_error")
    precisions = dict.fromkeys((model.get("precisions") or {}).values())
    return [
        model_id,
        f"{model['state']} *" if model.get("changing") else str(model["state"]),
        ", ".join(model.get("triton_models", ())) or "-",
        ", ".join(precisions) or "-",
        "-" if cosine is None else f"{cosine:.6f}",
        f"{model['memory_bytes'] / 1e6:,.0f} MB" if model.get("memory_bytes") else "-",
        str(model.get("requests", "-")),
        " ".join(error.split()) if error else "-",
    ]


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows as lines, their cells below each other; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if name in _NUMBERS else cell.ljust(width)
            for name, cell, width in zip(_HEADER, row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _notes(found: Mapping[str, Any]) -> list[str]:
    """What is to be said beside the table."""
    lines = [f"{found['repository']}: {found['phase']}"]
    if found["unreadable"]:
        lines.append(f"the repository cannot be read, and what was served goes on: {found['unreadable']}")
    if found.get("leaving"):
        lines.append(f"answering their last requests: {', '.join(found['leaving'])}")
    back = [i for i, model in found["models"].items() if model.get("previous")]
    if back or found["removed"]:
        lines.append(f"`sie-triton rollback` can take back: {', '.join([*back, *found['removed']])}")
    return lines


def _follow(url: str | None, key: str | None, repository: Path, ids: Collection[str]) -> None:
    """Wait until a server that runs on the repository serves the change; say so where there is none.

    At the usual address may be anybody; at one that was named a server must answer.
    """
    from sie_triton.serving.running import NobodyThere, RunningServer

    server = RunningServer(url or DEFAULT_URL, key)
    try:
        if not server.serves(repository):
            say(f"{server.url} serves another repository than {repository}: it is left alone")
            return
    except NobodyThere:
        say(f"nothing listens at {server.url}: it is served from the next start on")
        return
    except DiagnosticError as error:
        if url is not None:
            raise
        say(f"{error.diagnostics[0].message}: no server of ours, which is left alone")
        return
    server.follow(ids, say)
