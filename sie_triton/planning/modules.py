"""What graphs compute: the transformer body, and what every head has to say of its own graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

from sie_frontend.outputs.table import Head, OutputType

from sie_triton.facts import Pixels, Sighted, Tiling
from sie_triton.planning.tensors import ATTENTION_MASK, INPUT_IDS, Axis, Tensor

ModelClass = Literal["base", "masked_lm", "sequence_classification", "causal_lm"]
WitnessName = Literal[
    "pooled_transformer",
    "sentence_transformer",
    "sparse_encoder",
    "bge_m3",
    "late_interaction",
    "cross_encoder",
    "causal_model",
    "image_text_model",
    "page_model",
    "open_clip",
    "mixed_model",
]
"""The implementations that graphs are compared with, as `witness.testify` has them."""
HeadT = TypeVar("HeadT", bound="PlannedHead")


@dataclass(frozen=True, slots=True)
class Encoder:
    """The transformer body: token ids and mask to `last_hidden_state`.

    `model_class` says which of the checkpoint's models the body is part of. `bidirectional` lets a decoder attend to
    both sides. `padded`: every text is padded to one length, and the padding counts like any token. `pixels`: the body
    is the tower that sees pictures, and this is what their levels stand for. `page`: a language model reads what the
    tower sees, and these are the ids of what stands behind it, or how it stands among tokens of text. `sighted`: it
    reads texts and pictures in one row. `shifted_patches`: the patches of a tile have the positions of the row
    and the column in front of theirs, and the first ones keep their own.
    """

    model_class: ModelClass = "base"
    bidirectional: bool = False
    token_types: bool = False
    padded: bool = False
    pixels: Pixels | None = None
    page: tuple[int, ...] | Tiling | None = None
    sighted: Sighted | None = None
    shifted_patches: bool = False
    kind: Literal["encoder"] = "encoder"


class PlannedHead(ABC):
    """What the plan and the writers must know of a head, whichever it is. Heads are frozen dataclasses."""

    __slots__ = ()

    kind: str
    """Names the head's Triton model in an ensemble."""
    reads_mask: ClassVar[bool] = True
    """Whether it reads `attention_mask`: an input that a graph does not read would not be in the exported graph."""
    reads_ids: ClassVar[bool] = False
    """Whether it reads `input_ids` beside the states."""
    traceable: ClassVar[bool] = True
    """Whether torch can trace a graph with it. What it cannot is written, as `onnx_graphs` has it, or not built."""
    compacted: ClassVar[bool] = False
    """Whether its torch module gives weights over the vocabulary, which the writers turn into `SPARSE_IDS` and
    `SPARSE_WEIGHTS`, as wide as the data decide."""
    fits_tensorrt: ClassVar[bool] = True
    """Whether TensorRT can take a graph with it. It takes none whose outputs' size the data decide."""

    @property
    def reads(self) -> frozenset[str]:
        """The encoder's inputs that it reads beside the states."""
        names = {INPUT_IDS: self.reads_ids, ATTENTION_MASK: self.reads_mask}
        return frozenset(name for name, read in names.items() if read)

    @property
    @abstractmethod
    def told_by(self) -> tuple[WitnessName, ...]:
        """The witnesses that compute the same in their own way: a head that none of them knows is not compiled."""

    @abstractmethod
    def outputs(self, width: Axis) -> tuple[Tensor, ...]:
        """The tensors that leave, in order. `width` is that of a dense vector."""

    def shared(self) -> PlannedHead:
        """What must be equal for two profiles to share the head's graph."""
        return self

    def joined(self: HeadT, others: Sequence[PlannedHead]) -> HeadT:
        """The head that serves other profiles too, whose heads have the same `shared()`."""
        return self

    def named(self, served: dict[OutputType, Head]) -> dict[OutputType, Head]:
        """How the frontend reads a profile's tensors, by the names that they have in this head's graph."""
        return served
