"""SIE's adapters, one row each: how a bundle that names one is compiled, or why it is not.

The key is the class name, which is stable; module paths moved between SIE's versions (`adapters.X:Class`,
`adapters.X.adapter:Class`, `adapters.sglang:SGLangEmbeddingAdapter`). No adapter code is ever imported.
Source: `wire-contract.md` sections 3.2, 3.4, 5, 6.3, 6.7, 7 and 9.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sie_triton.bundle import Bundle, OutputType, ResolvedProfile, did_you_mean, expand

Pooling = Literal["cls", "mean", "last_token"]
Prompting = Literal[
    "template",
    "sentence_transformer",
    "sentence_transformer_sparse",
    "pytorch_embedding",
    "instruction_prefix",
    "colbert",
    "cross_encoder",
    "causal_cross_encoder",
    "native_causal_cross_encoder",
]
RecipeName = Literal[
    "dense",
    "sentence_transformer_dense",
    "sentence_transformer_sparse",
    "splade",
    "gte_sparse",
    "bge_m3",
    "colbert",
    "colbert_modernbert",
    "colbert_rotary",
    "cross_encoder",
    "causal_cross_encoder",
    "native_causal_cross_encoder",
]


@dataclass(frozen=True)
class Recipe:
    """How an adapter's bundles are compiled, and what its callers observe.

    `verdict` narrows `outputs` to those the bundle declares and fills in what the load-time options decide.
    """

    name: RecipeName
    outputs: tuple[OutputType, ...]
    requires_text_message: str
    """The 400 message for an item without text, word for word."""
    prompting: Prompting = "template"
    """The rule that turns an item's text into the encoder's (section 3.4 for `template`, else section 7)."""
    default_pooling: Pooling | None = None
    """Pooling when the runtime options name none; None where the checkpoint or the recipe decides."""
    pooling_override: Mapping[str, Pooling] = field(default_factory=dict, hash=False)
    """Runtime `pooling` strings that have a meaning of their own."""
    pooling_otherwise: Pooling | None = None
    """What every other runtime `pooling` string means; None where the option is ignored."""
    pooling_by_request: bool = True
    """Whether a request's `pooling` option counts as the profile's does."""
    default_query_template: str | None = None
    default_doc_template: str | None = None
    default_normalize: bool = True
    honours_normalize: bool = False
    """Whether the runtime option `normalize` has an effect."""
    usage_counts: Literal["processed", "raw"] = "processed"
    """Tokens billed: those the encoder processed, or those of the item's raw text."""
    request_limit: bool = False
    """Whether a request's `max_seq_length` lowers the truncation length of a text or pair."""
    score_activation: Literal["config", "sigmoid"] | None = None
    """What follows a classification head's logit: what the checkpoint's config says (section 5.2), or a sigmoid."""
    blank_text_is_zero: bool = False
    """Whether blank text gives a zero vector without running the encoder."""
    loads_remote_code: bool = False
    """Whether the adapter loads the architecture through the hub, so that the YAML's `trust_remote_code` matters."""
    needs_remote_code: bool = False
    """Whether this profile asks for the checkpoint's own code; an architecture we know ourselves does without it."""
    append_eos: bool = False
    """Whether the EOS text is appended to the prepared text before tokenization."""
    notes: str = ""

    def pooling_for(self, runtime_pooling: object) -> Pooling | None:
        """The pooling of a call whose merged runtime option `pooling` is this; None (not given, null): the default."""
        if runtime_pooling is None or self.pooling_otherwise is None:
            return self.default_pooling
        if isinstance(runtime_pooling, str) and runtime_pooling in self.pooling_override:
            return self.pooling_override[runtime_pooling]
        return self.pooling_otherwise


@dataclass(frozen=True)
class Refusal:
    """Why a bundle is not compiled, as a sentence without its full stop."""

    reason: str


def _requires_text(name: str) -> str:
    return f"{name} requires text input"


def _flash(adapter: str, default: Pooling, notes: str = "") -> Recipe:
    """A dense encoder whose runtime pooling is `cls`, or else mean."""
    return Recipe(
        "dense",
        ("dense",),
        _requires_text(adapter),
        default_pooling=default,
        pooling_override={"cls": "cls"},
        pooling_otherwise="mean",
        honours_normalize=True,
        notes=notes,
    )


