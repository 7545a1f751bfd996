"""Dense vectors, pooled as the bundle says: the transformer, and one vector per text out of its states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import msgspec
from sie_frontend.outputs.dense import DenseHead, Pooled
from sie_frontend.outputs.table import Head, OutputType

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.facts import CheckpointFacts, DenseLayer, Layer, whole_widths
from sie_triton.planning.modules import Encoder, PlannedHead, WitnessName
from sie_triton.planning.need import Need, mistake
from sie_triton.planning.recipe import TEMPLATE_OPTIONS, Pooling, RecipeBase, requires_text
from sie_triton.planning.tensors import Axis, Tensor


@dataclass(frozen=True, slots=True)
class DensePooling(PlannedHead):
    """Token embeddings to one vector per pooling, `[batch, dim]`, each L2-normalised and as pooled.

    `token_layers` come in front of the pooling, `layers` behind it; of what leaves them the first `keep` numbers stay
    (None: all). All poolings that a request may choose are in one graph: beside the encoder they cost nothing, and on
    the embedded server every graph is a process. The first one's tensors have the plain names.
    """

    poolings: tuple[str, ...]
    layers: tuple[Layer, ...] = ()
    token_layers: tuple[Layer, ...] = ()
    keep: int | None = None
    kind: Literal["dense"] = "dense"

    def names(self, pooling: str) -> tuple[str, str]:
        """What a pooling's tensors are called: normalised, and as pooled."""
        suffix = "" if pooling == self.poolings[0] else f"_{pooling.replace('+', '_')}"
        return f"dense{suffix}", f"dense{suffix}_unnormalized"

    @property
    def told_by(self) -> tuple[WitnessName, ...]:
        """The witnesses that know it."""
        return ("pooled_transformer", "sentence_transformer", "bge_m3", "mixed_model")

    def outputs(self, width: Axis) -> tuple[Tensor, ...]:
        """Two tensors a pooling, `[batch, width]`."""
        names = [name for pooling in self.poolings for name in self.names(pooling)]
        return tuple(Tensor(name, "FP32", ("batch", width)) for name in names)

    def shared(self) -> PlannedHead:
        """All but the poolings."""
        return replace(self, poolings=())

    def joined(self, others: Sequence[PlannedHead]) -> DensePooling:
        """The head with everyone's poolings, its own in front."""
        heads = (self, *(head for head in others if isinstance(head, DensePooling)))
        return replace(self, poolings=tuple(dict.fromkeys(pooling for head in heads for pooling in head.poolings)))

    def named(self, served: dict[OutputType, Head]) -> dict[OutputType, Head]:
        """The dense entry on the tensors of this graph."""
        entry = served["dense"]
        assert isinstance(entry, DenseHead)
        poolings = {pooling: Pooled(*self.names(pooling)) for pooling in entry.poolings}
        return {**served, "dense": msgspec.structs.replace(entry, poolings=poolings)}


@dataclass(frozen=True, slots=True)
class DenseVectors:
    """What one profile asks of the dense head. `unit`: every vector has unit length, so that nothing is left to choose.

    The first pooling is the profile's own. `width` is that of a vector, or the name of an axis; `cuts` are the widths
    that it may be cut to.
    """

    head: DensePooling
    width: Axis
    unit: bool = False
    cuts: tuple[int, ...] = ()

    def checked(self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None) -> DenseVectors:
        """With the width that the bundle declares, where the checkpoint does not tell, and what it may be cut to.

        Raises `DiagnosticError` where the checkpoint tells another width, or a cut is none.
        """
        declared = bundle.dims.get("dense")
        if declared is None or declared == self.width:
            return replace(self, cuts=_cuts(bundle, profile, facts, self.width))
        if not isinstance(self.width, int):
            return replace(self, width=declared, cuts=_cuts(bundle, profile, facts, declared))
        kept = f", of which its `truncate_dim` keeps {self.width}" if self.head.keep else ""
        raise DiagnosticError(
            [
                Diagnostic(
                    "SIE211",
                    f"`{profile.model_id}` declares {declared} dense dimensions, the checkpoint gives "
                    f"{facts.hidden_size if facts and kept else self.width}{kept}",
                    bundle.positions.get("tasks.encode.dense.dim"),
                    f"set `tasks.encode.dense.dim: {self.width}`, or name the checkpoint that the bundle means",
                )
            ]
        )

    def served(self, recipe: RecipeBase, profile: ResolvedProfile, *, blank_is_zero: bool = False) -> DenseHead:
        """How the frontend reads them."""
        poolings = self.head.poolings
        # What a call's options do not say is the adapter's default, not that of another profile.
        default = bool(profile.loadtime.get("normalize", recipe.default_normalize))
        normalize = default if recipe.honours_normalize else profile.runtime.get("normalize", default) is not False
        spellings: dict[str, str] = {}
        if recipe.pooling_otherwise and len(poolings) > 1:
            spellings = {**recipe.pooling_override, "*": recipe.pooling_otherwise}
        return DenseHead(
            pooling=poolings[0],
            pooling_names=spellings,
            poolings={pooling: Pooled(*self.head.names(pooling)) for pooling in poolings},
            normalize=self.unit or normalize,
            honours_normalize=recipe.honours_normalize and not self.unit,
            blank_is_zero=blank_is_zero,
            unsaid=recipe.default_pooling if spellings else None,
            cuts=self.cuts,
        )


