"""Tensors with named axes, their names, and those of Triton models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Axis: TypeAlias = str | int  # a name for what varies ("batch", "sequence", "terms") or is not known yet ("hidden")

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
TOKEN_TYPE_IDS = "token_type_ids"
PIXELS = "pixels"
HIDDEN = "last_hidden_state"
SPARSE_IDS = "sparse_ids"
SPARSE_WEIGHTS = "sparse_weights"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A named, typed place in a signature. `axes[0]` is "batch"; `datatype` is Triton's name for it."""

    name: str
    datatype: str
    axes: tuple[Axis, ...]

    @property
    def dims(self) -> tuple[int, ...]:
        """As in `config.pbtxt`: without batch, -1 for what varies."""
        return tuple(axis if isinstance(axis, int) else -1 for axis in self.axes[1:])


def triton_model_name(model_id: str, part: str | None = None) -> str:
    """Triton's name of a model id or of one of its parts; Triton refuses `/`, and `:` is no file name everywhere."""
    name = model_id.replace("/", "__").replace(":", "__")
    return f"{name}.{part}" if part else name
