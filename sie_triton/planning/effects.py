"""What a bundle asks for that its adapter ignores: said, and refused where the outcome would be another.

Source of what each adapter honours: `wire-contract.md` section 6.7.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.diagnostics import Diagnostic
from sie_triton.planning.recipe import RecipeBase

# An option of ours: what the graphs compute in on a CPU. SIE ignores runtime options that it does not know.
CPU_PRECISION = "cpu_precision"
# The server reads these itself, whatever the adapter.
SERVER_OPTIONS = frozenset(
    {
        CPU_PRECISION,
        "output_types",
        "output_dtype",
        "output_similarity",
        "muvera",
        "smve",
        "instruction",
        "is_query",
        "overflow_policy",
        "lora_id",
    }
)
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
# Options of every adapter's constructor.
CONSTRUCTOR = frozenset({"max_seq_length", "trust_remote_code", "code_revision", "config_kwargs"})
# Keys of `config_kwargs` that say how attention is computed and not what.
HARMLESS_CONFIG = frozenset({"use_memory_efficient_attention", "unpad_inputs", "attn_implementation", "use_cache"})
# Spellings of the poolings in bundles.
POOLING_WORDS: Mapping[str, str] = {"cls": "cls", "mean": "mean", "last": "last_token", "last_token": "last_token"}


def check_effects(
    bundle: Bundle, profile: ResolvedProfile, recipe: RecipeBase, *, pooling: str | None, unit: bool | None
) -> tuple[tuple[str, ...], list[Diagnostic]]:
    """What has no effect, as sentences, and as diagnostics what would come out otherwise than it was asked for.

    `pooling` is what is computed and `unit` whether every vector leaves with unit length; None where no checkpoint is
    at hand to tell, or where there is nothing to pool.
    """
    problems = [*_pooling(bundle, profile, recipe, pooling), *_other_outcomes(bundle, profile, unit)]
    return tuple(_without_effect(profile, recipe)), problems


def _pooling(bundle: Bundle, profile: ResolvedProfile, recipe: RecipeBase, outcome: str | None) -> Iterator[Diagnostic]:
    for side, options in (("runtime", profile.runtime), ("loadtime", profile.loadtime)):
        asked = options.get("pooling")
        # Load-time options are the defaults of the runtime's.
        overruled = side == "loadtime" and profile.runtime.get("pooling") is not None
        if asked is None or outcome is None or overruled or POOLING_WORDS.get(str(asked)) == outcome:
            continue
        known = str(asked) in POOLING_WORDS
        says = f"{profile.adapter_class} would compute `{outcome}`" if known else "no adapter knows it"
        other = "" if known and "pooling" in recipe.runtime_options else ", or name an adapter that reads the option"
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


def _without_effect(profile: ResolvedProfile, recipe: RecipeBase) -> Iterator[str]:
    adapter = profile.adapter_class
    cuts = frozenset({"matryoshka_dims"}) if "dense" in recipe.outputs else frozenset()
    honoured = recipe.runtime_options | SERVER_OPTIONS | cuts
    ignored = set() if recipe.reads_pooling else {"pooling"}
    for key in profile.runtime:
        if key not in honoured or key in ignored:
            yield f"`runtime.{key}` of `{profile.model_id}` has no effect: {adapter} does not read it"
    known = recipe.loadtime_options | CONSTRUCTOR | PERFORMANCE
    for key in profile.loadtime:
        if key not in known or key in ignored:
            yield f"`loadtime.{key}` of `{profile.model_id}` has no effect: {adapter} does not read it"


def _refused(bundle: Bundle, profile: ResolvedProfile, option: str, message: str, hint: str) -> Diagnostic:
    where: Any = bundle.positions.get(f"profiles.{profile.profile}.adapter_options.{option}")
    return Diagnostic("SIE217", message, where, hint)
