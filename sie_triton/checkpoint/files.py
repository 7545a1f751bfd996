"""Which of a repository's files decide what the model computes, and where a checkpoint keeps its parts."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MODULES = "modules.json"
PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"
OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = "open_clip_model.safetensors"
ROUTER = "router_config.json"
PICKLE_SUFFIXES = (".bin", ".pkl", ".pickle", ".pth", ".ckpt")
MODULE_FOLDER = re.compile(r"(?:[A-Za-z]+_)?\d+_\w+")
TELLING = (MODULES, "tokenizer_config.json", ADAPTER)
"""Optional files whose absence has to be known: a cache filled by a tool that never asked for them looks whole."""

_SHARD = re.compile(r"model-\d+-of-(\d+)\.safetensors")
_FIRST_FOLDER = re.compile(r"0_\w+")
_TRANSFORMERS = frozenset(
    {"Transformer", "MLMTransformer", "CLIPModel", "BERT", "RoBERTa", "DistilBERT", "ALBERT", "XLMRoBERTa"}
)
"""Classes of a pipeline's first module that wrap a transformers model; five are of its first versions."""
TOKENIZER = frozenset(
    {
        "added_tokens.json",
        "chat_template.jinja",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "vocab.txt",
    }
)
_PIPELINE = frozenset({"config_sentence_transformers.json", "idf.json", MODULES, "query_token_weights.txt", ROUTER})
"""What stands at the root wherever the transformer is."""
_LIMITS = frozenset(
    f"sentence_{kind}_config.json" for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta")
) | {"sentence_xlnet_config.json"}
"""sentence-transformers reads its length limit from the first of these that is there."""
_AT_HOME = (
    TOKENIZER
    | _LIMITS
    | {ADAPTER, ADAPTER_WEIGHTS, PREPROCESSOR, PROCESSOR, "config.json", "idf.json", "query_token_weights.txt"}
)
_IN_MODULES = TOKENIZER | _LIMITS | {"config.json", SINGLE, "idf.json"}


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the parts of a checkpoint are, as far as its own small files say.

    `home` is the folder of the transformer's files, with its `/`, or empty for the root. `modules` are the other
    folders that `modules.json` names. `shards` are the files that the index names, by their path from the root; None
    where there is no index, or it was not read. `first` is the class of the pipeline's first module.
    """

    home: str = ""
    modules: frozenset[str] = frozenset()
    shards: frozenset[str] | None = None
    first: str | None = None

    @property
    def starts_elsewhere(self) -> bool:
        """Whether the pipeline begins with something other than a transformer."""
        return self.first is not None and self.first not in _TRANSFORMERS


def read_parts(names: Iterable[str], read: Callable[[str], Any]) -> Parts:
    """The parts of a repository that has these files.

    `read` returns the content of a JSON file, or None if it cannot be read.
    """
    held = set(names)
    listed = _listed(read(MODULES)) if MODULES in held else []
    home = _home(held, listed, _documents(read(ROUTER)) if _is_routed(held, listed) else [])
    index = read(f"{home}{INDEX}") if f"{home}{INDEX}" in held and f"{home}{SINGLE}" not in held else None
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    return Parts(
        home=home,
        modules=frozenset(path for path, _ in listed if path and f"{path}/" != home),
        shards=frozenset(f"{home}{name}" for name in weight_map.values()) if isinstance(weight_map, dict) else None,
        first=listed[0][1] if listed else None,
    )


def _listed(modules: object) -> list[tuple[str, str]]:
    """Folder and class of each entry of `modules.json`, in order.

    Anything that is not an entry is left to the pipeline's reader to report.
    """
    entries = [entry for entry in modules if isinstance(entry, dict)] if isinstance(modules, list) else []
    return [(_folder(str(entry.get("path", ""))), module_class(entry)) for entry in entries]


def _folder(path: str) -> str:
    """A module's path as the listing has it: `./0_Transformer/` is `0_Transformer`, and the root is empty."""
    return "" if PurePosixPath(path) == PurePosixPath() else PurePosixPath(path).as_posix()


def module_class(entry: Mapping[str, Any]) -> str:
    """The class of an entry of `modules.json`, without its package."""
    return str(entry.get("type", "")).rpartition(".")[2]


def _is_routed(held: set[str], listed: Sequence[tuple[str, str]]) -> bool:
    return ROUTER in held and listed[:1] == [("", "Router")]


def _documents(router: object) -> list[tuple[str, str]]:
    """Folder and class of the modules that documents go through, where queries are looked up in a table of weights.

    Empty for any other router: of two transformers no one is the checkpoint's.
    """
    parts = router if isinstance(router, dict) else {}
    types, structure = parts.get("types"), parts.get("structure")
    if not isinstance(types, dict) or not isinstance(structure, dict) or set(structure) != {"query", "document"}:
        return []
    routes = {
        route: [(_folder(str(name)), module_class({"type": types.get(name)})) for name in named]
        for route, named in structure.items()
        if isinstance(named, list)
    }
    looked_up = [kind for _, kind in routes.get("query", ())] == ["SparseStaticEmbedding"]
    return routes.get("document", []) if looked_up else []


