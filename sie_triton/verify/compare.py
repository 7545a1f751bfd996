"""Two sets of arrays -> how far apart they are. The frontend has the functions: it compares too, before it switches."""

from __future__ import annotations

from sie_frontend.closeness import cosine, max_abs, min_cosine

__all__ = ["cosine", "max_abs", "min_cosine"]
