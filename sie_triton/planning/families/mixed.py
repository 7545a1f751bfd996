"""Language models that read texts and pictures in one row: Qwen3-VL as an embedder and as a reranker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sie_frontend.images.options import IMAGE_OPTIONS
from sie_frontend.mixed.entry import Conversation
from sie_frontend.outputs.dense import DenseHead, Pooled
from sie_frontend.outputs.multivector import MultiVectorHead
from sie_frontend.outputs.pair_score import CausalHead
from sie_frontend.outputs.table import Head, OutputType
from sie_frontend.text.entry import Prompting, PromptStyle

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.facts import (
    PREPROCESSOR_NAME,
    PROCESSOR_TEMPLATE,
    CheckpointFacts,
    read_conversation,
    read_sighted,
    read_sighted_sizes,
)
from sie_triton.planning.families.causal import LastTokenLogits
from sie_triton.planning.families.dense import DensePooling
from sie_triton.planning.families.pages import BUFFERS, PageVectors
from sie_triton.planning.modules import Encoder, WitnessName
from sie_triton.planning.need import Need
from sie_triton.planning.pictures import check_view
from sie_triton.planning.recipe import Pooling, RecipeBase
from sie_triton.planning.tensors import Axis

# A square of Qwen2-VL's patches, in pixels; SIE's adapters count in these whatever the checkpoint's own are.
_SQUARE = 28 * 28
Style = Literal["embed", "rerank", "page"]


MixedHead: TypeAlias = DensePooling | LastTokenLogits | PageVectors
"""The heads that these models have; other families own them."""


@dataclass(frozen=True, kw_only=True)
class MixedRecipe(RecipeBase):
    """Adapters that put an item, or a pair, with its pictures into a conversation.

    `model_type` is the architecture that they serve. `instruction` stands where a call has none and the bundle's
    load-time options have none, under a reranker's fixed `system`. A picture has `min_pixels` to `max_pixels` pixels.
    A page model has no conversation: `shown` stands for a picture, `behind` behind a text, and `projection` is the
    linear layer that makes a vector of each state. `windows`: the tower looks into windows, and has no table of places.
    """

    model_type: str
    style: Style
    instruction: str
    system: str = ""
    shown: str = ""
    behind: str = ""
    projection: str = ""
    windows: bool = False
    min_pixels: int = 256 * _SQUARE
    max_pixels: int = 1280 * _SQUARE
    witness: WitnessName = "mixed_model"
    prompting: PromptStyle = "plain"
    modalities: tuple[str, ...] = ("text", "image")
    joins: bool = True
    runtime_options: frozenset[str] = IMAGE_OPTIONS
    extra_files: tuple[str, ...] = (PREPROCESSOR_NAME,)
    optional_files: tuple[str, ...] = (PROCESSOR_TEMPLATE,)
    loadtime_options: frozenset[str] = field(
        default=frozenset({"default_instruction", "dense_dim", "normalize", "pooling"}), hash=False
    )

    def need(self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None) -> Need[MixedHead]:
        """One graph over words and patches. Raises `DiagnosticError` for what is not understood of its files."""
        check_view(bundle, profile)
        sighted = None
        if facts is not None:
            if facts.truncation_side != "right":
                message = "`tokenizer_config.json` sets `truncation_side: left`: models that see are cut at their end"
                hint = "use a checkpoint without it"
                raise DiagnosticError([Diagnostic("SIE337", message, Where(facts.folder), hint)])
            # A template that cannot be followed is refused before anything is built.
            self.conversation(facts)
            sizes = read_sighted_sizes(facts, self.model_type)
            sighted = read_sighted(facts, sizes, self.min_pixels, self.max_pixels)
        head, served = self._head(profile)
        return Need(
            encoder=Encoder(
                "causal_lm" if self.style == "rerank" else "base",
                sighted=sighted,
            ),
            heads=(head,),
            prompting=Prompting("plain"),
            served=served,
            max_length=self.token_limit(profile, facts),
            width=self._width(bundle, profile, facts),
            pooling=head.poolings[0] if isinstance(head, DensePooling) else None,
        )

    def default_instruction(self, profile: ResolvedProfile) -> str:
        """What stands for an instruction: the constructor's, as SIE has it; the runtime option is not read."""
        given = profile.loadtime.get("default_instruction")
        return given if isinstance(given, str) and given.strip() else self.instruction

    def conversation(self, facts: CheckpointFacts) -> Conversation:
        """What stands around texts and pictures. Raises `DiagnosticError` for a template that cannot be followed."""
        if self.style == "page":
            return Conversation("", "", self.shown, self.behind)
        return Conversation(*read_conversation(facts))

    def _head(self, profile: ResolvedProfile) -> tuple[MixedHead, dict[OutputType, Head]]:
        if self.style == "page":
            return PageVectors(self.projection), {"multivector": MultiVectorHead("multivector")}
        if self.style == "rerank":
            return LastTokenLogits("yes", "no", "probability"), {"score": CausalHead("score")}
        pooling: Pooling = "mean" if profile.loadtime.get("pooling") == "mean" else "last_token"
        head = DensePooling((pooling,))
        unit = profile.loadtime.get("normalize", True) is not False
        pooled: dict[str, Pooled] = {pooling: Pooled(*head.names(pooling))}
        return head, {"dense": DenseHead(pooling, {}, pooled, normalize=unit, honours_normalize=False)}

    def _width(self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None) -> Axis:
        """The width of a vector. Raises `DiagnosticError` where the bundle declares another."""
        output = "multivector" if self.style == "page" else "dense"
        declared = bundle.dims.get(output)
        if facts is None:
            return declared or "hidden"
        width = self._checkpoint_width(facts)
        if declared in (None, width):
            return width
        message = f"`{profile.model_id}` declares {declared} {output} dimensions, the checkpoint gives {width}"
        hint = f"set `tasks.encode.{output}.dim: {width}`, or name the checkpoint that the bundle means"
        where = bundle.positions.get(f"tasks.encode.{output}.dim")
        raise DiagnosticError([Diagnostic("SIE211", message, where, hint)])

    def _checkpoint_width(self, facts: CheckpointFacts) -> int:
        """Raises `DiagnosticError` where a page model has no projection."""
        width = read_sighted_sizes(facts, self.model_type).width
        if not self.projection:
            return width
        shape = facts.weight_shapes.get(f"{self.projection}.weight")
        if shape is None or shape[1:] != (width,):
            message = f"the checkpoint has no tensor `{self.projection}.weight` that makes vectors of states of {width}"
            hint = "use the checkpoint that has it"
            raise DiagnosticError([Diagnostic("SIE404", message, Where(facts.folder), hint)])
        return shape[0]

    def _checkpoint_limits(self, declared: int | None, facts: CheckpointFacts) -> tuple[int | None, ...]:
        return (read_sighted_sizes(facts, self.model_type).positions,)


