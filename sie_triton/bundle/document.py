"""YAML text to a tree in which every value knows its place.

The values are those of a safe YAML load; duplicate keys, keys that are not text, foreign tags and documents
that grow without bound are the user's mistakes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from sie_triton.diagnostics import Diagnostic, Where

MAX_BYTES = 1 << 20
MAX_VALUES = 20_000
MAX_DEPTH = 48

_MAP_TAG = "tag:yaml.org,2002:map"
_LIST_TAG = "tag:yaml.org,2002:seq"
_MERGE_TAG = "tag:yaml.org,2002:merge"

BROKEN = object()
"""Stands for a scalar that was reported already, so that nothing complains of it twice."""

# What PyYAML's scalar constructors raise on text that does not fit its tag (`!!int ""`, `2024-13-01`, `!!bool maybe`).
_BAD_SCALAR = (yaml.YAMLError, ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError)


@dataclass(frozen=True, slots=True)
class Scalar:
    """A leaf: text, number, boolean, null, date, bytes, or `BROKEN`."""

    value: object
    at: Where


@dataclass(frozen=True, slots=True)
class List:
    """A YAML sequence."""

    items: tuple[Node, ...]
    at: Where


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a map: where the key stands, and its value."""

    key_at: Where
    node: Node


@dataclass(frozen=True, slots=True)
class Map:
    """A YAML mapping with text keys, in the order of the file."""

    entries: dict[str, Entry]
    at: Where


Node: TypeAlias = Scalar | List | Map


class _RefusedError(Exception):
    """Stops reading at a mistake beyond which the document cannot be trusted."""

    def __init__(self, diagnostic: Diagnostic) -> None:
        self.diagnostic = diagnostic
        super().__init__(str(diagnostic))


class _DepthLimited(yaml.composer.Composer):
    """A composer that refuses deep nesting before it meets Python's own limit, being recursive."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.depth = 0
        self.anchors: dict[str, Any] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            ahead: Any = self
            mark = ahead.peek_event().start_mark
            raise _RefusedError(_too_deep(Where(self.path, mark.line + 1, mark.column + 1)))
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _CarefulLoader(_DepthLimited, yaml.SafeLoader):
    """A safe loader of PyYAML's own."""

    def __init__(self, text: str, path: Path) -> None:
        _DepthLimited.__init__(self, path)
        yaml.SafeLoader.__init__(self, text)


_Libyaml: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _QuickLoader(_DepthLimited, _Libyaml):  # type: ignore[misc] # which one is known when it runs
    """The same with libyaml's parser, where PyYAML has it: it has other words for what is wrong."""

    def __init__(self, text: str, path: Path) -> None:
        _DepthLimited.__init__(self, path)
        _Libyaml.__init__(self, text)


def read_document(path: Path, text: str | None = None, *, own: bool = False) -> tuple[Map | None, list[Diagnostic]]:
    """The root map of a UTF-8 YAML file, or None; every mistake found on the way (`SIE101` to `SIE104`, `SIE107`).

    `text` is what is read in place of the file. `own`: the file comes with the distribution; what libyaml takes is then
    read with it, in a fourth of the time.
    """
    if own:
        root, mistakes = _read(path, text, _QuickLoader)
        if not mistakes:
            return root, mistakes
    return _read(path, text, _CarefulLoader)


