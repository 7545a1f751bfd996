"""What only the embedded server reads, which NVIDIA's backends would ignore."""

from __future__ import annotations

from sie_triton.backends.embedded import ALONE_THREADS, CONFIG_NAME, STREAMS, WIDEST_ROW
from sie_triton.lint.rule import LintSubject


def is_for_embedded(s: LintSubject, key: str) -> bool:
    """Whether a parameter is the embedded server's, in the configuration that is written for it."""
    return key in (STREAMS, ALONE_THREADS, WIDEST_ROW) and s.config.path.stem == CONFIG_NAME
