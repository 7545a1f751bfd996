"""What was built, from what, how close: assembles the document whose schema is `sie_frontend.manifest`."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterable, Mapping
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
    ModelInput,
    Nearest,
    Reranked,
    TensorSpec,
    TritonModel,
)
from sie_frontend.outputs.table import OUTPUT_TYPES

from sie_triton import __version__
from sie_triton.bundle import Bundle, ResolvedProfile
from sie_triton.formats import Precision
from sie_triton.planning.plan import ServedPlan, TritonPlan
from sie_triton.repository.config import CpuShape, Machine, TritonModelConfig, device_rows, machines, run_tokens
from sie_triton.repository.publish import tree_digests, tree_sizes

TOOLS = ("torch", "transformers", "sentence-transformers", "tokenizers", "onnx", "onnxscript", "onnxruntime")


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
class Record:
    """What the manifest says of one public Triton model."""

    name: str
    models: dict[str, Model]
    triton_models: dict[str, TritonModel]
    built: Built


ReadsOf: TypeAlias = "Callable[[ServedPlan], Any]"
"""A served id -> its modality's entry: how its items become rows."""


def model_entries(
    bundle: Bundle,
    plan: TritonPlan,
    cpu: CpuShape,
    reads_of: ReadsOf,
    revision: str | None,
    padding_cost: float | None = None,
) -> dict[str, Model]:
    """One entry per model id that the plan serves. `padding_cost`: of packed graphs for CPUs."""
    batching = {str(machine): _batching(plan, machine, cpu, padding_cost) for machine in machines(plan)}
    return {
        served.profile.model_id: _model(
            bundle, served, {plan.modality: ModelInput(plan.name, reads_of(served), batching)}, revision
        )
        for served in plan.served
    }


def _batching(plan: TritonPlan, machine: Machine, cpu: CpuShape, padding_cost: float | None) -> Batching:
    return Batching(
        max_batch_size=device_rows(plan, machine),
        run_tokens=run_tokens(machine, plan.max_batch_tokens, plan.row_tokens),
        streams=cpu.instances if machine == "cpu" else 1,
        express=cpu.express if machine == "cpu" else 0,
        padding_cost=padding_cost if machine == "cpu" else None,
        threads=cpu.threads if machine == "cpu" else 1,
    )


def _model(bundle: Bundle, served: ServedPlan, inputs: dict[str, ModelInput], revision: str | None) -> Model:
    profile = served.profile
    return Model(
        adapter=profile.adapter_class,
        declared_inputs=bundle.inputs,
        outputs=tuple(output for output in OUTPUT_TYPES if output in bundle.outputs),
        dims=dict(bundle.dims),
        max_sequence_length=profile.max_sequence_length,
        revision=revision,
        profiles=_request_profiles(bundle, profile),
        inputs=inputs,
        heads=served.heads,
        loadtime=dict(profile.loadtime),
        lora=profile.lora,
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
            sizes=tree_sizes(staging / config.name),
        )
        for config in configs
    }


def built_entry(
    plan: TritonPlan,
    key: str,
    checkpoint: str,
    parity: Parity,
    certificate: Certificate,
    *,
    nearest: Mapping[Precision, Mapping[str, Nearest]] | None = None,
    reranked: Mapping[Precision, Mapping[str, Reranked]] | None = None,
    written: Mapping[Precision, str] | None = None,
    accepted: Mapping[str, float] | None = None,
) -> Built:
    """The record of one build."""
    return Built(
        nearest={str(precision): dict(found) for precision, found in (nearest or {}).items() if found},
        reranked={str(precision): dict(found) for precision, found in (reranked or {}).items() if found},
        written={str(precision): told for precision, told in (written or {}).items()},
        accepted=dict(accepted or {}),
        engine=plan.engine,
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
        name: msgspec.structs.replace(
            manifest.triton_models[name], files=tree_digests(staging / name), sizes=tree_sizes(staging / name)
        )
        for name in names
    }
    return msgspec.structs.replace(manifest, triton_models={**manifest.triton_models, **changed})


def merge(old: Manifest, record: Record) -> Manifest:
    """`old` with a public Triton model added or replaced; ids that it served before and no longer does go."""
    without = remove(old, record.name)
    models = {i: _joined(without, without.models.get(i), model, record.built.key) for i, model in record.models.items()}
    return Manifest(
        SCHEMA_VERSION,
        dict(sorted({**without.models, **models}.items())),
        dict(sorted({**without.triton_models, **record.triton_models}.items())),
        dict(sorted({**without.built, record.name: record.built}.items())),
    )


def _joined(manifest: Manifest, old: Model | None, new: Model, key: str) -> Model:
    """An id's inputs of one build are all its own; what another build served moves to the new one."""
    kept = {
        name: entry
        for name, entry in (old.inputs if old else {}).items()
        if manifest.built[entry.triton_model].key == key
    }
    return msgspec.structs.replace(new, inputs={**kept, **new.inputs})


def remove(old: Manifest, name: str) -> Manifest:
    """`old` without a public Triton model and everything that only it needs."""
    built = old.built.get(name)
    gone = set(built.triton_models) if built else set()
    left = {
        model_id: msgspec.structs.replace(
            model, inputs={i: entry for i, entry in model.inputs.items() if entry.triton_model != name}
        )
        for model_id, model in old.models.items()
    }
    return Manifest(
        SCHEMA_VERSION,
        {model_id: model for model_id, model in left.items() if model.inputs},
        {n: model for n, model in old.triton_models.items() if n not in gone},
        {n: b for n, b in old.built.items() if n != name},
    )
