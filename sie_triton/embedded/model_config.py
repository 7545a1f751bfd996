"""Reading Triton's ModelConfig in the JSON form that backends receive.

Integers of 64 bits arrive as strings or numbers, enumerations as their names; absent fields mean proto3's defaults.
Shared by both backends and the rules: standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

_INTEGER = re.compile(r"\s*[+-]?\d+\s*")
_TRUE, _FALSE = ("true", "1"), ("false", "0")


def max_batch_size(config: Config) -> int:
    """The largest batch; 0 where the model has no batch dimension."""
    return int(config.get("max_batch_size", 0))


def dims(tensor: Config) -> tuple[int, ...]:
    """The configured dims of an input or output as the *graph* sees them: `reshape` where there is one."""
    reshape = tensor.get("reshape")
    shape = tensor.get("dims", ()) if reshape is None else reshape.get("shape", ())
    return tuple(int(dim) for dim in shape)


def batch_targets(config: Config, field: str) -> dict[str, Config]:
    """Target tensor name -> its `batch_input` or `batch_output` entry."""
    return {name: entry for entry in config.get(field, ()) for name in entry.get("target_name", ())}


def text_parameter(config: Config, key: str) -> str | None:
    """`parameters[key].string_value`, None where the key is absent."""
    entry = config.get("parameters", {}).get(key)
    return None if entry is None else str(entry.get("string_value", ""))


def integer_parameter(config: Config, key: str, default: int) -> int:
    """The parameter as an integer. Raises `ValueError` naming the key for anything else."""
    text = text_parameter(config, key)
    if text is None:
        return default
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"parameter `{key}` is `{text}`, not an integer")
    return int(text)


def boolean_parameter(config: Config, key: str, default: bool) -> bool:
    """The parameter as `true`/`1` or `false`/`0`, in any case. Raises `ValueError` naming the key otherwise."""
    text = text_parameter(config, key)
    if text is None:
        return default
    lowered = text.lower()
    if lowered not in _TRUE + _FALSE:
        raise ValueError(f"parameter `{key}` is `{text}`, neither true nor false")
    return lowered in _TRUE
