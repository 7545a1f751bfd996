"""The calls of embedders in a project: what the table knows, HTTP posts to embedding servers, and subclasses."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from sie_triton.migrate.scan.names import Function, Module
from sie_triton.migrate.scan.programs import Program
from sie_triton.migrate.scan.project import Project, keywords_of, map_entries
from sie_triton.migrate.scan.table import Callable, find_callable
from sie_triton.migrate.scan.values import Text, Values, tail, tail_name

_HTTP_CALLS = frozenset({"post", "request", "Request", "urlopen", "stream"})
# The path of a request -> whose it is and what it asks for.
_PATHS: Mapping[str, tuple[str, str]] = {
    "embed": ("TEI", "dense"),
    "embed_all": ("TEI", "multivector"),
    "embed_sparse": ("TEI", "sparse"),
    "rerank": ("TEI", "score"),
    "embeddings": ("OpenAI", "dense"),
}
# What calls a function later or elsewhere -> where that function stands among its arguments.
_DEFERRED: Mapping[str, int] = {
    "partial": 0,
    "partialmethod": 0,
    "run_in_executor": 1,
    "run_in_threadpool": 0,
    "run_sync": 0,
    "submit": 0,
    "to_thread": 0,
}
_HOSTED = ("api.openai.com", "openai.azure.com")


@dataclass(frozen=True, slots=True)
class EmbedderCall:
    """One call of an embedder with one model that it may use.

    `task`: dense, sparse, multivector, score, image, or any. `model` None: it cannot be told, and `note` says why;
    otherwise `note` says what else may count. `server`: the call goes to a URL of its own, so only that changes.
    """

    place: str
    library: str
    api: str
    task: str
    model: str | None
    note: str = ""
    server: bool = False


def find_calls(programs: Iterable[Program]) -> list[EmbedderCall]:
    """Every call, in the order of files and lines; a call that may use several models is there once for each."""
    project = Project(Module(program) for program in programs)
    values = Values(project)
    found = [call for module in project.modules for node in module.calls for call in _of(project, values, module, node)]
    return list(dict.fromkeys(found))


def _of(project: Project, values: Values, module: Module, node: ast.Call) -> Iterator[EmbedderCall]:
    parent = _parent_constructor(project, module, node)
    names = list(project.qualified(module, node.func)) if parent is None else parent
    rows = _rows_of(names)
    if not rows and (made := _deferred(project, module, node)) is not None:
        rows, node = made
    if not rows:
        yield from _openai_of_unknown(values, module, node, names)
        yield from _http(values, module, node, names)
        return
    # A subclass with an `__init__` of its own says in there which model it takes.
    if parent is None and _has_own_init(project, module, node.func):
        return
    for row in rows:
        yield from _called(project, values, module, node, row)


def _rows_of(names: Iterable[str]) -> list[Callable]:
    """The rows of all names that one expression may have: a map or a loop may hold several classes."""
    return list(dict.fromkeys(row for name in names if (row := find_callable(name)) is not None))


def _called(project: Project, values: Values, module: Module, node: ast.Call, row: Callable) -> Iterator[EmbedderCall]:
    node = values.unpacked(module, node)
    place = module.program.place(node.lineno)
    made = project.constructor(module, node.func.value) if isinstance(node.func, ast.Attribute) else None
    url = _base_url(values, node, module) or (_base_url(values, made[1], made[0]) if made else "")
    hosted = any(host in url for host in _HOSTED)
    server = bool(url) and not hosted
    for text in _models(values, module, node, row, made):
        yield EmbedderCall(place, row.library, row.name, row.task, text.value, text.note, server)


def _models(
    values: Values, module: Module, node: ast.Call, row: Callable, made: tuple[Module, ast.Call] | None
) -> Iterable[Text]:
    given = _argument(node, row)
    if given is None and made is not None and row.position is None:
        # A client may be made for one model.
        module, node = made
        given = _argument(node, row) if row.default == "" else None
        given = given or (node.args[0] if node.args and row.library == "TEI" else None)
    if given is not None:
        return [_without_url(text) for text in values.texts(module, given)] or [_left_out(row)]
    if any(keyword.arg is None for keyword in node.keywords) or any(isinstance(a, ast.Starred) for a in node.args):
        return [Text(None, "its arguments are unpacked from a value")]
    return [_left_out(row)]


def _left_out(row: Callable) -> Text:
    if row.default:
        return Text(row.default, f"the default of `{row.name}`")
    return Text(None, "the server decides" if row.library in ("TEI", "infinity") else "no model is named")


def _without_url(text: Text) -> Text:
    if text.value is not None and re.match(r"https?://", text.value):
        return Text(None, f"the server at {text.value} decides")
    return text


def _argument(node: ast.Call, row: Callable) -> ast.expr | None:
    given = keywords_of(node)
    for keyword in row.keywords:
        outer, _, inner = keyword.partition(".")
        if outer in given:
            found = map_entries(given[outer]).get(inner) if inner else given[outer]
            if found is not None:
                return found
    if row.position is not None and row.position < len(node.args):
        argument = node.args[row.position]
        return None if isinstance(argument, ast.Starred) else argument
    return None


def _base_url(values: Values, node: ast.Call, module: Module) -> str:
    """The address that a client is given, "" if none; `?` for one that cannot be told."""
    given = keywords_of(node)
    for name in ("base_url", "api_base", "openai_api_base", "infinity_api_url", "api_base_url", "azure_endpoint"):
        if name in given:
            texts = values.texts(module, given[name])
            return texts[0].value or "?" if texts else ""
    return ""


def _parent_constructor(project: Project, module: Module, node: ast.Call) -> list[str] | None:
    """The names of the classes whose `__init__` a subclass calls: `super().__init__(…)` or `Base.__init__(self, …)`."""
    match node.func:
        case ast.Attribute(attr="__init__", value=ast.Call(func=ast.Name(id="super"))):
            owner = next((e for e in reversed(module.scope(node)) if isinstance(e, ast.ClassDef)), None)
            return [name for base in owner.bases for name in project.qualified(module, base)] if owner else None
        case _:
            return None


def _has_own_init(project: Project, module: Module, func: ast.expr) -> bool:
    found = project.definition_of(module, func)
    if found is None or not isinstance(found[1], ast.ClassDef):
        return False
    inits = [part for part in found[1].body if isinstance(part, Function) and part.name == "__init__"]
    return any(
        isinstance(part, ast.Call) and _parent_constructor(project, found[0], part)
        for init in inits
        for part in ast.walk(init)
    )


def _deferred(project: Project, module: Module, node: ast.Call) -> tuple[list[Callable], ast.Call] | None:
    """`partial(TextEmbedding, "name")`, `pool.submit(TextEmbedding, "name")` and the like, as the call that is made."""
    position = _DEFERRED.get(tail_name(node.func))
    if position is None or position >= len(node.args):
        return None
    func = node.args[position]
    rows = _rows_of(project.qualified(module, func))
    if not rows:
        return None
    return rows, ast.copy_location(ast.Call(func=func, args=node.args[position + 1 :], keywords=node.keywords), node)


def _openai_of_unknown(values: Values, module: Module, node: ast.Call, names: Iterable[str]) -> Iterator[EmbedderCall]:
    """`anything.embeddings.create(model=…, input=…)`: a client that came from elsewhere."""
    match node.func:
        case ast.Attribute(attr="create", value=ast.Attribute(attr="embeddings")):
            given = keywords_of(node)
            if "input" in given and "model" in given:
                for text in values.texts(module, given["model"]):
                    place = module.program.place(node.lineno)
                    yield EmbedderCall(place, "OpenAI", "embeddings.create", "dense", text.value, text.note)
        case _:
            pass


def _http(values: Values, module: Module, node: ast.Call, names: Iterable[str]) -> Iterator[EmbedderCall]:
    if tail_name(node.func) not in _HTTP_CALLS:
        return
    given = keywords_of(node)
    for argument in [*node.args[:2], *(given[key] for key in ("url", "path") if key in given)]:
        texts = [text.value for text in values.texts(module, argument) if text.value] or [tail(argument)]
        for url in texts:
            library, task = _PATHS.get(urlsplit(url).path.rstrip("/").rpartition("/")[2], ("", "")) if url else ("", "")
            if library and ("/" in url):
                yield from _posted(values, module, node, url, library, task)
                return


def _posted(
    values: Values, module: Module, node: ast.Call, url: str, library: str, task: str
) -> Iterator[EmbedderCall]:
    given = keywords_of(node)
    body = given.get("json") or given.get("data") or given.get("content")
    body = values.written(module, body) if body is not None else None
    entry = map_entries(body).get("model") if body is not None else None
    hosted = any(host in url for host in _HOSTED)
    where = f"POST {url if url.startswith('http') else '…' + url}"
    texts = values.texts(module, entry) if entry is not None else (Text(None, "the server decides"),)
    for text in texts:
        yield EmbedderCall(module.program.place(node.lineno), library, where, task, text.value, text.note, not hosted)
