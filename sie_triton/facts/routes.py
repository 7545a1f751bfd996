"""`router_config.json`: the modules that documents go through, and the table of weights that queries are looked up in.

Of sentence-transformers' routers one shape is read: a `SparseStaticEmbedding` for queries, a transformer for documents.
Anything else is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sie_triton.diagnostics import DiagnosticError

from .files import read_object, unreadable, unsupported, weight_shapes
from .known_keys import FILES, check_keys

ROUTER_NAME = "router_config.json"
ROUTES = ("query", "document")
WEIGHTS_NAME = "model.safetensors"
_TENSOR = "weight"
# A tokenizer that knows no limit writes a number of this size.
NO_LIMIT = 1_000_000_000
# Settings beside `tokenizer.json` that take the place of its normaliser's own.
_NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
_ADDED = ("content", "lstrip", "normalized", "rstrip", "single_word")


@dataclass(frozen=True, slots=True)
class QueryTable:
    """One weight for each token of a query, special tokens not added, and no model.

    `file` holds them by token id, relative to the checkpoint, `rows` of them. A query is cut at `max_length` tokens;
    None: never.
    """

    file: str
    rows: int
    max_length: int | None


def is_routed(entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a pipeline begins with a router."""
    return bool(entries) and str(entries[0]["type"]).rpartition(".")[2] == "Router"


def read_routes(folder: Path, entries: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], QueryTable]:
    """The modules of documents, as `modules.json` would list them, and the table of queries.

    Raises `DiagnosticError` for routes of any other kind, and for files that are damaged.
    """
    path = folder / ROUTER_NAME
    if len(entries) > 1 or entries[0]["path"]:
        raise _refused(folder / "modules.json", "a `Router` with modules behind it, or in a folder of its own")
    document = read_object(path)
    if problems := check_keys(document, FILES[ROUTER_NAME], path, ROUTER_NAME):
        raise DiagnosticError(problems)
    types, structure = _objects(document, path)
    _check_parameters(document.get("parameters") or {}, path)
    if set(structure) != set(ROUTES):
        raise _refused(path, f"a `Router` with the routes {_listed(structure)}; `query` and `document` are compiled")
    routes = {route: _modules(structure[route], types, path) for route in ROUTES}
    queries = [_class_of(module) for module in routes["query"]]
    if queries != ["SparseStaticEmbedding"]:
        raise _refused(
            path,
            f"a `Router` that sends queries through {_listed(queries)}: other modules for queries than for documents "
            "are compiled only where those of queries are one `SparseStaticEmbedding`",
        )
    home = str(routes["document"][0]["path"]) if routes["document"] else ""
    return routes["document"], _query_table(folder, str(routes["query"][0]["path"]), home)


def _objects(document: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    found = [document.get(key) for key in ("types", "structure")]
    types, structure = found
    if not isinstance(types, dict) or not isinstance(structure, dict):
        raise unreadable(path, "it does not say `types` and `structure` of its modules")
    return types, structure


def _check_parameters(parameters: object, path: Path) -> None:
    """What the router is constructed with. A default route counts only where nobody says `query` or `document`."""
    if not isinstance(parameters, dict):
        raise unreadable(path, "`parameters` is no object")
    name = f"{ROUTER_NAME}: parameters"
    if problems := check_keys(parameters, FILES[name], path, name):
        raise DiagnosticError(problems)


def _modules(named: object, types: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    """The modules of one route, in order."""
    if not isinstance(named, list) or any(not isinstance(types.get(name), str) for name in named):
        raise unreadable(path, f"a route names modules without a type: {named!r}")
    outside = [name for name in named if ".." in PurePosixPath(name).parts or name.startswith(("/", "\\"))]
    if outside or any(":" in name for name in named):
        raise unreadable(path, f"a route names modules outside of the checkpoint: {named!r}")
    return [{"path": name, "type": types[name]} for name in named]


def _class_of(module: Mapping[str, Any]) -> str:
    return str(module["type"]).rpartition(".")[2]


def _listed(names: object) -> str:
    return " and ".join(f"`{name}`" for name in names) if isinstance(names, list | dict) and names else "nothing"


def _query_table(folder: Path, path: str, home: str) -> QueryTable:
    """The table in the folder `path`, whose tokenizer must be that of the transformer's folder `home`."""
    config, name = read_object(folder / path / "config.json"), "SparseStaticEmbedding/config.json"
    if problems := check_keys(config, FILES[name], folder / path / "config.json", name):
        raise DiagnosticError(problems)
    file = PurePosixPath(path, WEIGHTS_NAME).as_posix()
    if not (folder / file).is_file():
        raise _refused(folder / path, f"a `SparseStaticEmbedding` without `{WEIGHTS_NAME}`")
    shape = weight_shapes([folder / file]).get(_TENSOR, ())
    if len(shape) != 1:
        raise unreadable(folder / file, f"`{_TENSOR}` has the shape {list(shape)}, not one weight for each token")
    settings, name = read_object(folder / path / "tokenizer_config.json"), "tokenizer_config.json"
    if problems := check_keys(settings, FILES[name], folder / path / name, name):
        raise DiagnosticError(problems)
    if reason := _tokenizes_otherwise(folder / path, folder / home):
        raise _refused(folder / path, f"a `SparseStaticEmbedding` {reason}")
    limit = settings.get("model_max_length")
    return QueryTable(file, shape[0], int(limit) if isinstance(limit, int | float) and 0 < limit < NO_LIMIT else None)


def _tokenizes_otherwise(query: Path, document: Path) -> str | None:
    """Why queries are not known to get the ids that documents get, None if they do.

    Special tokens are not added to queries, so what adds them may differ.
    """
    held = [(home / "tokenizer.json").is_file() for home in (query, document)]
    if not all(held):
        where = "its own folder" if held[1] else "the transformer's folder"
        return f"whose tokenizer cannot be compared with the transformer's: {where} has no `tokenizer.json`"
    ours, theirs = _reading(query), _reading(document)
    differing = sorted(part for part in ours if ours[part] != theirs[part])
    if differing:
        named = ", ".join(f"`{part}`" for part in differing)
        return f"whose tokenizer is another than the transformer's: its {named} differ, and one is served"
    return None


def _reading(home: Path) -> dict[str, Any]:
    """The parts of a tokenizer that decide the ids of a text without special tokens around it."""
    document = read_object(home / "tokenizer.json")
    settings = read_object(home / "tokenizer_config.json")
    normalizer = document.get("normalizer")
    if isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
        normalizer = {
            **normalizer,
            **{there: settings[here] for here, there in _NORMALIZER.items() if here in settings},
        }
    return {
        "model": document.get("model"),
        "pre_tokenizer": document.get("pre_tokenizer"),
        "normalizer": normalizer,
        "added_tokens": _added(document, settings),
        "truncation_side": settings.get("truncation_side") or "right",
    }


def _added(document: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Added tokens by id: those of the document, then those that stand beside it."""
    beside = settings.get("added_tokens_decoder")
    found = {str(key): token for key, token in beside.items()} if isinstance(beside, dict) else {}
    found |= {str(token.get("id")): token for token in document.get("added_tokens") or () if isinstance(token, dict)}
    return {key: [token.get(part) for part in _ADDED] for key, token in found.items() if isinstance(token, dict)}


def _refused(path: Path, what: str) -> DiagnosticError:
    return DiagnosticError([unsupported(path, what)])