def _home(held: set[str], listed: Sequence[tuple[str, str]], documents: Sequence[tuple[str, str]]) -> str:
    """`modules.json` decides, or its router; without it a root with a configuration, then a folder `0_...` with one."""
    telling = ("config.json", ADAPTER)
    if documents and documents[0][1] in _TRANSFORMERS:
        path = documents[0][0]
        return f"{path}/" if path and any(f"{path}/{name}" in held for name in telling) else ""
    if listed and listed[0][1] in _TRANSFORMERS:
        path = listed[0][0]
        return f"{path}/" if path and any(f"{path}/{name}" in held for name in telling) else ""
    if listed or any(name in held for name in telling):
        return ""
    folders = {name.rpartition("/")[0] for name in held if name.endswith("/config.json")}
    return next((f"{folder}/" for folder in sorted(folders) if _FIRST_FOLDER.fullmatch(folder)), "")


def wanted_files(
    names: Iterable[str],
    *,
    parts: Parts | None = None,
    extra_files: Sequence[str] = (),
    trust_remote_code: bool = False,
) -> tuple[str, ...]:
    """Those of a repository's file names that decide what the model computes, sorted.

    One set of weights: `model.safetensors`, else the shards and their index, as transformers chooses. Of folders only
    those of sentence-transformers modules (`1_Pooling`, `query_0_...`): no onnx, openvino, tf, flax, no training
    checkpoints. `parts` are what the repository's small files say; by default they are guessed from the names.
    """
    held = set(names)
    parts = parts or read_parts(held, lambda _: None)
    wanted = {name for name in held if name in _PIPELINE or _is_at_home(name, parts.home)}
    wanted |= set(weight_files(held, parts))
    if f"{parts.home}{ADAPTER}" not in held:
        wanted.discard(f"{parts.home}{ADAPTER_WEIGHTS}")
    for name in held:
        folder, _, file = name.rpartition("/")
        if file in _IN_MODULES and (MODULE_FOLDER.fullmatch(folder) or folder in parts.modules):
            wanted.add(name)
    wanted |= {f"{parts.home}{PROCESSOR}"} & held
    wanted |= {found for extra in extra_files if (found := extra_file(extra, held)) is not None}
    if trust_remote_code:
        wanted |= {name for name in held if name.endswith(".py") and "/" not in name}
    return tuple(sorted(wanted))


def _is_at_home(name: str, home: str) -> bool:
    file = name.removeprefix(home)
    return name.startswith(home) and (file in _AT_HOME or (file.endswith(".model") and "/" not in file))


def open_clip_files(names: Iterable[str]) -> tuple[str, ...]:
    """Those of a repository's file names that open_clip loads, sorted: transformers' weights beside them are others."""
    wanted = TOKENIZER | {"config.json", OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS}
    return tuple(sorted(name for name in set(names) if name in wanted or (name.endswith(".model") and "/" not in name)))


def weight_files(names: Iterable[str], parts: Parts | None = None) -> tuple[str, ...]:
    """The transformer's weights among these names, with their index if they are several files; sorted."""
    held = set(names)
    parts = parts or read_parts(held, lambda _: None)
    home = parts.home
    if f"{home}{SINGLE}" in held:
        return (f"{home}{SINGLE}",)
    if f"{home}{INDEX}" not in held:
        return ()
    shards = parts.shards
    if shards is None:
        shards = frozenset(n for n in held if n.startswith(home) and _SHARD.fullmatch(n.removeprefix(home)))
    return tuple(sorted({f"{home}{INDEX}", *(shards & held)}))


def names_in(folder: Path) -> set[str]:
    """The files of a folder and of the folders in it, as the hub would name them."""
    found = [*folder.glob("*"), *folder.glob("*/*")]
    return {path.relative_to(folder).as_posix() for path in found if path.is_file()}


def parts_of(folder: Path) -> Parts:
    """The parts of a folder on this disk."""
    return read_parts(names_in(folder), lambda name: read_json(folder / name))


def weight_paths(folder: Path) -> tuple[Path, ...]:
    """The safetensors files that hold the transformer's weights. Other files beside them may be stale."""
    names = weight_files(names_in(folder), parts_of(folder))
    return tuple(folder / name for name in names if name.endswith(".safetensors"))


def read_json(path: Path) -> Any:
    """The content of a JSON file, or None if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def architectures(config: Mapping[str, Any]) -> list[str]:
    """The classes of transformers that a `config.json` names."""
    named = config.get("architectures")
    return list(map(str, named)) if isinstance(named, list) else []


def extra_file(name: str, held: set[str]) -> str | None:
    """The file that serves for `name`: its safetensors twin, or itself unless it can only be unpickled.

    Newer releases of transformers keep how images are prepared in `processor_config.json`.
    """
    if name == PREPROCESSOR and name not in held and PROCESSOR in held:
        return PROCESSOR
    twin = f"{name.rpartition('.')[0]}.safetensors"
    if twin in held:
        return twin
    return name if name in held and not name.endswith(PICKLE_SUFFIXES) else None


def file_digest(path: Path) -> str:
    """The sha256 of a file, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
