"""What is requested, whichever source is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sie_triton.checkpoint.files import OPEN_CLIP_CONFIG, PREPROCESSOR, Parts, open_clip_files, wanted_files

SEEING: Mapping[str, str] = {"clip": "CLIPAdapter", "siglip": "SiglipAdapter"}
"""The kinds of model with a tower of images that are compiled, by the adapter that a bundle names."""


@dataclass(frozen=True, slots=True)
class Request:
    """A model at a revision, and what the recipe needs besides the usual files.

    `optional_files` are fetched if they exist; `extra_files` must exist. `seen_by_another`: pictures are read by the
    adapter that this is the base of, which brings what says how they are prepared.
    """

    hf_id: str
    revision: str | None
    extra_files: tuple[str, ...]
    trust_remote_code: bool
    optional_files: tuple[str, ...] = ()
    seen_by_another: bool = False

    def wanted(self, names: Iterable[str], parts: Parts | None = None) -> tuple[str, ...]:
        """Those of these names that are fetched and digested."""
        if self.open_clip:
            return open_clip_files(names)
        more = (*self.extra_files, *self.optional_files)
        return wanted_files(names, parts=parts, extra_files=more, trust_remote_code=self.trust_remote_code)

    @property
    def open_clip(self) -> bool:
        """Whether the recipe reads open_clip's layout."""
        return OPEN_CLIP_CONFIG in self.extra_files

    def anchor(self, parts: Parts) -> str:
        """The file that says what the model is."""
        return OPEN_CLIP_CONFIG if self.open_clip else f"{parts.home}config.json"

    def sees_kind(self, config: Mapping[str, Any]) -> bool:
        """Whether pictures are wanted of a checkpoint with this configuration.

        A recipe that sees needs to know how they are prepared; one that is still to be chosen takes it along.
        """
        may_see = PREPROCESSOR in self.optional_files and str(config.get("model_type")) in SEEING
        return PREPROCESSOR in self.extra_files or self.open_clip or self.seen_by_another or may_see

    @property
    def shown(self) -> str:
        """The model and its revision for a message."""
        return f"`{self.hf_id}` at revision `{self.revision or 'main'}`"
