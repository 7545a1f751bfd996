"""The options of a deployment, checked before anything is rendered."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal

from sie_frontend.setting_values import as_size

from sie_triton import __version__
from sie_triton.deploy.scheduling import node_selector, tolerations
from sie_triton.deploy.source import Source, parse_source
from sie_triton.diagnostics import Diagnostic, DiagnosticError

Autoscaler = Literal["hpa", "keda", "none"]
Device = Literal["cpu", "cuda"]
Engine = Literal["nvidia", "embedded"]
Kind = Literal["kubernetes", "kserve"]
Load = Literal["start", "on-demand"]
AccessMode = Literal["ReadWriteMany", "ReadWriteOnce"]

DEFAULT_TRITON_IMAGE = "nvcr.io/nvidia/tritonserver:26.08-py3"
FILL_BY_BUILDING = "build"
# The longest suffix that is put behind the name, within the 63 characters of a label: `-fill-01234567`.
_NAME_LENGTH = 63 - 14
_DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
# host[:port]/path[:tag][@digest], as container runtimes read it.
_IMAGE = re.compile(
    r"[a-zA-Z0-9][a-zA-Z0-9.-]*(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
_HOST = re.compile(r"(?=.{1,253}\Z)(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_GATEWAY = re.compile(rf"({_DNS_LABEL.pattern}/)?{_DNS_SUBDOMAIN.pattern}")
_URL = re.compile(r"https?://[^\s\"'\\]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """What is the same before and after the check."""

    name: str = "sie-triton"
    namespace: str = "default"
    device: Device = "cpu"
    frontend_image: str = f"sie-triton-frontend:{__version__}"
    builder_image: str = f"sie-triton-builder:{__version__}"
    image_pull_secret: tuple[str, ...] = ()
    triton_replicas: int = 2
    triton_max_replicas: int = 8
    frontend_replicas: int = 2
    frontend_max_replicas: int = 8
    node_selector: tuple[str, ...] = ()
    toleration: tuple[str, ...] = ()
    frontend_node_selector: tuple[str, ...] = ()
    frontend_toleration: tuple[str, ...] = ()
    autoscaler: Autoscaler = "hpa"
    queued_tokens: int | None = None
    prometheus_url: str = "http://prometheus-server.monitoring.svc:80"
    monitoring_namespace: str = "monitoring"
    service_account: str | None = None
    credentials_secret: str | None = None
    storage_class: str | None = None
    access_mode: AccessMode = "ReadWriteMany"
    fill: str | None = None
    api_keys_secret: str | None = None
    tls_secret: str | None = None
    ingress_host: str | None = None
    ingress_class: str | None = None
    ingress_tls_secret: str | None = None
    gateway: str | None = None
    load: Load = "start"
    memory_budget: str | None = None
    preload: tuple[str, ...] = ()
    pin: tuple[str, ...] = ()
    idle_evict_s: float | None = None
    grpc: bool = False

    @property
    def on_demand(self) -> bool:
        """Whether models are loaded when they are first asked for."""
        return self.load == "on-demand" or self.memory_budget is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployOptions(_Shared):
    """How a repository is to be served in a cluster.

    `source` is where the pods find the repository: `pvc://CLAIM[/FOLDER]`, `s3://BUCKET[/PREFIX]` or
    `gs://BUCKET[/PREFIX]`; None stands for a new claim, which is rendered with the rest. `fill` says what a Job puts
    into a claim: `build` compiles the models there, and the URI of an object store is copied; None leaves it to you.
    `engine` is the tritonserver to run: NVIDIA's container or our CPU image. None chooses ours for plain Kubernetes
    on the `cpu` from a claim, else NVIDIA's. `service_account` and `credentials_secret` (its keys become variables of
    the environment) are for object storage. `api_keys_secret` has a file of keys under `keys.txt`, `tls_secret` a
    certificate as Kubernetes keeps it. `node_selector` and `toleration` are for the pods that compute, `KEY=VALUE` and
    `KEY[=VALUE][:EFFECT]`. Prometheus may read Triton's metrics from `monitoring_namespace`.
    """

    source: str | None = None
    engine: Engine | None = None
    triton_image: str | None = None

    def checked(self, kind: Kind) -> Deployment:
        """These options with every default resolved, for a kind of cluster.

        Raises `DiagnosticError` (`SIE801`) with all mistakes.
        """
        problems = list(self._problems())
        # A folder of the claim: a build publishes by renaming it, and keeps its lock and its staging folder beside it.
        source: Source | None = Source("pvc", f"{self.name}-repository", "repository")
        try:
            source = parse_source(self.source) if self.source is not None else source
        except ValueError as error:
            source = None
            problems.append(_mistake("source", str(error)))
        if source is not None:
            problems += [*self._engine_problems(kind, source), *self._combined_problems(kind, source)]
        if problems or source is None:
            raise DiagnosticError(problems)
        engine = self._engine_for(kind, source)
        image = self.triton_image or (
            DEFAULT_TRITON_IMAGE if engine == "nvidia" else f"sie-triton-server:{__version__}"
        )
        given: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(_Shared)}
        return Deployment(
            **given, kind=kind, source=source, own_claim=self.source is None, engine=engine, triton_image=image
        )

    def _engine_for(self, kind: Kind, source: Source) -> Engine:
        ours = kind == "kubernetes" and self.device == "cpu" and source.is_claim and not self.grpc
        return self.engine or ("embedded" if ours else "nvidia")

    def _problems(self) -> Iterable[Diagnostic]:
        if not _DNS_LABEL.fullmatch(self.name) or len(self.name) > _NAME_LENGTH:
            yield _mistake(
                "name",
                f"`{self.name}` cannot name Kubernetes objects; use at most {_NAME_LENGTH} lower-case letters, digits "
                "and hyphens, beginning with a letter",
            )
        for what in ("namespace", "monitoring_namespace"):
            value = getattr(self, what)
            if not _DNS_LABEL.fullmatch(value) or len(value) > 63:
                yield _mistake(what, f"`{value}` is not the name of a namespace")
        for what in _OBJECTS:
            values = getattr(self, what)
            for value in values if isinstance(values, tuple) else (values,):
                if value is not None and (not _DNS_SUBDOMAIN.fullmatch(value) or len(value) > 253):
                    yield _mistake(what, f"`{value}` is not the name of a Kubernetes object")
        for what in ("triton_image", "frontend_image", "builder_image"):
            value = getattr(self, what)
            if value is not None and not _IMAGE.fullmatch(value):
                yield _mistake(
                    what, f"`{value}` is not a container image; write `host/name:tag` or `host/name@sha256:…`"
                )
        for what in ("triton", "frontend"):
            low, high = getattr(self, f"{what}_replicas"), getattr(self, f"{what}_max_replicas")
            if low < 1 or high < low:
                yield _mistake(f"{what}_replicas", f"from {low} to {high} replicas of {what} is not a range from 1 up")
        yield from self._value_problems()

    def _value_problems(self) -> Iterable[Diagnostic]:
        if not _URL.fullmatch(self.prometheus_url):
            yield _mistake("prometheus_url", f"`{self.prometheus_url}` is not an http URL")
        for what, parse in _PLACEMENTS.items():
            try:
                parse(getattr(self, what))
            except ValueError as error:
                yield _mistake(what, str(error))
        if self.queued_tokens is not None and self.queued_tokens < 1:
            yield _mistake("queued_tokens", f"{self.queued_tokens} tokens is no queue; name 1 or more")
        if self.idle_evict_s is not None and not 0 <= self.idle_evict_s < 1e9:
            yield _mistake("idle_evict_s", f"{self.idle_evict_s} is no number of seconds")
        if self.memory_budget is not None:
            try:
                as_size(self.memory_budget)
            except ValueError as error:
                yield _mistake("memory_budget", f"must be {error}, not `{self.memory_budget}`")
        if self.ingress_host is not None and not _HOST.fullmatch(self.ingress_host):
            yield _mistake("ingress_host", f"`{self.ingress_host}` is not the name of a host")
        if self.gateway is not None and not _GATEWAY.fullmatch(self.gateway):
            yield _mistake("gateway", f"`{self.gateway}` names no Gateway; write `NAME` or `NAMESPACE/NAME`")

    def _engine_problems(self, kind: Kind, source: Source) -> Iterable[Diagnostic]:
        if self.engine == "embedded" and kind == "kserve":
            yield _mistake("engine", "KServe starts a tritonserver of its own image; use `nvidia`")
        if self.engine == "embedded" and self.device == "cuda":
            yield _mistake("engine", "the embedded server runs on the CPU only; use `nvidia` for CUDA")
        if self.engine == "embedded" and not source.is_claim:
            yield _mistake("engine", f"the embedded server reads folders, not {source.uri}; use `nvidia`, or a claim")

    def _combined_problems(self, kind: Kind, source: Source) -> Iterable[Diagnostic]:
        """Options that do not go together."""
        if self.fill is not None:
            yield from self._fill_problems(source)
        if kind == "kserve" and self.on_demand:
            yield _mistake("load", "KServe puts Triton and frontends into different pods; use `deploy kubernetes`")
        if not self.on_demand and (self.preload or self.pin or self.idle_evict_s is not None):
            what = "preload" if self.preload else "pin" if self.pin else "idle_evict_s"
            yield _mistake(what, "every model is loaded at the start; use `--load on-demand` with it")
        if self.grpc and self.engine == "embedded":
            yield _mistake("grpc", "the embedded server offers gRPC on loopback only; use `--engine nvidia`")
        if self.grpc and self.on_demand:
            yield _mistake("grpc", "whoever reaches a Triton that loads on demand could load models of theirs")
        if kind == "kserve" and (self.ingress_host or self.gateway):
            what = "ingress_host" if self.ingress_host else "gateway"
            yield _mistake(what, "KServe makes an address for the InferenceService by itself")
        if self.ingress_host is None and (self.gateway or self.ingress_class or self.ingress_tls_secret):
            what = "gateway" if self.gateway else "ingress_class" if self.ingress_class else "ingress_tls_secret"
            yield _mistake(what, "nothing is reached from outside without `--ingress-host HOST`")
        if self.gateway and (self.ingress_class or self.ingress_tls_secret):
            yield _mistake("gateway", "a Gateway has its own class and certificate; leave out those of an Ingress")
        if self.gateway and self.tls_secret:
            yield _mistake("tls_secret", "a Gateway speaks plain HTTP to what is behind it, and ends TLS itself")
        if kind == "kserve" and self.tls_secret:
            yield _mistake("tls_secret", "KServe's own addresses end TLS; frontends behind them speak plain HTTP")

    def _fill_problems(self, source: Source) -> Iterable[Diagnostic]:
        if not source.is_claim:
            yield _mistake("fill", f"pods read {source.uri} by themselves; a Job fills claims only")
        elif not source.path:
            yield _mistake("source", "a Job publishes by renaming a folder; name a folder of the claim")
        if self.fill != FILL_BY_BUILDING:
            try:
                if parse_source(str(self.fill)).is_claim:
                    yield _mistake("fill", f"`{self.fill}` is a claim; write `build`, `s3://…` or `gs://…`")
            except ValueError:
                yield _mistake("fill", f"`{self.fill}` is neither `build` nor the URI of an object store")


_OBJECTS = (
    "service_account",
    "credentials_secret",
    "storage_class",
    "api_keys_secret",
    "tls_secret",
    "ingress_class",
    "ingress_tls_secret",
    "image_pull_secret",
)
_PLACEMENTS: dict[str, Callable[[tuple[str, ...]], object]] = {
    "node_selector": node_selector,
    "frontend_node_selector": node_selector,
    "toleration": tolerations,
    "frontend_toleration": tolerations,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment(_Shared):
    """`DeployOptions` after `checked`: every default is resolved and every name is valid."""

    kind: Kind
    source: Source
    own_claim: bool
    engine: Engine
    triton_image: str

    @property
    def together(self) -> bool:
        """Whether a pod has a frontend and its own Triton: Tritons that load on demand obey one frontend."""
        return self.on_demand

    @property
    def frontends(self) -> str:
        """The Deployment of the frontends; KServe names it."""
        return f"{self.name}-{'transformer' if self.kind == 'kserve' else 'frontend'}"

    @property
    def tritons(self) -> str:
        """The Deployment of the Tritons; KServe names it."""
        return f"{self.name}-{'predictor' if self.kind == 'kserve' else 'triton'}"


def _mistake(option: str, message: str) -> Diagnostic:
    return Diagnostic("SIE801", message, hint=f"change `--{option.replace('_', '-')}`")