def _bge_m3(adapter: str, notes: str = "") -> Recipe:
    return Recipe(
        "bge_m3",
        ("dense", "sparse", "multivector", "score"),
        _requires_text(adapter),
        prompting="instruction_prefix",
        default_pooling="cls",
        honours_normalize=True,
        notes=notes,
    )


def _colbert(
    name: RecipeName,
    adapter: str,
    *,
    usage_counts: Literal["processed", "raw"] = "raw",
    loads_remote_code: bool = False,
) -> Recipe:
    return Recipe(
        name,
        ("multivector", "score"),
        _requires_text(adapter),
        prompting="colbert",
        usage_counts=usage_counts,
        loads_remote_code=loads_remote_code,
    )


def _cross_encoder(
    message_name: str, activation: Literal["config", "sigmoid"], *, loads_remote_code: bool = False, notes: str = ""
) -> Recipe:
    return Recipe(
        "cross_encoder",
        ("score",),
        _requires_text(message_name),
        prompting="cross_encoder",
        score_activation=activation,
        request_limit=True,
        loads_remote_code=loads_remote_code,
        notes=notes,
    )


def _extracts(what: str) -> Refusal:
    return Refusal(f"{what}; extraction is not served, only encode and score")


def _generates(what: str = "generates text token by token with a KV cache") -> Refusal:
    return Refusal(f"{what}; generation is not served, only encode and score")


def _sees(what: str) -> Refusal:
    return Refusal(f"{what}; it needs a vision tower and image preprocessing, and only text encoders are compiled")


_CANDLE_NOTES = "SIE serves this adapter from its Rust worker; compiled as the ordinary encoder its options describe"

