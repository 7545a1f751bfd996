"""Language models that read texts and pictures in one row: Qwen3-VL as an embedder and as a reranker."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sie_frontend.outputs.dense import DenseHead, Pooled
from sie_frontend.outputs.pair_score import CausalHead
from sie_frontend.outputs.table import Head, OutputType
from sie_frontend.text.entry import Prompting, PromptStyle

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.diagnostics import Diagnostic, DiagnosticError
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
from sie_triton.planning.modules import Encoder, WitnessName
from sie_triton.planning.need import Need
from sie_triton.planning.recipe import Pooling, RecipeBase
from sie_triton.planning.tensors import Axis

# A square of Qwen2-VL's patches, in pixels; SIE's adapters count in these whatever the checkpoint's own are.
_SQUARE = 28 * 28
Style = Literal["embed", "rerank"]


@dataclass(frozen=True, kw_only=True)
class MixedRecipe(RecipeBase):
    """Adapters that put an item, or a pair, with its pictures into a conversation.

    `model_type` is the architecture that they serve. `instruction` stands where a call has none and the bundle's
    load-time options have none, under a reranker's fixed `system`. A picture has `min_pixels` to `max_pixels` pixels.
    """

    model_type: str
    style: Style
    instruction: str
    system: str = ""
    min_pixels: int = 256 * _SQUARE
    max_pixels: int = 1280 * _SQUARE
    witness: WitnessName = "mixed_model"
    prompting: PromptStyle = "plain"
    modalities: tuple[str, ...] = ("text", "image")
    joins: bool = True
    extra_files: tuple[str, ...] = (PREPROCESSOR_NAME,)
    optional_files: tuple[str, ...] = (PROCESSOR_TEMPLATE,)
    loadtime_options: frozenset[str] = field(
        default=frozenset({"default_instruction", "dense_dim", "normalize", "pooling"}), hash=False
    )

    def need(
        self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None
    ) -> Need[DensePooling | LastTokenLogits]:
        """One graph over words and patches. Raises `DiagnosticError` for what is not understood of its files."""
        if facts is not None:
            # A template that cannot be followed is refused before anything is built.
            read_conversation(facts)
        head, served = self._head(profile)
        return Need(
            encoder=Encoder(
                "causal_lm" if self.style == "rerank" else "base",
                sighted=read_sighted(facts, self.min_pixels, self.max_pixels) if facts else None,
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

    def _head(self, profile: ResolvedProfile) -> tuple[DensePooling | LastTokenLogits, dict[OutputType, Head]]:
        if self.style == "rerank":
            return LastTokenLogits("yes", "no", "probability"), {"score": CausalHead("score")}
        pooling: Pooling = "mean" if profile.loadtime.get("pooling") == "mean" else "last_token"
        head = DensePooling((pooling,))
        unit = profile.loadtime.get("normalize", True) is not False
        pooled: dict[str, Pooled] = {pooling: Pooled(*head.names(pooling))}
        return head, {"dense": DenseHead(pooling, {}, pooled, normalize=unit, honours_normalize=False)}

    def _width(self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None) -> Axis:
        """The width of a vector. Raises `DiagnosticError` where the bundle declares another."""
        declared = bundle.dims.get("dense")
        if facts is None:
            return declared or "hidden"
        width = read_sighted_sizes(facts, self.model_type).width
        if declared in (None, width):
            return width
        message = f"`{profile.model_id}` declares {declared} dense dimensions, the checkpoint gives {width}"
        hint = f"set `tasks.encode.dense.dim: {width}`, or name the checkpoint that the bundle means"
        where = bundle.positions.get("tasks.encode.dense.dim")
        raise DiagnosticError([Diagnostic("SIE211", message, where, hint)])

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
        runtime_options=frozenset({"max_seq_length"}),
        loadtime_options=frozenset({"default_instruction", "base_processor_model", "base_processor_revision"}),
        notes="a query and a document may have a text, one image, or both; only the document's text is cut",
    ),
}
