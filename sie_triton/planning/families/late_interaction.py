"""One vector per token: ColBERT and its kin, whose scores are sums over the best matches of tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeAlias

import msgspec
from sie_frontend.outputs.late_score import MaxSimScore
from sie_frontend.outputs.multivector import MultiVectorHead
from sie_frontend.outputs.table import Head, OutputType
from sie_frontend.text.entry import PromptStyle, Sides, TextSide

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.facts import CheckpointFacts, Layer, token_chain
from sie_triton.planning.modules import Encoder, PlannedHead, WitnessName
from sie_triton.planning.need import Need, mistake
from sie_triton.planning.recipe import RecipeBase, requires_text
from sie_triton.planning.tensors import Axis, Tensor

# Checkpoints keep their projection under one of these names, if it is not a module of its own.
PROJECTION_NAMES = ("colbert_linear", "linear", "projection", "dense")


@dataclass(frozen=True, slots=True)
class TokenVectors(PlannedHead):
    """A vector per token, projected, cut to `dim` and normalised: `[batch, sequence, dim]`.

    The projection is a chain of `layers`, else the checkpoint's tensor `weight`, else a `file`, else nothing.
    """

    reads_mask: ClassVar[bool] = False

    dim: int
    layers: tuple[Layer, ...] = ()
    weight: str | None = None
    file: str | None = None
    normalize: bool = True
    kind: Literal["multivector"] = "multivector"

    @property
    def told_by(self) -> tuple[WitnessName, ...]:
        """The witnesses that know it."""
        return ("late_interaction", "bge_m3")

    def outputs(self, width: Axis) -> tuple[Tensor, ...]:
        """`[batch, sequence, dim]`."""
        return (Tensor("multivector", "FP32", ("batch", "sequence", self.dim)),)


@dataclass(frozen=True, kw_only=True)
class LateRecipe(RecipeBase):
    """Adapters of late interaction. The bundle says how queries and documents are read, never the checkpoint."""

    outputs: tuple[OutputType, ...] = ("multivector", "score")
    witness: WitnessName = "late_interaction"
    prompting: PromptStyle = "colbert"
    follows_modules: bool = True
    runtime_options: frozenset[str] = frozenset({"max_seq_length", "query_max_length"})
    loadtime_options: frozenset[str] = frozenset(
        {
            "doc_max_length",
            "doc_prefix",
            "doc_punctuation_skiplist",
            "muvera_config",
            "normalize",
            "query_expansion",
            "query_max_length",
            "query_prefix",
            "skip_special_tokens",
            "smve_config",
            "token_dim",
        }
    )
    marker_is_token: bool = True
    """Whether a side's marker is one token behind the first, and not text in front of the item's."""
    expands_queries: bool = True
    """Whether queries are padded with the mask token unless the load-time option `query_expansion` is false."""
    attend_expansion: bool = False
    """Whether the model attends to that padding."""
    special_roles: tuple[str, ...] = ("cls", "sep", "pad")
    """Special tokens without a vector, unless the load-time option `skip_special_tokens` is false."""
    always_dropped: tuple[str, ...] = ("pad",)
    """Special tokens without a vector in any case."""
    drops_punctuation: bool = True
    """Whether punctuation in documents has no vector, where `doc_punctuation_skiplist` does not say."""
    projection_names: tuple[str, ...] = PROJECTION_NAMES
    """The checkpoint's tensor that projects is called one of these, or has `colbert` in its name."""
    needs_projection: bool = False
    """Whether a checkpoint without that tensor is refused; else its states are only cut."""

    def need(self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None) -> Need[TokenVectors]:
        """One head; where the bundle asks for scores, the frontend computes them from its vectors."""
        loadtime = profile.loadtime
        limit = self.token_limit(profile, facts)
        query = self._side(
            profile,
            "query",
            min(limit, int(loadtime.get("query_max_length", 32))),
            expand=self.expands_queries and loadtime.get("query_expansion", True) is not False,
        )
        document = self._side(
            profile,
            "doc",
            min(limit, int(loadtime.get("doc_max_length", limit))),
            drop_punctuation=bool(loadtime.get("doc_punctuation_skiplist", self.drops_punctuation)),
        )
        served: dict[OutputType, Head] = {"multivector": MultiVectorHead("multivector")}
        if "score" in bundle.outputs:
            served["score"] = MaxSimScore()
        return Need(
            encoder=Encoder(),
            heads=(self._token_vectors(bundle, profile, facts),),
            prompting=msgspec.structs.replace(self.prompting_rule(facts), sides=Sides(query, document)),
            served=served,
            max_length=limit,
            reads_padding=query.expand and not query.attend_expansion,
        )

    def _side(
        self,
        profile: ResolvedProfile,
        name: str,
        max_length: int,
        *,
        expand: bool = False,
        drop_punctuation: bool = False,
    ) -> TextSide:
        loadtime = profile.loadtime
        return TextSide(
            max_length=max_length,
            marker=str(loadtime.get(f"{name}_prefix") or ""),
            marker_is_token=self.marker_is_token,
            expand=expand,
            attend_expansion=self.attend_expansion,
            drop=self.special_roles if loadtime.get("skip_special_tokens", True) else self.always_dropped,
            drop_punctuation=drop_punctuation,
        )

    def _token_vectors(self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None) -> TokenVectors:
        """Where the projection is: a PyLate chain, a tensor of the checkpoint, or nothing but a cut."""
        dim = profile.loadtime.get("token_dim") or bundle.dims.get("multivector")
        if not isinstance(dim, int):
            raise mistake(
                "SIE213", f"`{profile.model_id}` names no width for its token vectors", "add `loadtime.token_dim`"
            )
        plain = TokenVectors(dim, normalize=profile.loadtime.get("normalize", True) is not False)
        if facts is None:
            return plain
        if self.follows_modules:
            chain = token_chain(facts.followed("MultiVectorEncoder", "ColBERT", "SentenceTransformer"), facts.folder)
            if chain.layers:
                return replace(plain, layers=chain.layers)
        weights = [f"{name}.weight" for name in self.projection_names] + [
            name for name in facts.weight_shapes if "colbert" in name and name.endswith(".weight")
        ]
        weight = next((w for w in weights if len(facts.weight_shapes.get(w, ())) == 2), None)
        if weight is None and self.needs_projection:
            raise mistake(
                "SIE404", f"`{profile.model_id}` has no root `linear.weight`", "use the checkpoint that has it"
            )
        return replace(plain, weight=weight)


LateHeads: TypeAlias = TokenVectors
"""The heads of this family alone."""

ADAPTERS: dict[str, LateRecipe] = {
    "ColBERTAdapter": LateRecipe(
        name="colbert",
        requires_text_message=requires_text("ColBERTAdapter"),
        usage_counts="raw",
        loads_remote_code=True,
    ),
    "ColBERTModernBERTFlashAdapter": LateRecipe(
        name="colbert_modernbert",
        requires_text_message=requires_text("ColBERTModernBERTFlashAdapter"),
        marker_is_token=False,
        expands_queries=False,
        special_roles=("cls", "sep", "pad", "bos", "eos"),
        always_dropped=(),
        drops_punctuation=False,
    ),
    "ColBERTRotaryFlashAdapter": LateRecipe(
        name="colbert_rotary",
        requires_text_message=requires_text("ColBERTRotaryFlashAdapter"),
        follows_modules=False,
        attend_expansion=True,
        projection_names=("linear",),
        needs_projection=True,
        usage_counts="raw",
        loads_remote_code=True,
    ),
}
