"""What this package answers where it cannot write a graph."""

from __future__ import annotations


class Declined(Exception):  # an answer, not an error: torch traces the graph instead
    """The graph cannot be written without torch. The message is the reason, as a sentence without its full stop."""