CATALOGUE: Mapping[str, Recipe | Refusal] = {
    # Dense
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
    ),
    "SGLangEmbeddingAdapter": Recipe(
        "dense",
        ("dense",),
        _requires_text("SGLangEmbeddingAdapter"),
        default_pooling="last_token",
        honours_normalize=True,
        blank_text_is_zero=True,
    ),
    "CandleEmbeddingAdapter": Recipe(
        "dense",
        ("dense",),
        _requires_text("CandleEmbeddingAdapter"),
        pooling_override={"cls": "cls", "mean": "mean", "last": "last_token", "last_token": "last_token"},
        # The Rust worker's own rule for the option is not known: its profile's pooling stands.
        pooling_by_request=False,
        honours_normalize=True,
        notes=_CANDLE_NOTES,
    ),
    "PyTorchEmbeddingAdapter": Recipe(
        "dense",
        ("dense",),
        _requires_text("PyTorchEmbeddingAdapter"),
        prompting="pytorch_embedding",
        default_pooling="last_token",
        pooling_override={"cls": "cls", "mean": "mean"},
        pooling_otherwise="last_token",
        honours_normalize=True,
        usage_counts="raw",
        loads_remote_code=True,
        notes="left-padded upstream; a single item's result is the one to match",
    ),
    "SentenceTransformerDenseAdapter": Recipe(
        "sentence_transformer_dense",
        ("dense",),
        _requires_text("SentenceTransformer adapters"),
        prompting="sentence_transformer",
        honours_normalize=True,
        usage_counts="raw",
        loads_remote_code=True,
        notes="the checkpoint's modules decide pooling; runtime `pooling` is ignored",
    ),
    # Sparse
    "SentenceTransformerSparseAdapter": Recipe(
        "sentence_transformer_sparse",
        ("sparse",),
        _requires_text("SentenceTransformer adapters"),
        prompting="sentence_transformer_sparse",
        usage_counts="raw",
        loads_remote_code=True,
        notes="no templates; an instruction is the prompt",
    ),
    "SPLADEFlashAdapter": Recipe("splade", ("sparse",), _requires_text("SPLADEFlashAdapter"), request_limit=True),
    "GTESparseFlashAdapter": Recipe(
        "gte_sparse", ("sparse",), _requires_text("GTESparseFlashAdapter"), loads_remote_code=True
    ),
    # BGE-M3
    "BGEM3FlashAdapter": _bge_m3("BGEM3FlashAdapter"),
    "BGEM3Adapter": _bge_m3("BGEM3Adapter"),
    "BGEM3FlagAdapter": replace(
        _bge_m3("BGEM3FlagAdapter", "may answer in float16 on CUDA"), honours_normalize=False, usage_counts="raw"
    ),
    # Late interaction
    "ColBERTAdapter": _colbert("colbert", "ColBERTAdapter", loads_remote_code=True),
    "ColBERTModernBERTFlashAdapter": _colbert(
        "colbert_modernbert", "ColBERTModernBERTFlashAdapter", usage_counts="processed"
    ),
    "ColBERTRotaryFlashAdapter": _colbert("colbert_rotary", "ColBERTRotaryFlashAdapter", loads_remote_code=True),
    # Cross encoders
    "CrossEncoderAdapter": replace(
        _cross_encoder("CrossEncoder adapter", "config", loads_remote_code=True, notes="`max_seq_length` is ignored"),
        request_limit=False,
    ),
    "BertFlashCrossEncoderAdapter": _cross_encoder("BertFlashCrossEncoder", "config"),
    "ModernBertFlashCrossEncoderAdapter": _cross_encoder("ModernBertFlashCrossEncoder", "sigmoid"),
    "JinaFlashCrossEncoderAdapter": _cross_encoder(
        "JinaFlashCrossEncoder", "sigmoid", loads_remote_code=True, notes="sigmoid in the model's dtype, then widened"
    ),
    "Qwen2FlashCrossEncoderAdapter": Recipe(
        "causal_cross_encoder",
        ("score",),
        _requires_text("Qwen2FlashCrossEncoder"),
        prompting="causal_cross_encoder",
        request_limit=True,
        notes="blank text is refused as missing text is",
    ),
    "NativeCausalCrossEncoderAdapter": Recipe(
        "native_causal_cross_encoder",
        ("score",),
        "Native causal CrossEncoder accepts text-only query and document items",
        prompting="native_causal_cross_encoder",
        request_limit=True,
        notes="an instruction is refused",
    ),
    # Image-text
    "CLIPAdapter": _sees("embeds text and images into one space (CLIP)"),
    "SiglipAdapter": _sees("embeds text and images into one space (SigLIP)"),
    "Qwen3VLEmbeddingAdapter": _sees("embeds text, images and video through a Qwen3-VL chat prompt"),
    "Qwen3VLRerankerAdapter": _sees("scores text and images through a Qwen3-VL chat prompt"),
    "ColPaliAdapter": _sees("matches text queries with page images (PaliGemma)"),
    "ColQwen2Adapter": _sees("matches text queries with page images (Qwen2.5-VL)"),
    "ColQwen3Adapter": _sees("matches text queries with page images (Qwen3-VL)"),
    "ColSmolAdapter": _sees("matches text queries with page images (Idefics3)"),
    "NemoColEmbedAdapter": _sees("matches text queries with page images through the checkpoint's own modelling code"),
    "TopkEmbedAdapter": _sees("embeds text and page images token by token (Qwen3.5)"),
    "SparseEncoderVisionAdapter": _sees("encodes text and images sparsely through the checkpoint's own modelling code"),
    # Encode or score with parts that no checkpoint format describes
    "GLiFormerAdapter": Refusal(
        "encodes with the `gliformer` package's own modelling code, which transformers does not have"
    ),
    "StablebridgePrunerAdapter": Refusal(
        "scores with a head that only the adapter's code describes, kept in a file beside the checkpoint "
        "(`pruning_head_file`)"
    ),
    "FakeAdapter": Refusal("is SIE's test double: it loads no weights and computes no embedding"),
    # Extraction
    "GLiClassAdapter": _extracts("classifies text against labels given with the request"),
    "GLiNERAdapter": _extracts("finds entities of labels given with the request"),
    "GLiNERBiAdapter": _extracts("finds entities, encoding their labels separately"),
    "GLiNERUnionAdapter": _extracts("finds entities by joining the spans of several models"),
    "GLiNER2Adapter": _extracts("finds entities and fills schemas given with the request"),
    "GLiNER2ClassificationAdapter": _extracts("classifies text against labels given with the request"),
    "GLiNER2DecideAdapter": _extracts("takes typed decisions about a text"),
    "GLiNER2EntitiesAdapter": _extracts("finds entities of labels given with the request"),
    "GLiRELAdapter": _extracts("finds relations between entities"),
    "LayaAdapter": _extracts("takes decisions about a text"),
    "NLIClassificationAdapter": _extracts("classifies text by entailment of a hypothesis per label"),
    "NLIClassificationFlashAdapter": _extracts("classifies text by entailment of a hypothesis per label"),
    "PrivacyFilterAdapter": _extracts("marks personal data in a text"),
    "DoclingAdapter": _extracts("parses documents into structured text"),
    "DonutAdapter": _extracts("reads document images"),
    "Florence2Adapter": _extracts("captions, reads and locates things in images"),
    "GlmOcrAdapter": _extracts("reads document images"),
    "LightOnOCRAdapter": _extracts("reads document images"),
    "MinerUVLAdapter": _extracts("parses document images"),
    "PaddleOCRVLAdapter": _extracts("parses document images"),
    "SGLangVisionExtractAdapter": _extracts("turns images into text through a generation engine"),
    "GroundingDINOAdapter": _extracts("locates labelled objects in images"),
    "Owlv2Adapter": _extracts("locates labelled objects in images"),
    "Sam3Adapter": _extracts("locates labelled objects in images"),
    "ParakeetTDTAdapter": _extracts("transcribes speech"),
    "WhisperAdapter": _extracts("transcribes speech"),
    # Generation
    "SGLangGenerationAdapter": _generates(),
    "SGLangGemmaAdapter": _generates(),
    "SGLangCuda13Adapter": _generates(),
    "SGLangStrictThinkingAdapter": _generates(),
    "CTranslate2GenerationAdapter": _generates("translates or generates text with CTranslate2"),
    "MLXGenerationAdapter": _generates("generates text on Apple silicon"),
    "TensorRTLLMGenerationAdapter": _generates("generates text with TensorRT-LLM"),
    # Remote
    "OpenAIUpstreamAdapter": Refusal("forwards requests to another server; there are no weights to compile"),
    "SieUpstreamAdapter": Refusal("forwards requests to another server; there are no weights to compile"),
}


