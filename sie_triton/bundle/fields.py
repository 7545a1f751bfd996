"""Reading a map with a closed set of keys: unknown keys, missing keys and wrong types are reported, all of them.

Conversions follow SIE's: a number in quotes is a number, `yes` in quotes is a boolean, anything else is as written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from sie_triton.diagnostics import Diagnostic, Where

from .document import BROKEN, Entry, List, Map, Node, Scalar
from .suggest import did_you_mean

T = TypeVar("T")

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]+(_[0-9]+)*(\.0+)?", re.ASCII)
_MOST_DIGITS = 4_000
_BOOLEANS = {
    **dict.fromkeys(("1", "on", "t", "true", "y", "yes"), True),
    **dict.fromkeys(("0", "off", "f", "false", "n", "no"), False),
}


@dataclass(slots=True)
class Report:
    """What is known of one file beside its values: the mistakes, and where every known key stands."""

    path: Path
    diagnostics: list[Diagnostic] = field(default_factory=list)
    positions: dict[str, Where] = field(default_factory=dict)

    def add(self, code: str, message: str, where: Where, hint: str | None = None) -> None:
        """Note one mistake."""
        self.diagnostics.append(Diagnostic(code, message, where, hint))


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """A type of value: its name in messages, and a conversion that raises ValueError on what does not fit."""

    name: str
    convert: Callable[[object], T]
    hint: str | None = None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


def _whole_number(value: object) -> int:
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        digits = value.strip()
        if len(digits) <= _MOST_DIGITS and _WHOLE_NUMBER.fullmatch(digits):
            return int(digits.partition(".")[0])
    raise ValueError


def _number(value: object) -> float:
    if isinstance(value, (int, float)) or (isinstance(value, str) and value.isascii()):
        try:
            number = float(value)
        except OverflowError:
            raise ValueError from None
        if math.isfinite(number):
            return number
    raise ValueError


def _boolean(value: object) -> bool:
    if isinstance(value, str):
        value = _BOOLEANS.get(value.lower())
    if isinstance(value, (bool, int, float)) and value in (0, 1):
        return bool(value)
    raise ValueError


TEXT: Kind[str] = Kind("text", _text, "quote it to make it text")
WHOLE_NUMBER: Kind[int] = Kind("a whole number", _whole_number)
NUMBER: Kind[float] = Kind("a finite number", _number)
BOOLEAN: Kind[bool] = Kind("`true` or `false`", _boolean)


def one_of(words: Sequence[T]) -> Kind[T]:
    """Exactly one of the given words."""

    def convert(value: object) -> T:
        for word in words:
            if word == value and isinstance(value, str):
                return word
        raise ValueError

    return Kind(f"one of {', '.join(f'`{w}`' for w in words)}", convert)


def shown(node: Node) -> str:
    """The value as a message quotes it, cut to 40 characters."""
    if isinstance(node, Map):
        return "a map"
    if isinstance(node, List):
        return "a list"
    if node.value is None:
        return "null"
    text = str(node.value).lower() if isinstance(node.value, bool) else str(node.value)
    return f"`{text if len(text) <= 40 else text[:37] + '...'}`"


class Section:
    """One map of the bundle, named by its dotted path (`""` for the root), with the keys it may hold."""

    def __init__(self, report: Report, name: str, node: Map, keys: Sequence[str]) -> None:
        self.name = name
        self.at = node.at
        self._report = report
        self._node = node
        for key, entry in node.entries.items():
            if key in keys:
                report.positions[self.path(key)] = entry.node.at
            else:
                self._unknown(key, entry, keys)

    def path(self, key: str) -> str:
        """The dotted path of a key of this map."""
        return f"{self.name}.{key}" if self.name else key

    def entry(self, key: str) -> Entry | None:
        """The key and its value as written; None when absent."""
        return self._node.entries.get(key)

    def is_null(self, key: str) -> bool:
        """Whether the key is written with an explicit null."""
        entry = self.entry(key)
        return entry is not None and isinstance(entry.node, Scalar) and entry.node.value is None

    def require(self, key: str, hint: str | None = None) -> None:
        """Report the key as missing if it is."""
        if self.entry(key) is None:
            self._report.add("SIE106", f"key `{self.path(key)}` is missing", self.at, hint)

    def read(self, key: str, kind: Kind[T], *, nullable: bool = True) -> T | None:
        """The converted value; None when absent, null or (reported) wrong. A null is wrong unless `nullable`."""
        entry = self.entry(key)
        if entry is None or (nullable and self.is_null(key)):
            return None
        return self._convert(self.path(key), entry.node, kind)

    def section(self, key: str, keys: Sequence[str], *, nullable: bool = True) -> Section | None:
        """The map under a key, to be read in turn; None when absent, null or (reported) not a map."""
        node = self.map(key, nullable=nullable)
        return None if node is None else Section(self._report, self.path(key), node, keys)

    def map(self, key: str, *, nullable: bool = True) -> Map | None:
        """The map under a key, whatever its keys; None when absent, null or (reported) not a map."""
        entry = self.entry(key)
        if entry is None or (nullable and self.is_null(key)):
            return None
        if isinstance(entry.node, Map):
            return entry.node
        self._wrong(self.path(key), entry.node, "a map")
        return None

    def list(self, key: str) -> List | None:
        """The list under a key; None when absent, null or (reported) not a list."""
        entry = self.entry(key)
        if entry is None or self.is_null(key):
            return None
        if isinstance(entry.node, List):
            return entry.node
        self._wrong(self.path(key), entry.node, "a list")
        return None

    def each(self, key: str, kind: Kind[T]) -> tuple[T, ...]:
        """The converted items of the list under a key; wrong ones are reported and left out."""
        node = self.list(key)
        if node is None:
            return ()
        converted = (self._convert(f"{self.path(key)}[{i}]", item, kind) for i, item in enumerate(node.items))
        return tuple(item for item in converted if item is not None)

    def options(self, key: str) -> dict[str, object]:
        """The open map under a key as plain data that JSON can carry; empty when absent. Null is wrong."""
        node = self.map(key, nullable=False)
        if node is None:
            return {}
        section = Section(self._report, self.path(key), node, tuple(node.entries))
        return {name: self._plain(section.path(name), entry.node) for name, entry in node.entries.items()}

    def _plain(self, path: str, node: Node) -> object:
        if isinstance(node, Map):
            return {key: self._plain(f"{path}.{key}", entry.node) for key, entry in node.entries.items()}
        if isinstance(node, List):
            return [self._plain(f"{path}[{i}]", item) for i, item in enumerate(node.items)]
        value = node.value
        if value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value)):
            return value
        self._wrong(path, node, "text, a finite number, a boolean or null", "quote it to make it text")
        return None

    def _convert(self, path: str, node: Node, kind: Kind[T]) -> T | None:
        try:
            return kind.convert(node.value if isinstance(node, Scalar) else node)
        except ValueError:
            self._wrong(
                path, node, kind.name, kind.hint if isinstance(node, Scalar) and node.value is not None else None
            )
            return None

    def _wrong(self, path: str, node: Node, expected: str, hint: str | None = None) -> None:
        if not (isinstance(node, Scalar) and node.value is BROKEN):
            self._report.add("SIE107", f"`{path}` must be {expected}, not {shown(node)}", node.at, hint)

    def _unknown(self, key: str, entry: Entry, keys: Sequence[str]) -> None:
        place = f" in `{self.name}`" if self.name else ""
        allowed = (
            f"allowed here: {', '.join(f'`{k}`' for k in keys)}" if keys else "no keys are allowed here; write `{}`"
        )
        self._report.add("SIE105", f"unknown key `{key}`{place}", entry.key_at, did_you_mean(key, keys) or allowed)
