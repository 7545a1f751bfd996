"""The hub and its local cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sie_triton.checkpoint.asking import describe
from sie_triton.checkpoint.files import (
    ADAPTER,
    INDEX,
    MODULES,
    TELLING,
    Parts,
    file_digest,
    read_json,
    read_parts,
    weight_files,
)
from sie_triton.checkpoint.found import Checkpoint, checkpoint_at
from sie_triton.checkpoint.hub_failures import (
    ROOM_HINT,
    HubFailure,
    endpoint_url,
    explain,
    kinds_of,
    no_such_model,
    not_a_hub,
)
from sie_triton.checkpoint.lora_settings import read_lora_settings
from sie_triton.checkpoint.packaged import Announce
from sie_triton.checkpoint.problems import damage, find_problems, gaps, uncompiled
from sie_triton.checkpoint.progress import Progress
from sie_triton.checkpoint.request import Request
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.room import shortage

STALLED_SECONDS = 120.0
"""A download that moves no byte for so long is given up."""
SILENT_SECONDS = 10.0
"""After so long it is said, and again each time that it has become twice as long."""

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Cached:
    """A snapshot in the local cache. `certain` says that files which are not here do not exist at the hub either."""

    folder: Path
    problems: list[Diagnostic]
    certain: bool


def find_cached(request: Request) -> Cached | None:
    """The snapshot of the revision in the local cache, or None."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache  # `plan` does without
    from huggingface_hub.errors import HFValidationError

    try:
        # Where the transformer is in a folder of its own there is no configuration at the root.
        known_files = [
            try_to_load_from_cache(request.hf_id, name, revision=request.revision)
            for name in (request.anchor(Parts()), MODULES, ADAPTER)
        ]
    except HFValidationError as error:
        raise DiagnosticError([no_such_model(request)]) from error
    anchor = next((path for path in known_files if isinstance(path, str)), None)
    if anchor is None:
        return None
    folder = Path(anchor).parent

    def known(name: str) -> bool:
        absent = try_to_load_from_cache(request.hf_id, name, revision=folder.name) is _CACHED_NO_EXIST
        return absent or (folder / name).is_file()

    return Cached(folder, find_problems(folder, request), all(map(known, (*TELLING, *request.optional_files))))


def from_hub(request: Request, progress: Progress, announce: Announce) -> Checkpoint:
    """The checkpoint, with whatever the cache lacks fetched. Raises `HubFailure` if that fails.

    `announce` is told when the hub keeps us waiting.
    """
    beat = _Heartbeat()

    def report(file: str, done: int, total: int | None) -> None:
        beat.mark()
        progress(file, done, total)

    try:
        commit, entries = _described(request, announce)
        beat.mark()
        folder, fetched = supervise(lambda: _download(request, commit, entries, report), beat, announce)
    except (HubFailure, DiagnosticError):
        raise
    except Exception as error:
        failure = explain(error, request)
        if failure is None:
            raise
        raise failure from error
    return checkpoint_at(folder, "hub" if fetched else "cache", request, folder.name)


class _Heartbeat:
    """When a download last moved."""

    def __init__(self) -> None:
        self.mark()

    def mark(self) -> None:
        self.last = time.monotonic()

    @property
    def silent_seconds(self) -> float:
        return time.monotonic() - self.last


def _described(request: Request, announce: Announce) -> tuple[str, dict[str, Any]]:
    """The commit, and what the hub says of each of its files."""
    try:
        info = describe(request.hf_id, request.revision, announce)
        return str(info.sha), {entry.rfilename: entry for entry in info.siblings or ()}
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise HubFailure([not_a_hub("its answer is no description of a model")]) from error


