"""What the graph writer must know of an architecture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from sie_triton.facts import Pixels, Sighted
from sie_triton.onnx_graphs.attention import Inputs
from sie_triton.onnx_graphs.builder import GraphBuilder, Value
from sie_triton.onnx_graphs.declined import Declined

Config: TypeAlias = Any
"""transformers' configuration of the checkpoint, with its defaults."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Around a body: the inputs, the longest row in tokens, and whether a decoder attends to both sides."""

    inputs: Inputs
    max_length: int
    bidirectional: bool = False


@dataclass(frozen=True, slots=True)
class Towers:
    """What a model for images and texts has beside the tower of texts, which is its body.

    `vision` gives the last states `[batch, …, hidden]` of pictures `[batch, 3, size, size]`, in the transformer's
    precision. `text_vector` gives vectors `[batch, dim]` of a text's states, ids and mask, `image_vector` of a
    picture's states: states and vectors are float32, and no vector has unit length yet.
    """

    vision: Callable[[GraphBuilder, Config, Value], Value]
    text_vector: Callable[[GraphBuilder, Config, Value, Value, Value], Value]
    image_vector: Callable[[GraphBuilder, Config, Value], Value]


@dataclass(frozen=True, slots=True)
class PageSight:
    """What a language model that sees pictures is told of them: what levels stand for, and the ids behind each one,
    unless ids come with it. `shifted`: patches have the positions of the row and the column in front of theirs.
    """

    pixels: Pixels
    prompt: tuple[int, ...] = ()
    shifted: bool = False


@dataclass(frozen=True, slots=True)
class Architecture:
    """A row of the table. Every function raises `Declined` for what it does not write.

    `prefix` stands before the body's tensors in a checkpoint with a head, and `published_prefix` in one of its authors'
    own. `body` gives the last states, `[batch, sequence, hidden]`; `masked_lm` logits `[…, vocabulary]` of states;
    `classifier` logits `[batch, labels]` of the states, of the first token's `[batch, hidden]`, and of the mask. All in
    the transformer's precision.

    `mixed` gives the last states of rows of words and pictures, `[batch, sequence, hidden]`.
    `page` gives the last states `[batch, positions, hidden]` of pictures that a language model reads. `parts` stand
    before the tensors of a checkpoint that is put together of several models.
    """

    prefix: str
    body: Callable[[GraphBuilder, Config, Frame], Value]
    masked_lm: Callable[[GraphBuilder, Config, Value], Value] | None = None
    classifier: Callable[[GraphBuilder, Config, Value, Value, Value], Value] | None = None
    decodes: bool = False
    published_prefix: str | None = None
    towers: Towers | None = None
    page: Callable[[GraphBuilder, Config, PageSight], Value] | None = None
    parts: tuple[str, ...] = ()
    mixed: Callable[[GraphBuilder, Config, Frame, Sighted], Value] | None = None

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What may stand before the body's tensors."""
        published = () if self.published_prefix is None else (self.published_prefix,)
        return (self.prefix, *published, *self.parts)


def expect(config: Config, key: str, *allowed: Any, default: Any = None) -> None:
    """A setting whose other values are not written. Raises `Declined`."""
    value = getattr(config, key, default)
    if value not in allowed:
        raise Declined(f"`{key}` is {value!r}")


def default_rope(parameters: Any) -> tuple[float, float]:
    """The base of rotary positions and what their frequencies are divided by. Raises `Declined` for other kinds."""
    kind = parameters.get("rope_type", "default")
    if kind not in ("default", "linear") or parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise Declined(f"rotary positions of the kind {dict(parameters)} are not written")
    return float(parameters["rope_theta"]), float(parameters["factor"]) if kind == "linear" else 1.0
