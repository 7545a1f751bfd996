"""Where vectors and their texts are stored: a file for each kind of store, all read through one protocol.

Nothing here writes to a store, and nothing unpickles. A store's own package is imported when it is asked for.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from sie_triton.diagnostics import Diagnostic, DiagnosticError

Metric = Literal["cosine", "dot", "euclid", "unknown"]
Vector = npt.NDArray[np.float32]

TEXT_FIELDS = ("text", "document", "page_content", "content", "chunk", "passage", "body")
"""Where texts are commonly kept: by clients of stores, LangChain, Haystack and others."""


@dataclass(frozen=True)
class Stored:
    """One stored text with its vector, `[dims]`; what lies beside it in the store may explain a difference.

    `fields` are its other texts, such as a title. `others` are its vectors of other names.
    """

    key: str
    text: str
    vector: Vector
    fields: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, Vector] = field(default_factory=dict)


class VectorStore(Protocol):
    """One index, opened for reading.

    `metric` is how it compares; `normalizes`: it gives vectors back at length 1, whatever was written.
    """

    name: str
    metric: Metric
    normalizes: bool
    notes: list[str]

    def sample(self, count: int, seed: int) -> list[Stored]:
        """At most `count` entries that have text and vector, the same ones for the same seed, in a stable order."""
        ...


def chosen(keys: Iterable[Any], count: int, seed: int) -> list[Any]:
    """The `count` keys with the smallest hashes: the same for the same seed in whatever order they come.

    Holds `count` keys in memory, however many there are.
    """
    ranked = ((hashed(key, seed), position, key) for position, key in enumerate(keys))
    return [key for _, _, key in heapq.nsmallest(count, ranked)]


def hashed(key: object, seed: int) -> bytes:
    """A number of eight bytes for a key, by `seed`."""
    return hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()


def pages(keys: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """The keys, `size` at a time."""
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


def as_vector(value: object) -> Vector | None:
    """A list of numbers as `[dims]`; None for what is none, such as nothing, or a list of lists."""
    try:
        given = np.asarray(value)
        vector = None if np.iscomplexobj(given) else given.astype(np.float32)
    except (TypeError, ValueError, OverflowError):
        return None
    return vector if vector is not None and vector.ndim == 1 and vector.size else None


def pick(kind: str, wanted: str | None, there: Sequence[str], usual: Sequence[str], option: str) -> str:
    """The name that was asked for, else the one that is usual, else the only one that there is.

    Raises `DiagnosticError` (`SIE904`, `SIE905`) that lists the names otherwise.
    """
    listed = ", ".join(f"`{name}`" for name in there) or "none"
    if wanted is not None:
        if wanted in there:
            return wanted
        raise fail("SIE904", f"there is no {kind} `{wanted}`; there are: {listed}", f"name one of them with `{option}`")
    known = [name for name in usual if name in there] or list(there)
    if len(known) == 1 or (known and known[0] in usual):
        return known[0]
    if known:
        raise fail("SIE905", f"several could be the {kind}: {listed}", f"name it with `{option}`")
    raise fail("SIE904", f"there is no {kind}", f"name it with `{option}`")


def left_out(chosen: int, found: int) -> list[str]:
    """What is noted of the entries of a sample that have no text or no vector; nothing where all have both."""
    return [f"entries without text or without vector, left out: {chosen - found}"] if found < chosen else []


def text_at(payload: object, path: str) -> str | None:
    """The text at a dotted path of a payload, such as `metadata.title`; None where there is none."""
    for key in [path] if isinstance(payload, Mapping) and path in payload else path.split("."):
        payload = payload.get(key) if isinstance(payload, Mapping) else None
    return payload if isinstance(payload, str) else None


def text_fields(payload: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Every text of a payload by its dotted path, two levels deep."""
    found = {}
    for key, value in payload.items():
        if isinstance(value, str):
            found[f"{prefix}{key}"] = value
        elif isinstance(value, Mapping) and not prefix:
            found |= text_fields(value, f"{key}.")
    return found


def fail(code: str, message: str, hint: str) -> DiagnosticError:
    """One diagnostic as an exception."""
    return DiagnosticError([Diagnostic(code, message, None, hint)])


def missing_package(package: str, install: str) -> DiagnosticError:
    """`SIE902`: a store needs its own package."""
    return fail("SIE902", f"reading this store needs the package `{package}`", f"pip install '{install}'")
