"""A bundle in the making: its values, each with where it came from, and their YAML."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from sie_frontend.outputs.table import OutputType

_WIDTH = 116


@dataclass(frozen=True, slots=True)
class Said:
    """A value of the bundle, and the file and key that it comes from, or the rule."""

    value: Any
    source: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """What is derived for one checkpoint; `max_length` is in tokens, `dims` has the width of each encode output, and
    `inputs` are the modalities.

    `notes` are sentences on what was decided where the files leave a choice.
    """

    adapter: Said
    dims: Mapping[OutputType, Said]
    max_length: Said
    score: bool = False
    inputs: Sequence[str] = ("text",)
    loadtime: Mapping[str, Said] = field(default_factory=dict)
    runtime: Mapping[str, Said] = field(default_factory=dict)
    notes: Sequence[str] = ()


def yaml_text(sie_id: str, weights: Mapping[str, Said], draft: Draft, max_batch_tokens: int) -> str:
    """The bundle as YAML. `weights` are the keys that name where the checkpoint is."""
    heading = ["Derived from the checkpoint; behind each value stands what said it.", *draft.notes]
    lines = [f"# {line}" for note in heading for line in textwrap.wrap(note, _WIDTH)]
    lines += [_line(0, "sie_id", Said(sie_id)), *(_line(0, key, said) for key, said in weights.items())]
    lines += ["inputs:", *(f"  {modality}: true" for modality in draft.inputs), "tasks:", *_tasks(draft)]
    lines += [_line(0, "max_sequence_length", draft.max_length)]
    lines += ["profiles:", "  default:", _line(2, "max_batch_tokens", Said(max_batch_tokens))]
    lines += [_line(2, "compute_precision", Said(None)), _line(2, "adapter_path", draft.adapter)]
    lines += _options(draft)
    return "\n".join(lines) + "\n"


def _tasks(draft: Draft) -> Iterator[str]:
    if draft.dims:
        yield "  encode:"
    for output, said in draft.dims.items():
        yield f"    {output}:"
        yield _line(3, "dim", said)
    if draft.score:
        yield "  score: {}"


def _options(draft: Draft) -> Iterator[str]:
    sides = {"loadtime": draft.loadtime, "runtime": draft.runtime}
    if any(sides.values()):
        yield "    adapter_options:"
    for side, options in sides.items():
        if options:
            yield f"      {side}:"
        for key, said in options.items():
            yield _line(4, key, said)


def _line(level: int, key: str, said: Said) -> str:
    comment = f"  # {said.source}" if said.source else ""
    return f"{'  ' * level}{key}: {_scalar(said.value)}{comment}"


def _scalar(value: Any) -> str:
    """One line of YAML: plain where that reads back as the same text, else in JSON's quotes, which are YAML's."""
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    if value is None or isinstance(value, bool | int):
        return json.dumps(value)
    text = str(value)
    plain = text == text.strip() and text.isascii() and text.isprintable() and not set(text) & set("#'\"{}[],&*!|>%@`")
    if plain and ": " not in text and not text.endswith(":") and text[:1] not in "-?" and yaml.safe_load(text) == text:
        return text
    return json.dumps(text)
