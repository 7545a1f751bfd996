"""What becomes of a bundle: its adapter's row, then what the bundle and the profile's own options make of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sie_triton.bundle import Bundle, ResolvedProfile, did_you_mean, expand
from sie_triton.planning.families import CATALOGUE, Recipe
from sie_triton.planning.recipe import Refusal


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
    if isinstance(row, Recipe) and row.stand_ins:
        row = _stand_in(row, profile, bundle)
    if isinstance(row, Refusal):
        return row
    named = row.backends.get(str(profile.loadtime.get("backend")))
    if isinstance(named, Recipe):
        row = named
    refusal = _refuse_source(bundle) or _refuse_outputs(row, profile, bundle) or _refuse_options(row, profile, bundle)
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
    if not set(row.modalities) & set(bundle.inputs):
        kinds = " or ".join(row.modalities)
        return Refusal(f"takes no {kinds}; only {kinds} encoders are compiled")
    return None


def _refuse_options(row: Recipe, profile: ResolvedProfile, bundle: Bundle) -> Refusal | None:
    loadtime = profile.loadtime
    if loadtime.get("use_model_encode"):
        return Refusal("`use_model_encode`: vectors come from a method of the checkpoint's own code, not from a graph")
    if loadtime.get("backend") == "open_clip" and "backend" not in row.loadtime_options:
        return Refusal(
            "`backend: open_clip`: the checkpoint is laid out for open_clip, which this adapter does not load"
        )
    named = str(loadtime.get("open_clip_model_id", "")).removeprefix("hf-hub:")
    if named and bundle.hf_id and named != bundle.hf_id:
        return Refusal(f"`open_clip_model_id` names the weights `{named}`, and `hf_id` those of `{bundle.hf_id}`")
    if loadtime.get("lora_paths"):
        return Refusal("`lora_paths`: adapters switched per request; a graph has one set of weights")
    return _refuse_lora(row, profile.runtime.get("lora_id"), profile.adapter_class)


def _refuse_lora(row: Recipe, lora: object, adapter: str) -> Refusal | None:
    """Leaving the low-rank weights out would serve other vectors under the profile's name."""
    if lora is None or lora == "":
        return None
    if not isinstance(lora, str):
        return Refusal(f"`lora_id` is {lora!r}, not the id of an adapter")
    return None if row.loads_lora else Refusal(f"`lora_id`: `{adapter}` loads no LoRA adapter such as `{lora}`")


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
        append_eos=row.reads_append_eos and loadtime.get("append_eos") is True,
    )


def _text(options: Mapping[str, Any], key: str) -> str | None:
    value = options.get(key)
    return value if isinstance(value, str) else None


def _stand_in(row: Recipe, profile: ResolvedProfile, bundle: Bundle) -> Recipe | Refusal:
    """The recipe that a Rust-worker profile amounts to: by its declared outputs, and for dense by its `pooling`.

    The worker's source is not public to us, so nothing is guessed: dense needs a `pooling` that is spelled out.
    """
    encoded = tuple(output for output in bundle.outputs if output in ("dense", "sparse", "multivector"))
    if encoded == row.outputs:
        pooling = profile.runtime.get("pooling", profile.loadtime.get("pooling"))
        known = row.pooling_override.get(pooling) if isinstance(pooling, str) else None
        if known is None:
            words = ", ".join(f"`{word}`" for word in row.pooling_override)
            return Refusal(f"the Rust worker's pooling is known only where the profile names it as one of {words}")
        return replace(row, default_pooling=known, pooling_otherwise=known)
    recipe = CATALOGUE[row.stand_ins[encoded]] if encoded in row.stand_ins else None
    if not isinstance(recipe, Recipe):
        listed = ", ".join(f"`{output}`" for output in bundle.outputs) or "nothing"
        return Refusal(f"declares {listed}, for which the Rust worker's heads are not known")
    return replace(recipe, requires_text_message=row.requires_text_message, notes=row.notes)


@dataclass(frozen=True)
class CatalogueRow:
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


def catalogue_table(bundles: Iterable[Bundle]) -> list[CatalogueRow]:
    """One row per profile, in the order of the bundles."""
    return [_row(profile, bundle) for bundle in bundles for profile in expand(bundle)]


def _row(profile: ResolvedProfile, bundle: Bundle) -> CatalogueRow:
    judged = verdict(profile, bundle)
    return CatalogueRow(
        id=profile.model_id,
        profile=profile.profile,
        adapter=profile.adapter_class or profile.adapter_path,
        tasks=bundle.tasks,
        outputs=judged.outputs if isinstance(judged, Recipe) else bundle.outputs,
        verdict=judged.name if isinstance(judged, Recipe) else "refused",
        reason=judged.reason if isinstance(judged, Refusal) else "",
    )
