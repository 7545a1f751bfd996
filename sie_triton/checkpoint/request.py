"""What is requested, whichever source is asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sie_triton.checkpoint.files import PREPROCESSOR, Parts, wanted_files


@dataclass(frozen=True, slots=True)
class Request:
    """A model at a revision, and what the recipe needs besides the usual files.

    `optional_files` are fetched if they exist; `extra_files` must exist.
    """

    hf_id: str
    revision: str | None
    extra_files: tuple[str, ...]
    trust_remote_code: bool
    optional_files: tuple[str, ...] = ()

    def wanted(self, names: Iterable[str], parts: Parts | None = None) -> tuple[str, ...]:
        """Those of these names that are fetched and digested."""
        more = (*self.extra_files, *self.optional_files)
        return wanted_files(names, parts=parts, extra_files=more, trust_remote_code=self.trust_remote_code)

    @property
    def sees(self) -> bool:
        """Whether the recipe reads pictures, so that it needs to know how they are prepared."""
        return PREPROCESSOR in (*self.extra_files, *self.optional_files)

    @property
    def shown(self) -> str:
        """The model and its revision for a message."""
        return f"`{self.hf_id}` at revision `{self.revision or 'main'}`"
