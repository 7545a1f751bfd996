"""A checkpoint's facts -> the bundle that nobody had to write. It reads and writes no file, and never imports torch."""

from __future__ import annotations

from .bundle import OPTIONAL_FILES, Derived, Origin, derive_bundle

__all__ = ["OPTIONAL_FILES", "Derived", "Origin", "derive_bundle"]
