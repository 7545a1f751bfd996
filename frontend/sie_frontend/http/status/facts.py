"""The facts of a running process, gathered from what its engine and its metrics say. Nothing here waits or asks.

`GET /v1/status` answers with a `StatusReport`; the status page and the command line show it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from prometheus_client import Gauge

from sie_frontend.contract.errors import ERROR_TABLE, ErrorKind
from sie_frontend.contract.responses import CONTRACT_VERSION
from sie_frontend.http.status.traffic import Traffic, TrafficWindow
from sie_frontend.manifest import Built, Manifest
from sie_frontend.serving.engine import Engine
from sie_frontend.watch.last_errors import LastErrors
from sie_frontend.watch.metrics import Metrics


def _means(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class Closeness(msgspec.Struct, frozen=True):
    """How far the precision that is served was from the reference when the model was built, at worst."""

    implementation: Annotated[str, _means("what it was compared with")]
    cases: int
    min_cosine: Annotated[float | None, _means("null where all outputs are scores")]
    max_abs: float


class FailureReport(msgspec.Struct, frozen=True):
    """Why a model could not be loaded."""

    message: str
    attempts: int
    permanent: bool


class ModelReport(msgspec.Struct, frozen=True):
    """One id: what it takes and gives, and how it does."""

    id: str
    state: Annotated[str, _means("as `/v1/models` says it")]
    loaded: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dims: dict[str, int]
    max_sequence_length: int | None
    precision: Annotated[str | None, _means("of its graphs on this kind of machine; null for what was not compared")]
    format: str | None
    closeness: Closeness | None
    last_error: FailureReport | None
    memory_bytes: Annotated[
        int | None, _means("null where it is not known, and where another id has the same Triton models")
    ]
    traffic: Annotated[Traffic | None, _means("null without the verb `metrics`")]


class ReplicaReport(msgspec.Struct, frozen=True):
    """One Triton."""

    url: str
    serves: Annotated[bool, _means("whether it answers that it serves a model of this repository")]
    runs: Annotated[int, _means("runs that it has not answered yet")]


class KindReport(msgspec.Struct, frozen=True):
    """The refusals and failures of one kind."""

    kind: str
    status: int
    total: Annotated[int, _means("since the process began")]
    recent: Annotated[int, _means("within the window")]
    last_s: Annotated[float | None, _means("seconds since the last one, where it is known")]
    message: Annotated[str | None, _means("what the last one said, if the log has it too")]


class Numbers(msgspec.Struct, frozen=True):
    """What the metrics of the process say."""

    window_s: Annotated[float, _means("seconds that the traffic is the mean of")]
    traffic: Traffic
    inflight_requests: int
    pending_items: int
    pending_items_limit: int
    pending_images: int
    pending_images_limit: int
    memory_bytes: Annotated[int | None, _means("what all loaded models take; null where it is not known")]
    memory_budget_bytes: int | None
    replicas: tuple[ReplicaReport, ...]
    errors: tuple[KindReport, ...]


class StatusReport(msgspec.Struct, frozen=True):
    """The process, its models, and its numbers."""

    version: str
    contract: str
    phase: Annotated[
        Literal["serving", "leaving", "closing"], _means("`leaving` and `closing` once it was told to end")
    ]
    ready: Annotated[bool, _means("what `/readyz` says")]
    uptime_s: float
    device: str
    load: Literal["start", "on-demand"]
    api: Annotated[bool, _means("whether this port has the API's routes, too")]
    models: tuple[ModelReport, ...]
    numbers: Annotated[Numbers | None, _means("null without the verb `metrics`, and where metrics have another port")]


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What neither the engine nor the metrics know.

    `api` says that the port asked has the API's routes, `memory` is bytes by Triton model, where they can be seen, and
    `now` is the time by the clock of the last errors.
    """

    version: str
    phase: Literal["serving", "leaving", "closing"]
    ready: bool
    uptime_s: float
    api: bool
    memory: Mapping[str, int]
    now: float


def gather(
    engine: Engine,
    metrics: Metrics,
    process: ProcessFacts,
    ids: Sequence[str],
    window: TrafficWindow | None,
    errors: LastErrors,
) -> StatusReport:
    """The report about the models `ids`; numbers only with a `window`, since not everybody may see them."""
    first = _first_ids(engine.manifest)
    memory = {} if window is None else _memory(engine, metrics, process, first)
    counted = set(first.values())
    models = tuple(_model(engine, model_id, memory, window, tokens=model_id in counted) for model_id in ids)
    return StatusReport(
        version=process.version,
        contract=CONTRACT_VERSION,
        phase=process.phase,
        ready=process.ready,
        uptime_s=process.uptime_s,
        device=engine.settings.device,
        load="on-demand" if engine.settings.on_demand else "start",
        api=process.api,
        models=models,
        numbers=None if window is None else _numbers(engine, metrics, process, memory, window, errors),
    )


