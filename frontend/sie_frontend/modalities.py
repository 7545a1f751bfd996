"""Every modality that is served, a row each: the one place that names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sie_frontend.contract.requests import Item, Limits
from sie_frontend.images.entry import AnyImageInput
from sie_frontend.images.reader import ImageReader
from sie_frontend.mixed.entry import MixedInput
from sie_frontend.mixed.reader import MixedReader
from sie_frontend.rows import Reader
from sie_frontend.text.entry import TextInput
from sie_frontend.text.reader import TextReader


class OpensReader(Protocol):
    """Makes the reader of one input: from its entry, the folder of the repository and the model's runtime options."""

    def __call__(
        self, entry: Any, repository: Path, *, profiles: Mapping[str, Mapping[str, Any]], limits: Limits
    ) -> Reader:
        """`limits` bound what one request may hold once everything is around its items."""


@dataclass(frozen=True, slots=True)
class Modality:
    """What an item may be made of.

    `entry` is the type of the manifest's entries, or a union of tagged ones. `files` are the paths in the repository
    that an entry names.
    """

    entry: Any
    open: OpensReader
    given_by: Callable[[Item], bool]
    files: Callable[[Any], tuple[str, ...]]


def _text_files(entry: TextInput) -> tuple[str, ...]:
    return (entry.tokenization.path,)


def _mixed_files(entry: MixedInput) -> tuple[str, ...]:
    return (entry.tokenization.path,)


MODALITIES: dict[str, Modality] = {
    "mixed": Modality(
        MixedInput, MixedReader, given_by=lambda item: item.text is not None or bool(item.images), files=_mixed_files
    ),
    "image": Modality(AnyImageInput, ImageReader, given_by=lambda item: bool(item.images), files=lambda _: ()),
    "text": Modality(TextInput, TextReader, given_by=lambda item: item.text is not None, files=_text_files),
}
"""By the names that manifests use. Of an item that gives several, the first of this order is read.

A process may add rows of its own before it reads a manifest.
"""

IMAGES = frozenset({"image", "mixed"})
"""The inputs of models that read images."""