ADAPTERS: dict[str, MixedRecipe] = {
    "Qwen3VLEmbeddingAdapter": MixedRecipe(
        name="qwen3_vl_embedding",
        requires_text_message="Qwen3VLEmbeddingAdapter requires either text, images, or video input",
        outputs=("dense",),
        model_type="qwen3_vl",
        style="embed",
        instruction="Represent the user's input.",
        notes="an item's images and its text are one row; videos are not read; an instruction is the system's text",
    ),
    "ColQwen2Adapter": MixedRecipe(
        name="colqwen2_5",
        requires_text_message="ColQwen2Adapter requires either text or images input",
        outputs=("multivector",),
        model_type="qwen2_5_vl",
        style="page",
        instruction="",
        shown=(
            "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the image.<|im_end|><|endoftext|>"
        ),
        behind="<|endoftext|>" * BUFFERS,
        projection="custom_text_proj",
        windows=True,
        max_pixels=768 * _SQUARE,
        optional_files=(),
        loadtime_options=frozenset({"muvera_config", "normalize", "token_dim"}),
        notes="images win over text, except in queries; several images of an item are joined",
    ),
    "Qwen3VLRerankerAdapter": MixedRecipe(
        name="qwen3_vl_reranker",
        requires_text_message=(
            "Qwen3VLRerankerAdapter requires nonblank text or one image in every query and document item"
        ),
        outputs=("score",),
        model_type="qwen3_vl",
        style="rerank",
        instruction="Retrieve relevant documents for the query.",
        system=(
            "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
            'Note that the answer can only be "yes" or "no".'
        ),
        request_limit=True,
        runtime_options=IMAGE_OPTIONS | {"max_seq_length"},
        loadtime_options=frozenset({"default_instruction", "base_processor_model", "base_processor_revision"}),
        notes="a query and a document may have a text, one image, or both; only the document's text is cut",
    ),
}
