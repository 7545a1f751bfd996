"""What a page holds: fenced blocks, code within sentences, links and headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^( *)```(\w*)\s*$")
_SPAN = re.compile(r"(`+)(.+?)\1")
_LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is where its text begins, counted from 1."""

    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path
    blocks: tuple[Block, ...]
    prose: str
    """The page without its fenced blocks; their lines are empty, so that lines count as in the file."""

    @property
    def name(self) -> str:
        """The path from the root of the checkout."""
        return self.path.relative_to(ROOT).as_posix()

    def spans(self) -> Iterator[tuple[int, str]]:
        """Every piece of code within the prose, with its line."""
        # Paragraphs are joined, because a span may run over the end of a line.
        for start, paragraph in _paragraphs(self.prose):
            for match in _SPAN.finditer(paragraph):
                line = start + paragraph.count("\n", 0, match.start())
                yield line, " ".join(match[2].split())

    def links(self) -> list[str]:
        """The targets of all links."""
        return _LINK.findall(_SPAN.sub("", self.prose))

    def anchors(self) -> set[str]:
        """What links can name on this page, as GitHub makes it of headings."""
        headings = re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w-]", "", heading.strip().lower().replace(" ", "-")) for heading in headings}


def read_page(path: Path) -> Page:
    """The page of a file. Raises `ValueError` for a fence that is never closed."""
    blocks: list[Block] = []
    prose: list[str] = []
    begun: tuple[int, str, str] | None = None
    text: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.match(line)
        prose.append("" if begun or fence else line)
        if begun is None and fence:
            begun, text = (number + 1, fence[1], fence[2]), []
        elif begun is not None and fence and not fence[2]:
            first, _, language = begun
            blocks.append(Block(first, language, "\n".join(text) + "\n"))
            begun = None
        elif begun is not None:
            text.append(line.removeprefix(begun[1]))
    if begun is not None:
        raise ValueError(f"{path}:{begun[0] - 1}: the block is never closed")
    return Page(path, tuple(blocks), "\n".join(prose))


def pages() -> list[Page]:
    """README and everything in `docs/`."""
    return [read_page(path) for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))]


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    line = 1
    for paragraph in re.split(r"(\n\s*\n)", text):
        # A table's rows and a list's items are sentences of their own.
        if "\n|" in paragraph or paragraph.startswith("|"):
            for offset, row in enumerate(paragraph.split("\n")):
                yield line + offset, row
        else:
            yield line, paragraph
        line += paragraph.count("\n")
