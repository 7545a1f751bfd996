"""`TritonPlan` and its nouns: graphs, ensemble steps, what is served on top of them.

A plan is printable without torch. What is exported must equal it in names, order, types and dynamic axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sie_frontend.outputs.table import Head, OutputType
from sie_frontend.text.entry import Prompting

from sie_triton.bundle import ResolvedProfile
from sie_triton.facts import Framing, Spelling
from sie_triton.formats import DEFAULT_FORMAT, DEVICES, FORMATS, Device, Engine, Format, GraphFormat, Precision
from sie_triton.planning.families import HeadModule, Recipe
from sie_triton.planning.modules import Encoder
from sie_triton.planning.tensors import Tensor

# Raise when the exported bytes change for equal inputs, so that `build` does not skip what it should renew.
EXPORTER_REVISION = 8

Layout = Literal["ensemble", "fused"]


@dataclass(frozen=True, slots=True)
class GraphOptions:
    """What a build chooses for all its models. None leaves it: the layout to the heads, the precision to the bundle.

    `devices` are the kinds of machine that the repository is for; the first one's configuration is `config.pbtxt`.
    `packing` lets graphs for CPUs compute padding only where tokens meet. `traced` has torch trace every graph, those
    too that can be written without it. `accepted`: what int8 and bfloat16 may miss, by name, and down to where.
    `engine`: what computes ONNX graphs on a CPU.
    """

    format: Format = DEFAULT_FORMAT
    layout: Layout | None = None
    precision: Precision | None = None
    devices: tuple[Device, ...] = DEVICES
    packing: bool = True
    traced: bool = False
    accepted: tuple[tuple[str, float], ...] = ()
    engine: Engine = "onnxruntime"


@dataclass(frozen=True, slots=True)
class Fused:
    """Encoder and heads as one graph: hidden states stay where they are made, and every head is always computed."""

    encoder: Encoder
    heads: tuple[HeadModule, ...]
    kind: Literal["fused"] = "fused"


Module: TypeAlias = Encoder | HeadModule | Fused


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """One exported computation and the Triton model that holds it."""

    triton_model: str
    module: Module
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def heads(self) -> tuple[HeadModule, ...]:
        """The heads that this graph computes; none if it is the encoder alone."""
        if isinstance(self.module, Fused):
            return self.module.heads
        return () if isinstance(self.module, Encoder) else (self.module,)

    @property
    def has_encoder(self) -> bool:
        """Whether the transformer body is in it: beside that, heads cost next to nothing."""
        return isinstance(self.module, Encoder | Fused)


@dataclass(frozen=True, slots=True)
class Step:
    """One entry of `ensemble_scheduling`; the maps go from a composing model's tensor to the ensemble's."""

    triton_model: str
    input_map: dict[str, str]
    output_map: dict[str, str]


@dataclass(frozen=True, slots=True)
class ServedPlan:
    """One routable model id on top of a `TritonPlan`: how the frontend prepares its text and reads its tensors."""

    profile: ResolvedProfile
    recipe: Recipe
    prompting: Prompting
    heads: dict[OutputType, Head]


@dataclass(frozen=True, slots=True)
class TritonPlan:
    """A public Triton model: its graphs, its wiring, its limits and the ids that it serves.

    Without `steps` the one graph is itself the public model. `precisions` says what the graphs compute in on each kind
    of device; graphs that agree are one file. `query_weights`: the checkpoint's files of token weights that stand in
    for the model on queries; the first that can be read counts. `packing`: whether graphs for CPUs may be packed.
    `truncation_side`: where a text that is too long loses tokens; `lowercase`: whether text is lowercased first.
    `warnings`: what the bundle asks for without effect. `modality`: what the items are made of that it computes.
    `traced`: whether torch traces every graph, the ones too that could be written without it. `row_tokens`: how many
    positions of the transformer one row takes for each that its cost tells; a picture costs one and is many patches.
    `engine`: what computes ONNX graphs on a CPU.
    `spelling`: what is done to texts that `tokenizer.json` does not do. `framing`: what always stands around them.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    graphs: tuple[GraphPlan, ...]
    steps: tuple[Step, ...]
    max_length: int
    buckets: tuple[int, ...]
    max_batch_tokens: int
    served: tuple[ServedPlan, ...]
    query_weights: tuple[str, ...] = ()
    format: Format = DEFAULT_FORMAT
    layout: Layout = "ensemble"
    precisions: Mapping[Device, Precision] = field(default_factory=lambda: {"cpu": "float32"})
    packing: bool = False
    truncation_side: Literal["left", "right"] = "right"
    lowercase: bool = False
    warnings: tuple[str, ...] = ()
    modality: str = "text"
    traced: bool = False
    row_tokens: int = 1
    spelling: Spelling | None = None
    framing: Framing | None = None
    engine: Engine = "onnxruntime"

    @property
    def traceable(self) -> bool:
        """Whether torch can trace its graphs."""
        return all(head.traceable for head in self.heads)

    @property
    def encoder(self) -> Encoder:
        """The transformer body of the plan."""
        module = self.graphs[0].module
        if isinstance(module, Fused):
            return module.encoder
        assert isinstance(module, Encoder)
        return module

    @property
    def heads(self) -> tuple[HeadModule, ...]:
        """All heads, in the order of their outputs."""
        return tuple(head for graph in self.graphs for head in graph.heads)

    def packs(self, precision: Precision) -> bool:
        """Whether the graphs in a precision may be packed: those that no GPU uses.

        TensorRT cannot be told the limits of a shape that the data decide, and packing was never measured on a GPU.
        """
        users = {device for device, chosen in self.precisions.items() if chosen == precision}
        return self.packing and self.graph_format.packs and users == {"cpu"}

    @property
    def graph_format(self) -> GraphFormat:
        """What Triton and the files must be told of the format."""
        return FORMATS[self.format]


def bucket_lengths(max_length: int) -> tuple[int, ...]:
    """Padded lengths up to `max_length`: steps of 16 up to 128, then an eighth of the next power of two.

    Rounding up to a bucket adds at most 15 tokens to a short text and less than 25 % to a long one, while the number of
    shapes that ONNX Runtime's arena and Triton's batcher see stays small: 8, and 4 to a doubling after that.
    """
    buckets: list[int] = []
    length = 16
    while length < max_length:
        buckets.append(length)
        length += max(16, (1 << length.bit_length()) // 8) if length >= 128 else 16
    return (*buckets, max_length)
