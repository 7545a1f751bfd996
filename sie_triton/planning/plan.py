"""`TritonPlan` and its nouns: tensors with named axes, graphs, ensemble steps, what a recipe needs of them.

A plan is printable without torch. What is exported must equal it in names, order, types and dynamic axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sie_frontend.outputs.table import Head, OutputType
from sie_frontend.text.entry import Prompting

from sie_triton.bundle import ResolvedProfile
from sie_triton.facts import Layer, Pooling
from sie_triton.formats import DEVICES, FORMATS, Device, Format, GraphFormat, Precision
from sie_triton.planning.catalogue import Recipe

# Raise when the exported bytes change for equal inputs, so that `build` does not skip what it should renew.
EXPORTER_REVISION = 5

Layout = Literal["ensemble", "fused"]
ModelClass = Literal["base", "masked_lm", "sequence_classification", "causal_lm"]
Axis: TypeAlias = str | int  # a name for what varies ("batch", "sequence", "terms") or is not known yet ("hidden")

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
TOKEN_TYPE_IDS = "token_type_ids"
HIDDEN = "last_hidden_state"
SPARSE_IDS = "sparse_ids"
SPARSE_WEIGHTS = "sparse_weights"


@dataclass(frozen=True, slots=True)
class GraphOptions:
    """What a build chooses for all its models. None leaves it: the layout to the heads, the precision to the bundle.

    `devices` are the kinds of machine that the repository is for; the first one's configuration is `config.pbtxt`.
    `packing` lets graphs for CPUs compute padding only where tokens meet.
    """

    format: Format = "onnx"
    layout: Layout | None = None
    precision: Precision | None = None
    devices: tuple[Device, ...] = DEVICES
    packing: bool = True


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


@dataclass(frozen=True, slots=True)
class Encoder:
    """The transformer body: token ids and mask to `last_hidden_state`.

    `model_class` says which of the checkpoint's models the body is part of. `bidirectional` lets a decoder attend to
    both sides.
    """

    model_class: ModelClass = "base"
    bidirectional: bool = False
    token_types: bool = False
    kind: Literal["encoder"] = "encoder"


@dataclass(frozen=True, slots=True)
class DensePooling:
    """Token embeddings to one vector per pooling, `[batch, dim]`, each L2-normalised and as pooled.

    `token_layers` come in front of the pooling, `layers` behind it; of what leaves them the first `keep` numbers stay
    (None: all). All poolings that a request may choose are in one graph: beside the encoder they cost nothing, and on
    the embedded server every graph is a process.
    """

    poolings: tuple[Pooling, ...]
    layers: tuple[Layer, ...] = ()
    token_layers: tuple[Layer, ...] = ()
    keep: int | None = None
    kind: Literal["dense"] = "dense"


@dataclass(frozen=True, slots=True)
class SparseMax:
    """Masked-language-model logits, `log1p(relu)` once or twice, maximum or sum over tokens; compact on the way out.

    `max_terms`: how many of the largest weights stay (None: all). SPLADE: Formal et al., 2021.
    """

    double_log: bool = False
    pooling: Literal["max", "sum"] = "max"
    max_terms: int | None = None
    kind: Literal["sparse"] = "sparse"


@dataclass(frozen=True, slots=True)
class TokenWeights:
    """BGE-M3's sparse head: `relu(linear(token))`, `[batch, sequence]`."""

    file: str
    kind: Literal["token_weights"] = "token_weights"


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """A vector per token, projected, cut to `dim` and normalised: `[batch, sequence, dim]`.

    The projection is a chain of `layers`, else the checkpoint's tensor `weight`, else a `file`, else nothing.
    """

    dim: int
    layers: tuple[Layer, ...] = ()
    weight: str | None = None
    file: str | None = None
    normalize: bool = True
    kind: Literal["multivector"] = "multivector"


@dataclass(frozen=True, slots=True)
class Classifier:
    """A sequence-classification head with one label, `[batch, 1]`, and the class of `torch.nn` that follows it."""

    activation: str
    kind: Literal["score"] = "score"


@dataclass(frozen=True, slots=True)
class LastTokenLogits:
    """Logits of one or two tokens at the last position, `[batch, 1]`: their difference, P(yes), or the one logit."""

    yes: str
    no: str | None
    mode: Literal["difference", "probability", "logit"]
    kind: Literal["score"] = "score"


HeadModule: TypeAlias = DensePooling | SparseMax | TokenWeights | TokenVectors | Classifier | LastTokenLogits


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
    format: Format = "onnx"
    layout: Layout = "ensemble"
    precisions: Mapping[Device, Precision] = field(default_factory=lambda: {"cpu": "float32"})
    packing: bool = False
    truncation_side: Literal["left", "right"] = "right"
    lowercase: bool = False
    warnings: tuple[str, ...] = ()
    modality: str = "text"

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
        return self.packing and self.format == "onnx" and users == {"cpu"}

    @property
    def graph_format(self) -> GraphFormat:
        """What Triton and the files must be told of the format."""
        return FORMATS[self.format]


def triton_model_name(model_id: str, part: str | None = None) -> str:
    """Triton's name of a model id or of one of its parts; Triton refuses `/`, and `:` is no file name everywhere."""
    name = model_id.replace("/", "__").replace(":", "__")
    return f"{name}.{part}" if part else name


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