def supervise(work: Callable[[], tuple[Path, bool]], beat: _Heartbeat, announce: Announce) -> tuple[Path, bool]:
    """Run `work` in another thread; say when nothing moves, and at last give up; at once when the user interrupts.

    The client library retries with pauses that add up to many minutes, and it cannot be interrupted; the thread is a
    daemon, so that it cannot keep the process alive.
    """
    done: list[tuple[Path, bool]] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="hub-download", daemon=True)
    thread.start()
    said = SILENT_SECONDS
    while thread.is_alive():
        thread.join(0.2)
        if beat.silent_seconds < SILENT_SECONDS:
            said = SILENT_SECONDS
        elif thread.is_alive() and beat.silent_seconds > said:
            announce(f"the hub at {endpoint_url()} sends nothing for {said:.0f} s; given up at {STALLED_SECONDS:.0f} s")
            said *= 2
        if thread.is_alive() and beat.silent_seconds > STALLED_SECONDS:
            message = f"the hub at {endpoint_url()} has sent nothing for {STALLED_SECONDS:.0f} seconds"
            hint = (
                "run again later: finished files are kept; or another process is fetching the same files, wait for it"
            )
            raise HubFailure([Diagnostic("SIE317", message, hint=hint)], unreachable=True)
    if failed:
        raise failed[0]
    return done[0]


def _download(request: Request, commit: str, entries: dict[str, Any], report: Progress) -> tuple[Path, bool]:
    """Complete the cache's snapshot of the commit. Returns the folder, and whether anything was fetched."""
    from huggingface_hub import constants, hf_hub_download

    timeout = constants.HF_HUB_ETAG_TIMEOUT
    guessed = read_parts(entries, lambda _: None)
    if (found := gaps(entries, request.extra_files, request.shown, None, guessed)) and _names_decide(entries, guessed):
        raise HubFailure(found)
    _check_room(request, commit, entries, request.wanted(entries, guessed))
    snapshot = _Snapshot(request, commit, entries, report)
    parts = read_parts(entries, snapshot.read)
    if found := gaps(entries, request.extra_files, request.shown, None, parts):
        raise HubFailure(found)
    anchor = request.anchor(parts)
    config = snapshot.read(anchor)
    if (adapter := f"{parts.home}{ADAPTER}") in entries:
        # What is not merged is refused before gigabytes are fetched for it.
        read_lora_settings(snapshot.path(adapter).parent)
        anchor = anchor if weight_files(entries, parts) else adapter
    if isinstance(config, dict) and (found := uncompiled(config, None, sees=request.sees_kind(config))):
        raise HubFailure(found)
    wanted = request.wanted(entries, parts)
    missing = _check_room(request, commit, entries, wanted)
    if request.revision != commit:
        # By its own name, so that the cache notes which commit the branch or tag is: other tools look there.
        hf_hub_download(request.hf_id, anchor, revision=request.revision, etag_timeout=timeout)
    telling = (*TELLING, *request.optional_files)
    _note_absent(request, commit, [name for name in telling if name not in entries])
    for name in sorted(missing, key=lambda name: (name.endswith((".safetensors", ".pt")), name)):
        snapshot.fetch(name)
    folder = Path(hf_hub_download(request.hf_id, anchor, revision=commit)).parents[anchor.count("/")]
    if problems := find_problems(folder, request):
        raise HubFailure(problems)
    return folder, snapshot.fetched


class _Snapshot:
    """One commit of a repository, fetched file by file into the cache."""

    def __init__(self, request: Request, commit: str, entries: Mapping[str, Any], report: Progress) -> None:
        self._request, self._commit, self._entries, self._report = request, commit, entries, report
        self.fetched = False

    def read(self, name: str) -> Any:
        """The content of a small JSON file; None where the repository has none, or none that can be read."""
        if name not in self._entries:
            return None
        return read_json(self.path(name))

    def path(self, name: str) -> Path:
        """A file that the repository has, fetched if the cache lacks it."""
        return _cached_path(self._request, name, self._commit, self._entries[name].size) or self.fetch(name)

    def fetch(self, name: str) -> Path:
        """Fetch one file and compare it with what the hub says of it."""
        if not self.fetched:
            self._ask()
        self.fetched = True
        path = _fetch(self._request, name, self._commit, self._report)
        _check_digest(path, name, self._entries[name], self._request)
        self._report(name, path.stat().st_size, path.stat().st_size)
        return path

    def _ask(self) -> None:
        """One plain question first: licences, limits and silence show here at once, without the library's retries."""
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

        asked = "config.json" if "config.json" in self._entries else next(iter(self._entries))
        url = hf_hub_url(self._request.hf_id, asked, revision=self._commit)
        get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)