def _read(
    path: Path, text: str | None, kind: type[_CarefulLoader | _QuickLoader]
) -> tuple[Map | None, list[Diagnostic]]:
    try:
        text = _read_text(path) if text is None else text
        loader = _loader(text, path, kind)
        try:
            root = _compose(loader, path)
            return _Walk(loader, path).document(root)
        finally:
            loader.dispose()
    except _RefusedError as refused:
        return None, [refused.diagnostic]


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise _RefusedError(
            Diagnostic("SIE101", f"the bundle cannot be read: {reason.lower()}", Where(path), "check the path")
        ) from None
    if len(data) > MAX_BYTES:
        raise _RefusedError(
            Diagnostic(
                "SIE101", f"the bundle is larger than {MAX_BYTES} bytes", Where(path), "is this a bundle at all?"
            )
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8-sig")
        raise _RefusedError(
            Diagnostic(
                "SIE101",
                f"byte 0x{data[error.start]:02x} is not UTF-8",
                _end_of(before, path),
                "save the file as UTF-8",
            )
        ) from None


def _loader(text: str, path: Path, kind: type[_CarefulLoader | _QuickLoader]) -> Any:
    try:
        return kind(text, path)
    except yaml.reader.ReaderError as error:
        raise _RefusedError(
            Diagnostic(
                "SIE102",
                f"character U+{ord(text[error.position]):04X} is not allowed in YAML",
                _end_of(text[: error.position], path),
                "remove the control character",
            )
        ) from None


def _compose(loader: Any, path: Path) -> Any:
    try:
        root = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Where(path, mark.line + 1, mark.column + 1) if mark else Where(path)
        raise _RefusedError(Diagnostic("SIE102", f"not valid YAML: {_problem(error)}", where)) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a `%YAML` version or escape beyond Python's range
        raise _RefusedError(Diagnostic("SIE102", f"not valid YAML: {error}", Where(path))) from None
    if root is None:
        raise _RefusedError(
            Diagnostic("SIE102", "the bundle is empty", Where(path), "a bundle needs `sie_id`, `tasks` and `profiles`")
        )
    return root


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem, context = error.problem or "cannot be parsed", error.context
    if not context:
        return str(problem)
    if not context.startswith("while"):
        return f"{context}, {problem}"
    start = f" that starts at line {error.context_mark.line + 1}" if error.context_mark else ""
    return f"{problem}, {context}{start}"


def _end_of(text: str, path: Path) -> Where:
    return Where(path, text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1)


def _too_deep(where: Where) -> Diagnostic:
    return Diagnostic(
        "SIE104",
        f"nested deeper than {MAX_DEPTH} levels",
        where,
        "flatten it, or break up an alias that contains itself",
    )


class _Walk:
    """Turns composed nodes into the tree, expanding aliases under one budget for the whole document."""

    def __init__(self, loader: Any, path: Path) -> None:
        self._loader = loader
        self._path = path
        self._values = 0
        self._diagnostics: list[Diagnostic] = []

    def document(self, root: Any) -> tuple[Map | None, list[Diagnostic]]:
        node = self._node(root, 0)
        if not isinstance(node, Map):
            self._report(
                "SIE107", "a bundle is a map of keys, such as `sie_id`", root, "see any file of SIE's catalogue"
            )
        # An aliased value is visited once for each use; its mistakes are one each.
        return node if isinstance(node, Map) else None, list(dict.fromkeys(self._diagnostics))

    def _node(self, node: Any, depth: int) -> Node:
        where = self._where(node)
        self._values += 1
        if self._values > MAX_VALUES:
            raise _RefusedError(
                Diagnostic(
                    "SIE104",
                    f"holds more than {MAX_VALUES} values once its aliases are expanded",
                    where,
                    "write fewer values, or share fewer of them",
                )
            )
        if depth > MAX_DEPTH:
            raise _RefusedError(_too_deep(where))
        if isinstance(node, yaml.ScalarNode):
            return Scalar(self._scalar(node), where)
        self._check_tag(node, _LIST_TAG if isinstance(node, yaml.SequenceNode) else _MAP_TAG)
        if isinstance(node, yaml.SequenceNode):
            return List(tuple(self._node(item, depth + 1) for item in node.value), where)
        return self._map(node, depth)

    def _map(self, node: Any, depth: int) -> Map:
        merged: dict[str, Entry] = {}
        entries: dict[str, Entry] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE_TAG:
                for source in self._merge_sources(value_node, depth):
                    for key, entry in source.entries.items():
                        merged.setdefault(key, entry)
                continue
            entry = Entry(self._where(key_node), self._node(value_node, depth + 1))
            key_value = self._scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if key_value is BROKEN:
                continue
            if not isinstance(key_value, str):
                self._report("SIE107", f"key {_shown(key_node)} is not text", key_node, "quote the key")
            elif key_value in entries:
                first = entries[key_value].key_at
                self._report(
                    "SIE103", f"key `{key_value}` is given twice", key_node, f"the first is at line {first.line}"
                )
            else:
                entries[key_value] = entry
        return Map({**{k: e for k, e in merged.items() if k not in entries}, **entries}, self._where(node))

    def _merge_sources(self, node: Any, depth: int) -> Iterator[Map]:
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            converted = self._node(source, depth + 1)
            if isinstance(converted, Map):
                yield converted
            else:
                self._report(
                    "SIE107", "`<<` merges a map or a list of maps", source, "name an anchored map after `<<:`"
                )

    def _scalar(self, node: Any) -> object:
        try:
            value: object = self._loader.construct_object(node)
        except yaml.constructor.ConstructorError as error:
            if error.problem and "could not determine a constructor" in error.problem:
                self._foreign_tag(node)
            else:
                self._report(
                    "SIE107", f"{_shown(node)} cannot be read: {error.problem}", node, "quote it to make it text"
                )
        except _BAD_SCALAR:
            kind = str(node.tag).rpartition(":")[2]
            self._report("SIE107", f"{_shown(node)} is not a valid YAML {kind}", node, "quote it to make it text")
        else:
            return value
        return BROKEN

    def _check_tag(self, node: Any, expected: str) -> None:
        if node.tag != expected:
            self._foreign_tag(node)

    def _foreign_tag(self, node: Any) -> None:
        tag = str(node.tag).replace("tag:yaml.org,2002:", "!!")
        self._report("SIE104", f"tag `{tag}` is not allowed", node, "a bundle is plain YAML; remove the tag")

    def _where(self, node: Any) -> Where:
        return Where(self._path, node.start_mark.line + 1, node.start_mark.column + 1)

    def _report(self, code: str, message: str, node: Any, hint: str | None) -> None:
        self._diagnostics.append(Diagnostic(code, message, self._where(node), hint))


def _shown(node: Any) -> str:
    if not isinstance(node, yaml.ScalarNode):
        return "made of several values"
    text = str(node.value)
    return f"`{text if len(text) <= 40 else text[:37] + '...'}`"
