"""Where each field of a text-format protobuf stands: a path of names and indexes to a line.

This reader never refuses: what is no text format at all has no fields. Whether a text *is* a valid `ModelConfig`
is protobuf's to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

FieldPath = tuple[str | int, ...]

_TOKEN = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*)
      | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<word>\[[A-Za-z_][\w./]*\](?=\s*[:{<])|[\w.+-]+)
      | (?P<mark>.)""",
    re.VERBOSE | re.DOTALL,
)
_OPENING = {"{": "}", "<": ">"}
_MAX_DEPTH = 32  # deeper than any ModelConfig; keeps garbage from exhausting the stack


@dataclass(slots=True)
class FieldLines:
    """Lines of fields. Every name on a path is followed by its index: `("input", 0, "dims", 0)`."""

    lines: dict[FieldPath, int] = field(default_factory=dict)
    values: dict[FieldPath, str] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> FieldLines:
        """Find the fields of `text`; of a malformed text, those before the trouble."""
        found = cls()
        _FieldReader(text, found).message((), None, 0)
        return found

    def has(self, *names: str) -> bool:
        """Whether the field is written, through first elements: `has("dynamic_batching", "priority_levels")`."""
        return self._first(names) in self.lines

    def line(self, *path: str | int) -> int | None:
        """Line of the field, else of the nearest field around it that is written.

        Names without an index mean the first element: `line("input", 2, "dims")`.
        """
        full = list(_indexed(path))
        while full:
            if (line := self.lines.get(tuple(full))) is not None:
                return line
            del full[-2:]
        return None

    def entry(self, prefix: tuple[str | int, ...], value: str, *, key: str = "key") -> int | None:
        """Line of the element of the repeated field or map at `prefix` whose `key` is `value`."""
        head = tuple(_indexed(prefix))[:-1]
        for path, written in self.values.items():
            if written == value and path[: len(head)] == head and path[len(head) + 1 :] == (key, 0):
                return self.lines[path]
        return None

    @staticmethod
    def _first(names: tuple[str, ...]) -> FieldPath:
        return tuple(part for name in names for part in (name, 0))


def _indexed(path: tuple[str | int, ...]) -> Iterator[str | int]:
    """Put index 0 behind each name that has none."""
    for position, part in enumerate(path):
        yield part
        if isinstance(part, str) and not (position + 1 < len(path) and isinstance(path[position + 1], int)):
            yield 0


class _FieldReader:
    def __init__(self, text: str, found: FieldLines) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._found = found

    def message(self, prefix: FieldPath, closing: str | None, depth: int) -> None:
        counts: dict[str, int] = {}
        while self._at < len(self._tokens):
            kind, token, line = self._tokens[self._at]
            self._at += 1
            if token == closing:
                return
            if kind != "word":
                continue
            if self._peek() == ":":
                self._at += 1
            if self._peek() == "[":
                self._at += 1
                while self._at < len(self._tokens) and self._peek() != "]":
                    if self._peek() == ",":
                        self._at += 1
                        continue
                    self._value(prefix, token, counts, line, depth)
                self._at += 1
            else:
                self._value(prefix, token, counts, line, depth)

    def _value(self, prefix: FieldPath, name: str, counts: dict[str, int], name_line: int, depth: int) -> None:
        index = counts.get(name, 0)
        counts[name] = index + 1
        path = (*prefix, name, index)
        if self._at >= len(self._tokens):
            self._found.lines[path] = name_line
            return
        kind, token, line = self._tokens[self._at]
        self._at += 1
        if token in _OPENING and kind == "mark":
            self._found.lines[path] = name_line if index == 0 else line
            if depth < _MAX_DEPTH:
                self.message(path, _OPENING[token], depth + 1)
            return
        self._found.lines[path] = line
        self._found.values[path] = token[1:-1] if kind == "string" else token

    def _peek(self) -> str | None:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else None


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "mark"
        if kind != "skip":
            yield kind, match.group(), line
        line += match.group().count("\n")