def lookup(adapter_path: str) -> Recipe | Refusal:
    """The row of an `adapter_path`, by class name. Custom code, malformed paths and unknown classes are refusals."""
    module, colon, name = adapter_path.partition(":")
    if not (module and colon and name):
        return Refusal(f"`adapter_path` is `{adapter_path}`, which is not `module:Class`")
    if module.split(".")[0] not in ("sie_server", "sie_server_rust"):
        return Refusal(
            f"`{adapter_path}` is custom adapter code, which is never executed; only SIE's own adapters compile"
        )
    if name not in CATALOGUE:
        near = did_you_mean(name, CATALOGUE)
        return Refusal(f"`{name}` is not an adapter of SIE's catalogue{f' ({near})' if near else ''}")
    return CATALOGUE[name]


def verdict(profile: ResolvedProfile, bundle: Bundle) -> Recipe | Refusal:
    """How this profile of this bundle is compiled, or why not: the adapter's row, then the profile's own options."""
    row = lookup(profile.adapter_path)
    if isinstance(row, Recipe) and profile.adapter_class == "CandleEmbeddingAdapter":
        row = _candle(row, profile, bundle)
    if isinstance(row, Refusal):
        return row
    refusal = _refuse_source(bundle) or _refuse_outputs(row, profile, bundle) or _refuse_options(profile)
    return refusal or _with_load_time(row, profile, bundle)


def _refuse_source(bundle: Bundle) -> Refusal | None:
    if bundle.remote_backed:
        return Refusal("`remote_backed`: the model lives on another server; there are no weights to compile")
    if bundle.package_backed:
        return Refusal("`package_backed`: the weights come inside a Python package, not as a checkpoint")
    return None


def _refuse_outputs(row: Recipe, profile: ResolvedProfile, bundle: Bundle) -> Refusal | None:
    if not bundle.outputs:
        return Refusal("declares no outputs under `tasks`; there is nothing to compile")
    if not set(bundle.tasks) & {"encode", "score"}:
        tasks = " and ".join(f"`{task}`" for task in bundle.tasks)
        return Refusal(f"declares only {tasks}; only encode and score are served")
    beyond = [output for output in bundle.outputs if output not in row.outputs]
    if beyond:
        listed = ", ".join(f"`{output}`" for output in beyond)
        return Refusal(f"declares {listed}, which `{profile.adapter_class}` cannot produce")
    if "text" not in bundle.inputs:
        return Refusal("takes no text; only text encoders are compiled")
    return None