def _cuts(bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None, width: Axis) -> tuple[int, ...]:
    """The widths below `width` that vectors may be cut to: the bundle's word, else the checkpoint's."""
    named = profile.runtime.get("matryoshka_dims")
    widths = facts.matryoshka.widths if named is None and facts else whole_widths(named if named is not None else [])
    if widths is None or (named is not None and isinstance(width, int) and any(cut > width for cut in widths)):
        place = f"profiles.{profile.profile}.adapter_options.runtime.matryoshka_dims"
        message = f"`{profile.model_id}` names {named!r} as widths to cut its vectors to, which have {width} numbers"
        hint = f"write a list of whole numbers up to {width}"
        raise DiagnosticError([Diagnostic("SIE218", message, bundle.positions.get(place), hint)])
    return tuple(cut for cut in widths if not isinstance(width, int) or cut < width)


@dataclass(frozen=True, kw_only=True)
class DenseRecipe(RecipeBase):
    """Adapters that pool as the bundle says, whatever the checkpoint's own modules are."""

    name: str = "dense"
    outputs: tuple[OutputType, ...] = ("dense",)
    witness: WitnessName = "pooled_transformer"
    honours_normalize: bool = True
    runtime_options: frozenset[str] = TEMPLATE_OPTIONS | {"normalize", "pooling"}
    loadtime_options: frozenset[str] = frozenset(
        {
            "append_eos",
            "causal",
            "dense_projection_path",
            "doc_template",
            "forward_kwargs",
            "normalize",
            "pooling",
            "query_template",
        }
    )
    blank_text_is_zero: bool = False
    """Whether blank text gives a zero vector without running the encoder."""
    bidirectional_unless_causal: bool = False
    """Whether a decoder attends to both sides unless the load-time option `causal` is set."""

    def need(self, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None) -> Need[DensePooling]:
        """One head with the profile's own pooling and those that a request may choose."""
        forward = profile.loadtime.get("forward_kwargs") or {}
        bidirectional = forward.get("is_causal") is False or (
            self.bidirectional_unless_causal and profile.loadtime.get("causal") is not True
        )
        vectors = pooled_vectors(self, bundle, profile, facts)
        return Need(
            encoder=Encoder(bidirectional=bidirectional),
            heads=(vectors.head,),
            prompting=self.prompting_rule(facts),
            served={"dense": vectors.served(self, profile, blank_is_zero=self.blank_text_is_zero)},
            max_length=self.token_limit(profile, facts),
            width=vectors.width,
            pooling=vectors.head.poolings[0],
            unit=vectors.unit,
        )


def pooled_vectors(
    recipe: RecipeBase, bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None
) -> DenseVectors:
    """What the bundle says, in the order of the adapter's own pooling and those of its requests."""
    own: Pooling = recipe.pooling_for(profile.runtime.get("pooling")) or "mean"
    layers = _projection_layers(bundle, profile, facts)
    width: Axis = layers[-1].out_features if layers else (facts.hidden_size if facts else None) or "hidden"
    poolings = tuple(dict.fromkeys((own, *_request_poolings(recipe))))
    return DenseVectors(DensePooling(poolings, layers), width).checked(bundle, profile, facts)


