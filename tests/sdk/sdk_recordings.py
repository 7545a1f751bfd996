"""Comparing with what SIE's own SDK sent, and with what it made of its answers."""

from __future__ import annotations

from typing import Any

import numpy as np

IGNORED_REQUEST_HEADERS = frozenset({"host", "user-agent", "connection"})


def comparable(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in IGNORED_REQUEST_HEADERS}


def rendered(value: Any) -> Any:
    """The value as the recorded outcomes spell it."""
    if isinstance(value, np.ndarray):
        return (
            f"ndarray(dtype={value.dtype.str}, shape={value.shape}, writeable={value.flags.writeable}, "
            f"values={value.ravel().tolist()})"
        )
    if isinstance(value, dict):
        return {key: rendered(member) for key, member in value.items()}
    return [rendered(member) for member in value] if isinstance(value, list) else value
