"""The token limits that requests ask for among their options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sie_frontend.contract.errors import invalid_input


def length_option(options: Mapping[str, Any], name: str) -> int | None:
    """A request's token limit; raises `WireError` (400) unless it is a positive whole number or null."""
    value = options.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise invalid_input(f"'options.{name}' must be a positive integer or null, got {value!r}")
    return value


def coerced_length(options: Mapping[str, Any], name: str) -> int | None:
    """A request's token limit for the adapters that take it as Python's `int` does: "12", 12.5 and true are limits.

    None, which leaves the model's own limit, for null and for what is not positive. Raises `WireError` (400) for what
    is no number.
    """
    value = options.get(name)
    if value is None:
        return None
    try:
        if not isinstance(value, str | int | float):
            raise TypeError
        length = int(value)
    except (TypeError, ValueError, OverflowError):
        raise invalid_input(f"'options.{name}' must be a positive integer or null, got {value!r}") from None
    return length if length > 0 else None
