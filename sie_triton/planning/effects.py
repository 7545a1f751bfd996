"""What a bundle asks for that its adapter ignores: said, and refused where the outcome would be another.

Source of what each adapter honours: `wire-contract.md` section 6.7.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.diagnostics import Diagnostic
from sie_triton.planning.catalogue import Recipe, RecipeName

# The server reads these itself, whatever the adapter.
SERVER_OPTIONS = frozenset(
    {
        "output_types",
        "output_dtype",
        "output_similarity",
        "muvera",
        "smve",
        "instruction",
        "is_query",
        "overflow_policy",
    }
)
_TEMPLATES = frozenset({"query_template", "doc_template", "default_instruction"})
_DENSE = _TEMPLATES | {"normalize", "pooling"}
RUNTIME: Mapping[RecipeName, frozenset[str]] = {
    "dense": _DENSE,
    "sentence_transformer_dense": _TEMPLATES | {"normalize"},
    "sentence_transformer_sparse": frozenset(),
    "splade": _TEMPLATES | {"max_seq_length"},
    "gte_sparse": _TEMPLATES,
    "bge_m3": frozenset({"normalize", "score_mode", "score_weights"}),
    "colbert": frozenset({"max_seq_length", "query_max_length"}),
    "colbert_modernbert": frozenset({"max_seq_length", "query_max_length"}),
    "colbert_rotary": frozenset({"max_seq_length", "query_max_length"}),
    "cross_encoder": frozenset({"max_seq_length"}),
    "causal_cross_encoder": frozenset({"max_seq_length"}),
    "native_causal_cross_encoder": frozenset({"max_seq_length"}),
}
# Options of the constructor that change how fast SIE's own engine runs, and nothing that it computes.
PERFORMANCE = frozenset(
    {
        "attn_implementation",
        "cuda_graph_tokens",
        "cuda_graphs",
        "fused_kernels",
        "fused_rope",
        "max_concurrent_dispatch",
        "mem_fraction_static",
        "prefix_cache_mb",
        "prefix_reuse",
        "score_strategy",
        "text_batch_tokens",
        "uses_legacy_transformers_cache",
    }
)
_LATE = frozenset(
    {
        "token_dim",
        "normalize",
        "query_max_length",
        "doc_max_length",
        "skip_special_tokens",
        "query_expansion",
        "query_prefix",
        "doc_prefix",
        "doc_punctuation_skiplist",
        "muvera_config",
        "smve_config",
    }
)
_ANY = frozenset({"max_seq_length", "trust_remote_code", "code_revision"})
_CONSTRUCTED = frozenset({"pooling", "normalize", "query_template", "doc_template"})
_CAUSAL = frozenset({"yes_token", "no_token", "input_format", "score_mode", "default_instruction"})
LOADTIME: Mapping[RecipeName, frozenset[str]] = {
    "dense": _CONSTRUCTED | {"append_eos", "causal", "dense_projection_path", "forward_kwargs"},
    "sentence_transformer_dense": _CONSTRUCTED - {"pooling"},
    "sentence_transformer_sparse": frozenset(),
    "splade": _CONSTRUCTED - {"pooling", "normalize"},
    "gte_sparse": _CONSTRUCTED - {"pooling", "normalize"},
    "bge_m3": frozenset({"normalize"}),
    "colbert": _LATE,
    "colbert_modernbert": _LATE,
    "colbert_rotary": _LATE,
    "cross_encoder": frozenset(),
    "causal_cross_encoder": _CAUSAL,
    "native_causal_cross_encoder": frozenset(),
}
# Keys of `config_kwargs` that say how attention is computed and not what.
HARMLESS_CONFIG = frozenset({"use_memory_efficient_attention", "unpad_inputs", "attn_implementation", "use_cache"})
# Spellings of the poolings in bundles.
POOLING_WORDS: Mapping[str, str] = {"cls": "cls", "mean": "mean", "last": "last_token", "last_token": "last_token"}


def check_effects(
    bundle: Bundle, profile: ResolvedProfile, recipe: Recipe, *, pooling: str | None, unit: bool | None
) -> tuple[tuple[str, ...], list[Diagnostic]]:
    """What has no effect, as sentences, and as diagnostics what would come out otherwise than it was asked for.

    `pooling` is what is computed and `unit` whether every vector leaves with unit length; None where no checkpoint is
    at hand to tell, or where there is nothing to pool.
    """
    problems = [*_pooling(bundle, profile, recipe, pooling), *_other_outcomes(bundle, profile, unit)]
    return tuple(_without_effect(profile, recipe)), problems


def _pooling(bundle: Bundle, profile: ResolvedProfile, recipe: Recipe, outcome: str | None) -> Iterator[Diagnostic]:
    for side, options in (("runtime", profile.runtime), ("loadtime", profile.loadtime)):
        asked = options.get("pooling")
        # Load-time options are the defaults of the runtime's.
        overruled = side == "loadtime" and profile.runtime.get("pooling") is not None
        if asked is None or outcome is None or overruled or POOLING_WORDS.get(str(asked)) == outcome:
            continue
        known = str(asked) in POOLING_WORDS
        says = f"{profile.adapter_class} would compute `{outcome}`" if known else "no adapter knows it"
        other = "" if known and "pooling" in RUNTIME[recipe.name] else ", or name an adapter that reads the option"
        yield _refused(
            bundle,
            profile,
            f"{side}.pooling",
            f"`{profile.model_id}` asks for the pooling `{asked}`: {says}",
            f"write `pooling: {outcome}` if that is meant{other}",
        )


def _other_outcomes(bundle: Bundle, profile: ResolvedProfile, unit: bool | None) -> Iterator[Diagnostic]:
    if unit and profile.runtime.get("normalize", profile.loadtime.get("normalize")) is False:
        side = "runtime" if "normalize" in profile.runtime else "loadtime"
        yield _refused(
            bundle,
            profile,
            f"{side}.normalize",
            f"`{profile.model_id}` asks for vectors that are not normalised, and the checkpoint normalises every one",
            "leave `normalize` out, or use a checkpoint without a Normalize module",
        )
    for key, known in (("config_kwargs", HARMLESS_CONFIG), ("forward_kwargs", frozenset({"is_causal"}))):
        given = profile.loadtime.get(key)
        beyond = sorted(set(given) - known) if isinstance(given, Mapping) else []
        if beyond:
            yield _refused(
                bundle,
                profile,
                f"loadtime.{key}",
                f"`{profile.model_id}` changes {', '.join(f'`{name}`' for name in beyond)} by `{key}`, which is not "
                "compiled",
                "use a checkpoint whose own configuration says it",
            )


def _without_effect(profile: ResolvedProfile, recipe: Recipe) -> Iterator[str]:
    adapter = profile.adapter_class
    honoured = RUNTIME[recipe.name] | SERVER_OPTIONS
    # Adapters that have one pooling take none, whatever their recipe.
    ignored = {"pooling"} if recipe.pooling_otherwise is None and not recipe.pooling_override else set()
    for key in profile.runtime:
        if key not in honoured or key in ignored:
            yield f"`runtime.{key}` of `{profile.model_id}` has no effect: {adapter} does not read it"
    known = LOADTIME[recipe.name] | _ANY | PERFORMANCE | {"config_kwargs"}
    for key in profile.loadtime:
        if key not in known or key in ignored:
            yield f"`loadtime.{key}` of `{profile.model_id}` has no effect: {adapter} does not read it"


def _refused(bundle: Bundle, profile: ResolvedProfile, option: str, message: str, hint: str) -> Diagnostic:
    where: Any = bundle.positions.get(f"profiles.{profile.profile}.adapter_options.{option}")
    return Diagnostic("SIE217", message, where, hint)
