"""What `GET /v1/status` tells: a `StatusReport`, which the status page shows. Nothing here waits or asks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from prometheus_client import Gauge

from sie_frontend.contract.errors import ERROR_TABLE, ErrorKind
from sie_frontend.contract.responses import CONTRACT_VERSION
from sie_frontend.http.frontend import Frontend
from sie_frontend.http.status.gathered import Counted, Gathered, ModelStanding
from sie_frontend.http.status.traffic import Traffic, TrafficWindow
from sie_frontend.manifest import Built
from sie_frontend.watch.last_errors import LastErrors


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


def status_report(frontend: Frontend, gathered: Gathered, ids: Sequence[str], *, api: bool) -> StatusReport:
    """What is told of the models `ids`; `api` says that the port asked has the API's routes."""
    settings = frontend.settings
    first = _first_ids(gathered.models)
    memory = _by_id(gathered.counted, first)
    counted = set(first.values())
    models = tuple(
        _model(gathered, model_id, settings.device, memory, tokens=model_id in counted)
        for model_id in ids
        if model_id in gathered.models
    )
    return StatusReport(
        version=gathered.version,
        contract=CONTRACT_VERSION,
        phase=gathered.phase,
        ready=gathered.ready,
        uptime_s=gathered.uptime_s,
        device=settings.device,
        load="on-demand" if settings.on_demand else "start",
        api=api,
        models=models,
        numbers=None if gathered.counted is None else _numbers(frontend, gathered.now, memory, gathered.counted.window),
    )


def _model(gathered: Gathered, model_id: str, device: str, memory: Mapping[str, int], *, tokens: bool) -> ModelReport:
    standing = gathered.models[model_id]
    model, status, built = standing.model, standing.status, standing.built
    failure = status.failure
    kind = device.partition("-")[0]
    return ModelReport(
        id=model_id,
        state=status.state,
        loaded=status.loaded,
        inputs=model.declared_inputs,
        outputs=model.outputs,
        dims={output: dim for output, dim in model.dims.items() if dim is not None},
        max_sequence_length=model.max_sequence_length,
        precision=_joined(one.precisions.get(kind) for one in built),
        format=_joined(one.format for one in built),
        closeness=_closeness(built, kind),
        last_error=None
        if failure is None
        else FailureReport(failure.message, max(1, failure.attempts), failure.permanent),
        memory_bytes=memory.get(model_id),
        traffic=None if gathered.counted is None else gathered.counted.window.of(model_id, tokens=tokens),
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


def _first_ids(models: Mapping[str, ModelStanding]) -> dict[str, str]:
    """The Triton models, and the first id that each belongs to: what is counted by Triton model bears its name."""
    first: dict[str, str] = {}
    for model_id, standing in models.items():
        for part in standing.parts:
            first.setdefault(part, model_id)
    return first


def _by_id(counted: Counted | None, first: Mapping[str, str]) -> dict[str, int]:
    """Bytes by id, each Triton model's for the first id that has it."""
    found: dict[str, int] = {}
    for part, size in counted.memory.items() if counted else ():
        if part in first:
            found[first[part]] = found.get(first[part], 0) + size
    return found


def _numbers(frontend: Frontend, now: float, memory: Mapping[str, int], window: TrafficWindow) -> Numbers:
    settings, metrics = frontend.settings, frontend.metrics
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
        errors=tuple(_kinds(window, frontend.last_errors, now)),
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
