"""What Triton says of a load that failed, without what only says that it failed."""

from __future__ import annotations

import re

_HEAD = re.compile(r"load failed for model '[^']*': ")
_VERSION = re.compile(r"version \d+ is at UNAVAILABLE state: (?:Internal: )?|^Internal: ")
_STACK = re.compile(r"\s*\n\s*At:\n(?:  .*\n?)*")


def cause_of_load(message: str) -> str:
    """The cause alone: the exception of a Python-based backend, or the words of a C++ one. Never empty."""
    found = _STACK.sub("", _VERSION.sub("", _HEAD.sub("", message))).strip().rstrip(";").strip()
    return found or message.strip()