def _model(
    engine: Engine, model_id: str, memory: Mapping[str, int], window: TrafficWindow | None, *, tokens: bool
) -> ModelReport:
    model = engine.manifest.models[model_id]
    status = engine.state(model_id, model)
    failure = status.failure
    device = engine.settings.device.partition("-")[0]
    built = [found for name in model.triton_models if (found := engine.manifest.built.get(name))]
    return ModelReport(
        id=model_id,
        state=status.state,
        loaded=status.loaded,
        inputs=model.declared_inputs,
        outputs=model.outputs,
        dims={output: dim for output, dim in model.dims.items() if dim is not None},
        max_sequence_length=model.max_sequence_length,
        precision=_joined(one.precisions.get(device) for one in built),
        format=_joined(one.format for one in built),
        closeness=_closeness(built, device),
        last_error=None
        if failure is None
        else FailureReport(failure.message, max(1, failure.attempts), failure.permanent),
        memory_bytes=memory.get(model_id),
        traffic=None if window is None else window.of(model_id, tokens=tokens),
    )


def _joined(words: Iterable[str | None]) -> str | None:
    """Distinct words, in order; None where there are none."""
    return " and ".join(dict.fromkeys(word for word in words if word)) or None


def _closeness(built: Sequence[Built], device: str) -> Closeness | None:
    """The worst of all outputs of all inputs, in the precision of this kind of machine."""
    distances = [distance for one in built for distance in one.parity.get(one.precisions.get(device, ""), {}).values()]
    if not distances:
        return None
    cosines = [distance.min_cosine for distance in distances if distance.min_cosine is not None]
    return Closeness(
        implementation=_joined(one.certificate.implementation for one in built) or "",
        cases=sum(one.certificate.cases for one in built),
        min_cosine=min(cosines, default=None),
        max_abs=max(distance.max_abs for distance in distances),
    )


def _first_ids(manifest: Manifest) -> dict[str, str]:
    """The Triton models, and the first id that each belongs to: what is counted by Triton model bears its name."""
    first: dict[str, str] = {}
    for model_id, model in manifest.models.items():
        for part in manifest.parts(model):
            first.setdefault(part, model_id)
    return first


def _memory(engine: Engine, metrics: Metrics, process: ProcessFacts, first: Mapping[str, str]) -> dict[str, int]:
    """Bytes by id, each Triton model's for the first id that has it: as seen, else as the residency reckons."""
    if not process.memory:
        if not engine.settings.on_demand:
            return {}
        return {labels["model"]: int(value) for labels, value in _gauge(metrics.model_memory)}
    found: dict[str, int] = {}
    for part, size in process.memory.items():
        if part in first:
            found[first[part]] = found.get(first[part], 0) + size
    return found


def _numbers(
    engine: Engine,
    metrics: Metrics,
    process: ProcessFacts,
    memory: Mapping[str, int],
    window: TrafficWindow,
    errors: LastErrors,
) -> Numbers:
    settings = engine.settings
    [(_, inflight)], [(_, items)], [(_, images)] = (
        _gauge(metrics.inflight_requests),
        _gauge(metrics.pending_items),
        _gauge(metrics.pending_images),
    )
    runs = {labels["replica"]: int(value) for labels, value in _gauge(metrics.replica_runs)}
    return Numbers(
        window_s=window.seconds,
        traffic=window.of(None),
        inflight_requests=int(inflight),
        pending_items=int(items),
        pending_items_limit=settings.pending_items,
        pending_images=int(images),
        pending_images_limit=settings.pending_images,
        memory_bytes=sum(memory.values()) if memory else None,
        memory_budget_bytes=settings.memory_budget,
        replicas=tuple(
            ReplicaReport(labels["replica"], bool(value), runs.get(labels["replica"], 0))
            for labels, value in _gauge(metrics.replica_ready)
        ),
        errors=tuple(_kinds(window, errors, process.now)),
    )


def _kinds(window: TrafficWindow, errors: LastErrors, now: float) -> Iterable[KindReport]:
    """What happened of each kind, the most recent first."""
    found = []
    for kind in ErrorKind:
        if total := window.now.errors.get(kind.value):
            last = errors.of(kind)
            found.append(
                KindReport(
                    kind=kind.value,
                    status=ERROR_TABLE[kind].status,
                    total=round(total),
                    recent=window.errors(kind.value),
                    last_s=None if last is None else now - last.at,
                    message=None if last is None else last.message,
                )
            )
    return sorted(found, key=lambda one: float("inf") if one.last_s is None else one.last_s)


def _gauge(gauge: Gauge) -> list[tuple[Mapping[str, str], float]]:
    [family] = gauge.collect()
    return [(sample.labels, sample.value) for sample in family.samples]