def _cached_path(request: Request, name: str, commit: str, size: int | None) -> Path | None:
    """The cached file, or None when it is not there or cannot be the hub's: then it is fetched (again)."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(request.hf_id, name, revision=commit)
    if not isinstance(found, str):
        return None
    path = Path(found)
    if damage(path) is None and size in (None, path.stat().st_size):
        return path
    # The library takes any existing file for the right one; out of its way, link and content.
    _discard(path)
    return None


def _discard(path: Path) -> None:
    blob = path.resolve()
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


def _note_absent(request: Request, commit: str, names: Sequence[str]) -> None:
    """Ask for files that do not exist: the library notes the answer in the cache, where `find_cached` reads it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    for name in names:
        with contextlib.suppress(EntryNotFoundError):
            hf_hub_download(request.hf_id, name, revision=commit)


def _fetch(request: Request, name: str, commit: str, report: Progress) -> Path:
    """One file. The library resumes a stream that ends early where it stopped; a connection that is reset it does not,
    so those start over here."""
    from huggingface_hub import hf_hub_download

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            bar = _bar_class(name, report)
            return Path(hf_hub_download(request.hf_id, name, revision=commit, tqdm_class=bar))
        except Exception as error:
            if attempt == _ATTEMPTS or not kinds_of(error) & {"ReadError", "RemoteProtocolError"}:
                raise
    raise AssertionError("the loop above returns or raises")


def _bar_class(name: str, report: Progress) -> type:
    """What the library takes for a progress bar: the methods that it calls on its own stand-in for tqdm."""

    class Bar:
        def __init__(self, *args: object, total: int | None = None, initial: int = 0, **options: object) -> None:
            self.total, self.n = total, initial
            report(name, self.n, self.total)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *exc: object) -> None:
            pass

        def update(self, n: float | None = 1) -> None:
            self.n += int(n or 0)
            report(name, self.n, self.total)

        def update_transfer(self, n: float | None = 1) -> None:
            pass

        def set_postfix_str(self, postfix: str, refresh: bool = False) -> None:
            pass

        def set_transfer_postfix_str(self, postfix: str, refresh: bool = False) -> None:
            pass

        def set_description_str(self, text: str, refresh: bool = False) -> None:
            pass

        def refresh(self) -> None:
            pass

        def close(self) -> None:
            pass

    return Bar


def _check_digest(path: Path, name: str, entry: Any, request: Request) -> None:
    """Compare with what the hub says of the file: the sha256 of a large one, git's own name for a small one.

    The library itself compares sizes only.
    """
    if entry.lfs is not None:
        right = file_digest(path) == entry.lfs.sha256
    elif entry.blob_id:
        content = path.read_bytes()
        git_name = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        right = git_name == entry.blob_id
    else:
        right = entry.size in (None, path.stat().st_size)
    if not right:
        _discard(path)
        message = f"`{name}` of {request.shown} arrived with other bytes than the hub announces, and was deleted"
        raise HubFailure([Diagnostic("SIE319", message, hint="run again; if it stays so, a proxy alters the download")])


def _check_room(request: Request, commit: str, entries: Mapping[str, Any], wanted: Sequence[str]) -> list[str]:
    """The files that the cache lacks. Raises `HubFailure` if the disk has no room for them."""
    from huggingface_hub import constants

    missing = [name for name in wanted if _cached_path(request, name, commit, entries[name].size) is None]
    needed = sum(entries[name].size or 0 for name in missing)
    if missing and (short := shortage(Path(constants.HF_HUB_CACHE), needed)):
        raise HubFailure([Diagnostic("SIE316", f"there is no room for {request.shown}: {short}", hint=ROOM_HINT)])
    return missing


def _names_decide(names: Collection[str], parts: Parts) -> bool:
    """Whether no small file could say that what seems absent is elsewhere."""
    elsewhere = "config.json" not in names and MODULES in names
    other_shards = f"{parts.home}{INDEX}" in names and weight_files(names, parts) == (f"{parts.home}{INDEX}",)
    return not elsewhere and not other_shards
