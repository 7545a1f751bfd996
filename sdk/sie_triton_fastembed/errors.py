"""What this package raises besides the errors of `sie_sdk`, which say what went wrong with a single call."""

from __future__ import annotations


class ServerUnreachableError(ConnectionError):
    """No server answers at the address: nothing listens there, it broke off, or it took too long."""


class ModelNotServedError(ValueError):
    """The server has no such model, or not with this kind of output. Fastembed raises `ValueError` here, too."""