def _projection_layers(
    bundle: Bundle, profile: ResolvedProfile, facts: CheckpointFacts | None
) -> tuple[DenseLayer, ...]:
    """`dense_projection_path`: a folder of the checkpoint with a Linear that follows the pooling."""
    path = profile.loadtime.get("dense_projection_path")
    if not path or facts is None:
        return ()
    dim = bundle.dims.get("dense")
    if facts.hidden_size is None or dim is None:
        raise mistake(
            "SIE213", f"`{profile.model_id}` projects its vectors to an unknown width", "add `tasks.encode.dense.dim`"
        )
    return (DenseLayer(str(path), facts.hidden_size, dim, bias=True, activation="Identity"),)


def _request_poolings(recipe: RecipeBase) -> tuple[Pooling, ...]:
    """The poolings that a request's `pooling` option can choose for this adapter."""
    if recipe.pooling_otherwise is None or not recipe.pooling_by_request:
        return ()
    return tuple(dict.fromkeys((*recipe.pooling_override.values(), recipe.pooling_otherwise)))


def _flash(adapter: str, default: Pooling, notes: str = "") -> DenseRecipe:
    """A dense encoder whose runtime pooling is `cls`, or else mean."""
    return DenseRecipe(
        requires_text_message=requires_text(adapter),
        default_pooling=default,
        pooling_override={"cls": "cls"},
        pooling_otherwise="mean",
        notes=notes,
    )


DenseHeads: TypeAlias = DensePooling
"""The heads of this family alone."""

ADAPTERS: dict[str, DenseRecipe] = {
    "BertFlashAdapter": _flash("BertFlashAdapter", "mean"),
    "XLMRobertaFlashAdapter": _flash(
        "XLMRobertaFlashAdapter", "mean", "`default_instruction` falls back to `options.instruction`"
    ),
    "ModernBERTFlashAdapter": _flash("ModernBERTFlashAdapter", "cls"),
    "NomicFlashAdapter": replace(
        _flash("NomicFlashAdapter", "mean"),
        default_query_template="search_query: {text}",
        default_doc_template="search_document: {text}",
    ),
    "RoPEFlashAdapter": _flash("RoPEFlashAdapter", "cls", "the checkpoint's own Dense modules are not applied"),
    "Qwen2FlashAdapter": replace(
        _flash("Qwen2FlashAdapter", "mean", "`last_token` means mean here; bidirectional unless `causal`"),
        pooling_override={"cls": "cls", "last": "last_token"},
        bidirectional_unless_causal=True,
    ),
    "SGLangEmbeddingAdapter": DenseRecipe(
        requires_text_message=requires_text("SGLangEmbeddingAdapter"),
        loads_lora=True,
        default_pooling="last_token",
        blank_text_is_zero=True,
        reads_append_eos=True,
    ),
    "CandleEmbeddingAdapter": DenseRecipe(
        requires_text_message=requires_text("CandleEmbeddingAdapter"),
        pooling_override={"cls": "cls", "mean": "mean", "last": "last_token", "last_token": "last_token"},
        # The Rust worker's own rule for the option is not known: its profile's pooling stands.
        pooling_by_request=False,
        stand_ins={
            ("sparse",): "SPLADEFlashAdapter",
            ("multivector",): "ColBERTModernBERTFlashAdapter",
            ("dense", "sparse", "multivector"): "BGEM3FlashAdapter",
        },
        notes="SIE serves this adapter from its Rust worker; compiled as the ordinary encoder its options describe",
    ),
    "PyTorchEmbeddingAdapter": DenseRecipe(
        requires_text_message=requires_text("PyTorchEmbeddingAdapter"),
        loads_lora=True,
        prompting="pytorch_embedding",
        default_pooling="last_token",
        pooling_override={"cls": "cls", "mean": "mean"},
        pooling_otherwise="last_token",
        usage_counts="raw",
        loads_remote_code=True,
        notes="left-padded upstream; a single item's result is the one to match",
    ),
}