def _refuse_options(profile: ResolvedProfile) -> Refusal | None:
    loadtime = profile.loadtime
    if loadtime.get("use_model_encode"):
        return Refusal("`use_model_encode`: vectors come from a method of the checkpoint's own code, not from a graph")
    if loadtime.get("backend") == "open_clip":
        return Refusal("`backend: open_clip`: the checkpoint is laid out for open_clip, not for transformers")
    if loadtime.get("lora_paths"):
        return Refusal("`lora_paths`: adapters switched per request; a graph has one set of weights")
    if lora := profile.runtime.get("lora_id"):
        # Leaving the low-rank weights out would serve other vectors under the profile's name.
        return Refusal(f"`lora_id`: its weights are those of the LoRA adapter `{lora}`, which is not merged")
    return None


def _with_load_time(row: Recipe, profile: ResolvedProfile, bundle: Bundle) -> Recipe:
    """Load-time options are constructor arguments: they set the defaults that the runtime options override."""
    loadtime = profile.loadtime
    return replace(
        row,
        outputs=tuple(output for output in row.outputs if output in bundle.outputs),
        default_pooling=row.pooling_for(loadtime.get("pooling")),
        default_query_template=_text(loadtime, "query_template") or row.default_query_template,
        default_doc_template=_text(loadtime, "doc_template") or row.default_doc_template,
        default_normalize=loadtime.get("normalize", row.default_normalize) is not False,
        needs_remote_code=row.loads_remote_code and loadtime.get("trust_remote_code") is True,
        append_eos=profile.adapter_class == "SGLangEmbeddingAdapter" and loadtime.get("append_eos") is True,
    )


def _text(options: Mapping[str, Any], key: str) -> str | None:
    value = options.get(key)
    return value if isinstance(value, str) else None


def _candle(row: Recipe, profile: ResolvedProfile, bundle: Bundle) -> Recipe | Refusal:
    """The recipe that a Rust-worker profile amounts to: by its declared outputs, and for dense by its `pooling`.

    The worker's source is not public to us, so nothing is guessed: dense needs a `pooling` that is spelled out.
    """
    encoded = tuple(output for output in bundle.outputs if output in ("dense", "sparse", "multivector"))
    if encoded == ("dense",):
        pooling = profile.runtime.get("pooling", profile.loadtime.get("pooling"))
        known = row.pooling_override.get(pooling) if isinstance(pooling, str) else None
        if known is None:
            words = ", ".join(f"`{word}`" for word in row.pooling_override)
            return Refusal(f"the Rust worker's pooling is known only where the profile names it as one of {words}")
        return replace(row, default_pooling=known, pooling_otherwise=known)
    stand_in = {
        ("sparse",): "SPLADEFlashAdapter",
        ("multivector",): "ColBERTModernBERTFlashAdapter",
        ("dense", "sparse", "multivector"): "BGEM3FlashAdapter",
    }.get(encoded)
    recipe = CATALOGUE[stand_in] if stand_in else None
    if not isinstance(recipe, Recipe):
        listed = ", ".join(f"`{output}`" for output in bundle.outputs) or "nothing"
        return Refusal(f"declares {listed}, for which the Rust worker's heads are not known")
    return replace(recipe, requires_text_message=row.requires_text_message, notes=row.notes)


@dataclass(frozen=True)
class Row:
    """One line of the catalogue's table: a routable id and what becomes of it."""

    id: str
    profile: str
    adapter: str
    tasks: tuple[str, ...]
    outputs: tuple[str, ...]
    verdict: str
    """The recipe's name, or `refused`."""
    reason: str
    """The refusal's reason; empty for a recipe."""


def catalogue_table(bundles: Iterable[Bundle]) -> list[Row]:
    """One row per profile, in the order of the bundles."""
    return [_row(profile, bundle) for bundle in bundles for profile in expand(bundle)]


def _row(profile: ResolvedProfile, bundle: Bundle) -> Row:
    judged = verdict(profile, bundle)
    return Row(
        id=profile.model_id,
        profile=profile.profile,
        adapter=profile.adapter_class or profile.adapter_path,
        tasks=bundle.tasks,
        outputs=judged.outputs if isinstance(judged, Recipe) else bundle.outputs,
        verdict=judged.name if isinstance(judged, Recipe) else "refused",
        reason=judged.reason if isinstance(judged, Refusal) else "",
    )
