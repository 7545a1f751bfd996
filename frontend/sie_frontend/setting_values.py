"""What a setting is, and how its text becomes its value: `ValueError` says what was expected of a wrong one."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final

METADATA: Final = "setting"
"""Under this name the metadata of a field of `Settings` say what it is."""

_ENDPOINT = re.compile(
    r"(dns://)?(?P<host>\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_.-]+)(:(?P<port>\d{1,5}))(/[A-Za-z0-9._~/-]*)?"
)
_BYTES = re.compile(r"(?P<number>\d{1,15}(\.\d{1,6})?) ?(?P<unit>[KMGT]I?B|[KMGT]|B?)", re.IGNORECASE | re.ASCII)
_UNITS: Final = {"": 1, "B": 1} | {
    f"{letter}{unit}": base**power
    for power, letter in enumerate("KMGT", 1)
    for unit, base in (("", 1000), ("B", 1000), ("IB", 1024))
}


def is_loopback(host: str) -> bool:
    """Whether a host (an address without brackets) is this machine alone, and nothing that others can reach."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def as_text(value: str) -> str:
    """As it is."""
    return value


def as_whole(value: str) -> int:
    """A whole number without a sign. Raises `ValueError`."""
    if not (value.isascii() and value.isdecimal()):
        raise ValueError("a whole number")
    return int(value)


def as_seconds(value: str) -> float:
    """A number of seconds, not negative. Raises `ValueError`."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError("a number of seconds")
    return number


def as_size(value: str) -> int:
    """Bytes of a size such as `8GB` or `512MiB`. Raises `ValueError`."""
    match = _BYTES.fullmatch(value.strip())
    number = float(match["number"]) * _UNITS[match["unit"].upper()] if match else 0.0
    if not 0 < number < 2.0**63:
        raise ValueError("a size such as `8GB` or `512MiB`")
    return int(number)


def as_endpoints(value: str) -> tuple[str, ...]:
    """Each `host:port` or `dns://name:port` of a list, in the order given; a path may follow. Raises `ValueError`."""
    found: list[str] = []
    for entry in value.split(","):
        endpoint = entry.strip().removeprefix("http://").rstrip("/")
        match = _ENDPOINT.fullmatch(endpoint)
        if match is None or not 0 < int(match["port"]) <= 65535:
            raise ValueError(f"must be `host:port`, or several joined by commas, not {entry.strip()!r}")
        if endpoint in found:
            raise ValueError(f"names {endpoint!r} twice")
        found.append(endpoint)
    return tuple(found)


def as_switch(value: str) -> bool:
    """Whether a switch is on. Raises `ValueError`."""
    meaning = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if value.lower() not in meaning:
        raise ValueError("`true` or `false`")
    return meaning[value.lower()]


@dataclass(frozen=True, slots=True)
class Setting:
    """The meaning of one field of `Settings`. `parse` raises `ValueError`, whose text says what was expected."""

    name: str
    variable: str
    default: Any
    help: str
    parse: Callable[[str], Any]
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """The option of the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def default_text(self) -> str:
        """The default as one would write it in the environment; "" where nothing is set."""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return (
            ""
            if self.default is None
            else f"{self.default:g}"
            if isinstance(self.default, float)
            else f"{self.default}"
        )


def setting(
    variable: str,
    default: Any,
    help: str,
    *,
    parse: Callable[[str], Any] = as_text,
    choices: tuple[str, ...] = (),
) -> Any:
    """A field of `Settings` with what is known of it."""
    return field(default=default, metadata={METADATA: (variable, help, parse, choices)})
