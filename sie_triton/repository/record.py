"""What was built, from what, how close: assembles the document whose schema is `sie_frontend.manifest`."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from sie_frontend.manifest import (
    SCHEMA_VERSION,
    Batching,
    Built,
    Certificate,
    Distance,
    Manifest,
    Model,
    OutputType,
    TensorSpec,
    Tokenization,
    TritonModel,
)

from sie_triton import __version__
from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.formats import Precision
from sie_triton.planning.plan import ServedPlan, TritonPlan
from sie_triton.repository.config import CpuShape, Machine, TritonModelConfig, device_rows, machines, run_tokens
from sie_triton.repository.publish import tree_digests

TOOLS = ("torch", "transformers", "sentence-transformers", "tokenizers", "onnx", "onnxscript", "onnxruntime")
TOKENIZER_NAME = "tokenizer.json"
OUTPUT_TYPES: tuple[OutputType, ...] = ("dense", "sparse", "multivector", "score")


def tool_versions() -> dict[str, str]:
    """The versions that decide the built bytes; local build tags such as `+cpu` are dropped."""
    versions = {"sie-triton": __version__}
    for tool in TOOLS:
        try:
            versions[tool] = importlib.metadata.version(tool).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What only the loaded tokenizer knows, and the number of rows of the embedding that its ids are looked up in."""

    pad_id: int
    special_ids: dict[str, int]
    all_special_ids: tuple[int, ...]
    embedding_rows: int | None = None


def model_entries(
    bundle: Bundle,
    plan: TritonPlan,
    cpu: CpuShape,
    vocabulary: Vocabulary,
    revision: str | None,
    padding_cost: float | None = None,
) -> dict[str, Model]:
    """One entry per model id that the plan serves. `padding_cost`: of packed graphs for CPUs."""
    tokenization = Tokenization(
        path=f"{plan.name}/1/{TOKENIZER_NAME}",
        max_length=plan.max_length,
        pad_id=vocabulary.pad_id,
        inputs=tuple(tensor.name for tensor in plan.inputs),
        buckets=plan.buckets,
        special_ids=vocabulary.special_ids,
        all_special_ids=vocabulary.all_special_ids,
        truncation_side=plan.truncation_side,
        vocabulary=vocabulary.embedding_rows,
    )
    batching = {str(machine): _batching(plan, machine, cpu, padding_cost) for machine in machines(plan)}
    return {
        served.profile.model_id: _model(bundle, plan, served, tokenization, batching, revision)
        for served in plan.served
    }


def _batching(plan: TritonPlan, machine: Machine, cpu: CpuShape, padding_cost: float | None) -> Batching:
    return Batching(
        max_batch_size=device_rows(plan, machine),
        run_tokens=run_tokens(machine, plan.max_batch_tokens),
        streams=cpu.instances if machine == "cpu" else 1,
        express=cpu.express if machine == "cpu" else 0,
        padding_cost=padding_cost if machine == "cpu" else None,
    )


def _model(
    bundle: Bundle,
    plan: TritonPlan,
    served: ServedPlan,
    tokenization: Tokenization,
    batching: dict[str, Batching],
    revision: str | None,
) -> Model:
    profile, recipe = served.profile, served.recipe
    return Model(
        triton_model=plan.name,
        adapter=profile.adapter_class,
        requires_text=recipe.requires_text_message,
        inputs=bundle.inputs,
        outputs=tuple(output for output in OUTPUT_TYPES if output in bundle.outputs),
        dims=dict(bundle.dims),
        max_sequence_length=profile.max_sequence_length,
        revision=revision,
        profiles=_request_profiles(bundle, profile),
        prompting=served.prompting,
        tokenization=tokenization,
        heads=served.heads,
        batching=batching,
        loadtime=dict(profile.loadtime),
        request_limit=recipe.request_limit,
        usage=recipe.usage_counts,
    )


def _request_profiles(bundle: Bundle, profile: ResolvedProfile) -> dict[str, dict[str, Any]]:
    """Runtime options by the names that `options.profile` may use: all for a base id, its own for a variant."""
    if profile.profile != "default":
        return {"default": dict(profile.runtime)}
    return {name: dict(bundle.resolve(name).runtime) for name in bundle.profiles}


Parity: TypeAlias = "Mapping[Precision, Mapping[str, Distance]]"


def triton_entries(staging: Path, configs: Iterable[TritonModelConfig]) -> dict[str, TritonModel]:
    """Signatures and digests of what lies in the staging directory."""
    return {
        config.name: TritonModel(
            inputs=tuple(TensorSpec(t.name, t.data_type.removeprefix("TYPE_"), t.dims) for t in config.input),
            outputs=tuple(TensorSpec(t.name, t.data_type.removeprefix("TYPE_"), t.dims) for t in config.output),
            files=tree_digests(staging / config.name),
            depends_on=tuple(step.model_name for step in config.steps),
        )
        for config in configs
    }


def built_entry(plan: TritonPlan, key: str, checkpoint: str, parity: Parity, certificate: Certificate) -> Built:
    """The record of one build."""
    return Built(
        key=key,
        checkpoint=checkpoint,
        precisions={str(device): str(precision) for device, precision in plan.precisions.items()},
        configs={str(machine): str(name) for machine, name in machines(plan).items()},
        format=plan.format,
        layout=plan.layout,
        tools=tool_versions(),
        parity={str(precision): dict(measured) for precision, measured in parity.items()},
        certificate=certificate,
        triton_models=tuple(dict.fromkeys((*(graph.triton_model for graph in plan.graphs), plan.name))),
    )


def redigest(manifest: Manifest, staging: Path, names: Iterable[str]) -> Manifest:
    """`manifest` with the digests of Triton models whose files were replaced."""
    changed = {
        name: msgspec.structs.replace(manifest.triton_models[name], files=tree_digests(staging / name))
        for name in names
    }
    return msgspec.structs.replace(manifest, triton_models={**manifest.triton_models, **changed})


def merge(old: Manifest, name: str, models: dict[str, Model], triton: dict[str, TritonModel], built: Built) -> Manifest:
    """`old` with a public Triton model added or replaced; ids that it served before and no longer does go."""
    without = remove(old, name)
    # An id served by another Triton model until now moves to the new one.
    kept = {model_id: model for model_id, model in without.models.items() if model_id not in models}
    return Manifest(
        SCHEMA_VERSION,
        dict(sorted({**kept, **models}.items())),
        dict(sorted({**without.triton_models, **triton}.items())),
        dict(sorted({**without.built, name: built}.items())),
    )


def remove(old: Manifest, name: str) -> Manifest:
    """`old` without a public Triton model and everything that only it needs."""
    built = old.built.get(name)
    gone = set(built.triton_models) if built else set()
    return Manifest(
        SCHEMA_VERSION,
        {model_id: model for model_id, model in old.models.items() if model.triton_model != name},
        {n: model for n, model in old.triton_models.items() if n not in gone},
        {n: b for n, b in old.built.items() if n != name},
    )
