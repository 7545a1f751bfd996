"""How settings become the rules by which models are loaded on demand."""

from __future__ import annotations

from pathlib import Path

from sie_frontend.contract.errors import ERROR_TABLE, ErrorKind
from sie_frontend.manifest import Manifest
from sie_frontend.residency.carrier import Carrier, CarrierLimits, Discharge, Memory
from sie_frontend.residency.policy import Policy
from sie_frontend.residency.residency import Residency
from sie_frontend.residency.state import Rules
from sie_frontend.residency.units import expected_bytes, units_of
from sie_frontend.serving.readiness import Readiness
from sie_frontend.settings import Settings, SettingsError
from sie_frontend.triton.replicas import ReplicaSet
from sie_frontend.watch.metrics import Metrics


def check_on_demand(manifest: Manifest, repository: Path, settings: Settings) -> Policy | None:
    """The policy of these settings; None where everything is loaded at the start.

    Raises `SettingsError` for an id that the repository does not hold, for pinned models beyond the budget, and for
    settings that have no effect without loading on demand.
    """
    lists = (("SIE_TRITON_PIN", settings.pinned_ids), ("SIE_TRITON_PRELOAD", settings.preload_ids))
    if not settings.on_demand:
        told = [name for name, given in (*lists, ("SIE_TRITON_IDLE_EVICT_S", settings.idle_evict_s)) if given]
        if told:
            raise SettingsError(
                f"`{told[0]}` has no effect where all models are loaded at the start: set `SIE_TRITON_LOAD` to "
                "`on-demand`, or `SIE_TRITON_MEMORY_BUDGET`"
            )
        return None
    for variable, ids in lists:
        for model_id in ids:
            if model_id not in manifest.models:
                raise SettingsError(f"`{variable}` names {model_id!r}, which the repository does not hold")
    policy = _policy(manifest, repository, settings)
    for residence in policy.residences.values():
        if residence.unit.pinned and (failure := policy.too_large(residence.unit.name)):
            raise SettingsError(f"`SIE_TRITON_PIN` names {residence.unit.name!r}, but {failure.message}")
    return policy


def make_residency(
    manifest: Manifest,
    repository: Path,
    settings: Settings,
    triton: ReplicaSet,
    readiness: Readiness,
    metrics: Metrics,
    memory: Memory | None,
    discharge: Discharge | None,
) -> Residency:
    """What loads and unloads by these settings."""
    _, unit_of = units_of(manifest, frozenset(settings.pinned_ids))
    limits = CarrierLimits(settings.load_timeout_s, min(60.0, settings.load_timeout_s))
    return Residency(
        _policy(manifest, repository, settings, embedded=memory is not None),
        unit_of,
        Carrier(triton, limits, memory, discharge),
        metrics,
        arrived=readiness.look,
        left=readiness.left,
        preload=(*settings.preload_ids, *settings.pinned_ids),
    )


def _policy(manifest: Manifest, repository: Path, settings: Settings, *, embedded: bool = False) -> Policy:
    units, _ = units_of(manifest, frozenset(settings.pinned_ids))
    hint = ERROR_TABLE[ErrorKind.MODEL_LOADING].retry_after
    assert hint is not None
    rules = Rules(
        settings.memory_budget,
        settings.idle_evict_s,
        hint_s=hint,
        slack_s=hint / 2,
        cooldown_s=settings.load_cooldown_s,
    )
    return Policy(units.values(), expected_bytes(manifest, repository, settings.device, embedded=embedded), rules)
