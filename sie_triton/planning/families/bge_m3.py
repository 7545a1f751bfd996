"""BGE-M3: dense vectors, token weights and token vectors out of one encoder."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeAlias

from sie_frontend.outputs.bge_m3 import BgeM3Score
from sie_frontend.outputs.multivector import MultiVectorHead
from sie_frontend.outputs.sparse import TokenWeightsHead
from sie_frontend.outputs.table import Head, OutputType
from sie_frontend.text.entry import PromptStyle

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.facts import CheckpointFacts
from sie_triton.planning.families.dense import DensePooling, pooled_vectors
from sie_triton.planning.families.late_interaction import TokenVectors
from sie_triton.planning.modules import Encoder, PlannedHead, WitnessName
from sie_triton.planning.need import Need
from sie_triton.planning.recipe import Pooling, RecipeBase, requires_text
from sie_triton.planning.tensors import Axis, Tensor


@dataclass(frozen=True, slots=True)
class TokenWeights(PlannedHead):
    """BGE-M3's sparse head: `relu(linear(token))`, `[batch, sequence]`."""

    reads_mask: ClassVar[bool] = False

    file: str
    kind: Literal["token_weights"] = "token_weights"

    @property
    def told_by(self) -> tuple[WitnessName, ...]:
        """The witnesses that know it."""
        return ("bge_m3",)

    def outputs(self, width: Axis) -> tuple[Tensor, ...]:
        """`[batch, sequence]`."""
        return (Tensor("token_weights", "FP32", ("batch", "sequence")),)


@dataclass(frozen=True, kw_only=True)
class BgeM3Recipe(RecipeBase):
    """Adapters of BGE-M3."""

    name: str = "bge_m3"
    outputs: tuple[OutputType, ...] = ("dense", "sparse", "multivector", "score")
    witness: WitnessName = "bge_m3"
    prompting: PromptStyle = "instruction_prefix"
    default_pooling: Pooling | None = "cls"
    honours_normalize: bool = True
    runtime_options: frozenset[str] = frozenset({"normalize", "score_mode", "score_weights"})
    loadtime_options: frozenset[str] = frozenset({"normalize"})
    extra_files: tuple[str, ...] = ("colbert_linear.pt", "sparse_linear.pt")

    def need(
        self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None
    ) -> Need[DensePooling | TokenWeights | TokenVectors]:
        """All three heads, whichever outputs the bundle declares: in an ensemble, what nobody asks for is free."""
        recipe = replace(self, pooling_otherwise=None)
        dense = pooled_vectors(recipe, bundle, profile, facts)
        dense = replace(dense, head=replace(dense.head, poolings=("cls",)))
        dim = bundle.dims.get("multivector") or (facts.hidden_size if facts else None) or 0
        served: dict[OutputType, Head] = {
            "dense": dense.served(recipe, profile),
            "sparse": TokenWeightsHead("token_weights", ("cls", "sep", "eos", "bos", "pad", "unk")),
            # Unnormalised in the graph: a call may ask for it so.
            "multivector": MultiVectorHead(
                "multivector", skip_first=1, normalize=True, honours_normalize=self.honours_normalize
            ),
        }
        if "score" in bundle.outputs:
            served["score"] = BgeM3Score()
        return Need(
            encoder=Encoder(),
            heads=(
                dense.head,
                TokenWeights("sparse_linear"),
                TokenVectors(dim, file="colbert_linear", normalize=False),
            ),
            prompting=self.prompting_rule(facts),
            served=served,
            max_length=self.token_limit(profile, facts),
            width=dense.width,
            pooling="cls",
            unit=dense.unit,
        )


BgeM3Heads: TypeAlias = TokenWeights
"""The heads of this family alone."""

ADAPTERS: dict[str, BgeM3Recipe] = {
    "BGEM3FlashAdapter": BgeM3Recipe(requires_text_message=requires_text("BGEM3FlashAdapter"), loads_lora=True),
    "BGEM3Adapter": BgeM3Recipe(requires_text_message=requires_text("BGEM3Adapter"), loads_lora=True),
    "BGEM3FlagAdapter": BgeM3Recipe(
        requires_text_message=requires_text("BGEM3FlagAdapter"),
        honours_normalize=False,
        usage_counts="raw",
        notes="may answer in float16 on CUDA",
    ),
}
