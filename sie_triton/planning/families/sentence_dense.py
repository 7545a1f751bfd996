"""Dense vectors as the checkpoint's own modules make them: SIE's adapter of sentence-transformers."""

from __future__ import annotations

from dataclasses import dataclass

from sie_frontend.outputs.table import OutputType
from sie_frontend.text.entry import PromptStyle

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.diagnostics import DiagnosticError
from sie_triton.facts import CheckpointFacts, DenseChain, dense_chain
from sie_triton.facts.files import unsupported
from sie_triton.planning.families.dense import DensePooling, DenseVectors
from sie_triton.planning.modules import Encoder, WitnessName
from sie_triton.planning.need import Need
from sie_triton.planning.recipe import TEMPLATE_OPTIONS, LimitSource, RecipeBase, requires_text


@dataclass(frozen=True, kw_only=True)
class SentenceRecipe(RecipeBase):
    """The adapter that runs the checkpoint with sentence-transformers: the bundle's `pooling` has no effect."""

    name: str = "sentence_transformer_dense"
    outputs: tuple[OutputType, ...] = ("dense",)
    witness: WitnessName = "sentence_transformer"
    prompting: PromptStyle = "sentence_transformer"
    limit_from: LimitSource = "sentence_transformers"
    runs_sentence_transformers: bool = True
    follows_modules: bool = True
    checkpoint_prompts: bool = True
    honours_normalize: bool = True
    runtime_options: frozenset[str] = TEMPLATE_OPTIONS | {"normalize"}
    loadtime_options: frozenset[str] = frozenset({"normalize", "query_template", "doc_template"})

    def need(self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None) -> Need[DensePooling]:
        """One head with the checkpoint's pooling and layers."""
        followed = _followed(facts) if facts else DenseVectors(DensePooling(("mean",)), "hidden")
        vectors = followed.checked(bundle, profile, facts)
        return Need(
            encoder=Encoder(),
            heads=(vectors.head,),
            prompting=self.prompting_rule(facts),
            served={"dense": vectors.served(self, profile)},
            max_length=self.token_limit(profile, facts),
            width=vectors.width,
            pooling=vectors.head.poolings[0] if facts else None,
            unit=vectors.unit if facts else None,
        )


def _followed(facts: CheckpointFacts) -> DenseVectors:
    pipeline = facts.followed("SentenceTransformer")
    if pipeline.listed:
        chain = dense_chain(pipeline, facts.folder)
    else:
        # Without `modules.json` sentence-transformers pools the last token of a model that was made for writing text.
        chain = DenseChain("last_token" if facts.generates else "mean", include_prompt=True, token_layers=(), layers=())
    if not chain.include_prompt and facts.settings.prompts:
        raise DiagnosticError(
            [unsupported(facts.folder / "modules.json", "a Pooling that leaves out the prompt's tokens")]
        )
    width = chain.width(facts.hidden_size)
    keep = facts.settings.truncate_dim
    keep = keep if keep and (width is None or keep < width) else None
    unit = chain.normalizes and keep is None
    head = DensePooling(
        (chain.pooling,),
        # A graph gives every vector at unit length and as pooled: so profiles that do not normalise share it.
        layers=chain.before_normalizing if unit else chain.layers,
        token_layers=chain.token_layers,
        keep=keep,
    )
    return DenseVectors(head, keep or width or "hidden", unit)


ADAPTERS: dict[str, SentenceRecipe] = {
    "SentenceTransformerDenseAdapter": SentenceRecipe(
        requires_text_message=requires_text("SentenceTransformer adapters"),
        usage_counts="raw",
        loads_remote_code=True,
        notes="the checkpoint's modules decide pooling; runtime `pooling` is ignored",
    ),
}
