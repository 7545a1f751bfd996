"""An exception of a gateway's batch jobs, for `except` clauses that name it."""

from __future__ import annotations


class MalformedChunkError(Exception):
    """A chunk of a batch job that cannot be decoded. This SDK submits no jobs and never raises it."""
