"""The table of callables that make or call an embedder: `calls.txt`, a line for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

TABLE = Path(__file__).parent / "calls.txt"


@dataclass(frozen=True, slots=True)
class Callable:
    """One row. `keywords` name the model, the first that is given counts; `a.b` is the key `b` of the map `a`.

    `position` is where the model may stand without its keyword; None: nowhere. `default` is what counts where no model
    is given; "" if one must be.
    """

    packages: tuple[str, ...]
    name: str
    library: str
    task: str
    keywords: tuple[str, ...]
    position: int | None
    default: str

    def fits(self, qualified: str) -> bool:
        """Whether a dotted name, such as `openai.OpenAI().embeddings.create`, is this callable."""
        package = qualified.partition(".")[0]
        inside = qualified == f"{package}.{self.name}" or qualified.endswith(f".{self.name}")
        return inside and any(fnmatchcase(package, pattern) for pattern in self.packages)


@cache
def callables() -> tuple[Callable, ...]:
    """Every row, in the order of the table: longer names first where one ends as another does."""
    return tuple(sorted(_rows(), key=lambda row: -row.name.count(".")))


@cache
def packages() -> frozenset[str]:
    """The packages and patterns that the table speaks of."""
    return frozenset(pattern for row in callables() for pattern in row.packages)


def known_package(name: str) -> bool:
    """Whether a top-level package is one of the table's."""
    return any(fnmatchcase(name, pattern) for pattern in packages())


def find_callable(qualified: str) -> Callable | None:
    """The row of a dotted name, if it has one."""
    return next((row for row in callables() if row.fits(qualified)), None)


def _rows() -> Iterator[Callable]:
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        found, name, library, task, keywords, position, default = (cell.strip() for cell in line.split("|"))
        yield Callable(
            packages=tuple(found.split()),
            name=name,
            library=library,
            task=task,
            keywords=tuple(keywords.split()),
            position=int(position) if position else None,
            default=default,
        )
