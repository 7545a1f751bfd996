"""Weights over the vocabulary: SPLADE and its kin, from a masked language model's logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import msgspec
from sie_frontend.outputs.sparse import SparseHead
from sie_frontend.outputs.table import OutputType
from sie_frontend.text.entry import BareQueries

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.diagnostics import DiagnosticError
from sie_triton.facts import CheckpointFacts, sparse_chain
from sie_triton.facts.files import unsupported
from sie_triton.facts.routes import QueryTable
from sie_triton.planning.modules import Encoder, PlannedHead, WitnessName
from sie_triton.planning.need import Need
from sie_triton.planning.recipe import TEMPLATE_OPTIONS, RecipeBase, requires_text
from sie_triton.planning.tensors import SPARSE_IDS, SPARSE_WEIGHTS, Axis, Tensor, triton_model_name

# Tried in this order; the first that the checkpoint has is used (SIE does the same).
QUERY_WEIGHT_FILES = ("query_token_weights.txt", "idf.json")
QUERY_WEIGHTS_NAME = "query_weights.npy"


@dataclass(frozen=True, slots=True)
class SparseMax(PlannedHead):
    """Masked-language-model logits, `log1p(relu)` once or twice, maximum or sum over tokens; compact on the way out.

    `max_terms`: how many of the largest weights stay (None: all). SPLADE: Formal et al., 2021.
    """

    compacted: ClassVar[bool] = True
    fits_tensorrt: ClassVar[bool] = False

    double_log: bool = False
    pooling: Literal["max", "sum"] = "max"
    max_terms: int | None = None
    kind: Literal["sparse"] = "sparse"

    @property
    def told_by(self) -> tuple[WitnessName, ...]:
        """The witnesses that know it."""
        return ("sparse_encoder",)

    def outputs(self, width: Axis) -> tuple[Tensor, ...]:
        """Ids and weights, `[batch, terms]`."""
        return (Tensor(SPARSE_IDS, "INT64", ("batch", "terms")), Tensor(SPARSE_WEIGHTS, "FP32", ("batch", "terms")))


@dataclass(frozen=True, kw_only=True)
class SparseRecipe(RecipeBase):
    """Adapters that give sparse vectors. A checkpoint may have a table that weighs the tokens of queries by itself."""

    outputs: tuple[OutputType, ...] = ("sparse",)
    witness: WitnessName = "sparse_encoder"
    loadtime_options: frozenset[str] = frozenset({"query_template", "doc_template"})
    drop_special: bool = False
    """Whether special tokens leave the vector."""
    double_log_for_v3: bool = False
    """Whether SIE doubles the logarithm for v3 checkpoints, told by their name."""

    def need(self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None) -> Need[SparseMax]:
        """One head on the language model's logits."""
        head = SparseMax(double_log=self.double_log_for_v3 and "v3" in (bundle.hf_id or str(bundle.weights_path)))
        followed = facts if self.follows_modules else None
        tables = tuple(name for name in QUERY_WEIGHT_FILES if facts and not followed and name in facts.files)
        prompting = self.prompting_rule(facts)
        if followed:
            head = followed_sparse(followed)
            if table := followed.pipeline.query_table:
                tables = (table.file,)
                prompting = msgspec.structs.replace(prompting, bare_queries=BareQueries(table.max_length))
        return Need(
            encoder=Encoder("masked_lm"),
            heads=(head,),
            prompting=prompting,
            served={
                "sparse": SparseHead(
                    SPARSE_IDS,
                    SPARSE_WEIGHTS,
                    drop_special=self.drop_special,
                    query_weights=f"{triton_model_name(profile.model_id)}/1/{QUERY_WEIGHTS_NAME}" if tables else None,
                )
            },
            max_length=self.token_limit(profile, facts),
            query_weights=tables,
        )


def followed_sparse(facts: CheckpointFacts) -> SparseMax:
    """What the checkpoint's own modules say; without `modules.json`, sentence-transformers' default.

    Raises `DiagnosticError` for modules that give no such vectors, or whose queries cannot be served.
    """
    pipeline = facts.followed("SparseEncoder")
    terms = facts.settings.max_active_dims
    if not pipeline.listed:
        return SparseMax(max_terms=terms)
    if table := pipeline.query_table:
        _check_table(table, terms, facts)
    step = sparse_chain(pipeline, facts.folder)
    return SparseMax(double_log=step.double_log, pooling=step.pooling, max_terms=terms)


def _check_table(table: QueryTable, terms: int | None, facts: CheckpointFacts) -> None:
    """What the table of queries cannot be served with. Raises `DiagnosticError`."""
    words = facts.config.get("vocab_size")
    odd = None
    if terms is not None:
        odd = f"`max_active_dims` {terms}, which would leave out weights of queries too"
    elif isinstance(words, int) and table.rows != words:
        odd = f"{table.rows} weights for queries and {words} for documents: their vectors have other widths"
    if odd:
        raise DiagnosticError([unsupported(facts.folder / table.file, odd)])


SparseHeads: TypeAlias = SparseMax
"""The heads of this family alone."""

ADAPTERS: dict[str, SparseRecipe] = {
    "SentenceTransformerSparseAdapter": SparseRecipe(
        name="sentence_transformer_sparse",
        requires_text_message=requires_text("SentenceTransformer adapters"),
        prompting="sentence_transformer_sparse",
        limit_from="sentence_transformers",
        runs_sentence_transformers=True,
        follows_modules=True,
        checkpoint_prompts=True,
        loadtime_options=frozenset(),
        usage_counts="raw",
        loads_remote_code=True,
        notes="no templates; an instruction is the prompt",
    ),
    "SPLADEFlashAdapter": SparseRecipe(
        name="splade",
        requires_text_message=requires_text("SPLADEFlashAdapter"),
        runtime_options=TEMPLATE_OPTIONS | {"max_seq_length"},
        request_limit=True,
    ),
    "GTESparseFlashAdapter": SparseRecipe(
        name="gte_sparse",
        requires_text_message=requires_text("GTESparseFlashAdapter"),
        runtime_options=TEMPLATE_OPTIONS,
        drop_special=True,
        double_log_for_v3=True,
        loads_remote_code=True,
    ),
}
