"""The options of a deployment, checked before anything is rendered."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sie_triton import __version__
from sie_triton.deploy.source import Source, parse_source
from sie_triton.diagnostics import Diagnostic, DiagnosticError

Autoscaler = Literal["hpa", "keda", "none"]
Device = Literal["cpu", "cuda"]
Engine = Literal["nvidia", "embedded"]
Kind = Literal["kubernetes", "kserve"]

DEFAULT_TRITON_IMAGE = "nvcr.io/nvidia/tritonserver:26.08-py3"
# The longest suffix that is put behind the name, within the 63 characters of a label: `-repository`.
_NAME_LENGTH = 63 - 11
_DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
# host[:port]/path[:tag][@digest], as container runtimes read it.
_IMAGE = re.compile(
    r"[a-zA-Z0-9][a-zA-Z0-9.-]*(:\d+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?"
)
_URL = re.compile(r"https?://[^\s\"'\\]+")


@dataclass(frozen=True, slots=True)
class DeployOptions:
    """How a repository is to be served in a cluster.

    `source` is where the pods find the repository: `pvc://CLAIM[/FOLDER]`, `s3://BUCKET[/PREFIX]` or
    `gs://BUCKET[/PREFIX]`; None stands for a new claim, which is rendered with the rest and which you fill.
    `engine` is the tritonserver to run: NVIDIA's container or our CPU image. None chooses ours for plain Kubernetes
    on the `cpu` from a claim, else NVIDIA's. `service_account` and `credentials_secret` (its keys become variables of
    the environment) are for object storage. `api_keys_secret` has a file of keys under `keys.txt`.
    Prometheus may read Triton's metrics from `monitoring_namespace`.
    """

    name: str = "sie-triton"
    namespace: str = "default"
    source: str | None = None
    device: Device = "cpu"
    engine: Engine | None = None
    triton_image: str | None = None
    frontend_image: str = f"sie-triton-frontend:{__version__}"
    triton_replicas: int = 2
    triton_max_replicas: int = 8
    frontend_replicas: int = 2
    frontend_max_replicas: int = 8
    autoscaler: Autoscaler = "hpa"
    prometheus_url: str = "http://prometheus-server.monitoring.svc:80"
    monitoring_namespace: str = "monitoring"
    service_account: str | None = None
    credentials_secret: str | None = None
    storage_class: str | None = None
    api_keys_secret: str | None = None

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
            problems += self._engine_problems(kind, source)
        if problems or source is None:
            raise DiagnosticError(problems)
        engine = self._engine_for(kind, source)
        image = self.triton_image or (
            DEFAULT_TRITON_IMAGE if engine == "nvidia" else f"sie-triton-server:{__version__}"
        )
        return Deployment(
            name=self.name,
            namespace=self.namespace,
            source=source,
            own_claim=self.source is None,
            device=self.device,
            engine=engine,
            triton_image=image,
            frontend_image=self.frontend_image,
            triton_replicas=self.triton_replicas,
            triton_max_replicas=self.triton_max_replicas,
            frontend_replicas=self.frontend_replicas,
            frontend_max_replicas=self.frontend_max_replicas,
            autoscaler=self.autoscaler,
            prometheus_url=self.prometheus_url,
            monitoring_namespace=self.monitoring_namespace,
            service_account=self.service_account,
            credentials_secret=self.credentials_secret,
            storage_class=self.storage_class,
            api_keys_secret=self.api_keys_secret,
        )

    def _engine_for(self, kind: Kind, source: Source) -> Engine:
        ours = kind == "kubernetes" and self.device == "cpu" and source.is_claim
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
        for what in ("service_account", "credentials_secret", "storage_class", "api_keys_secret"):
            value = getattr(self, what)
            if value is not None and (not _DNS_SUBDOMAIN.fullmatch(value) or len(value) > 253):
                yield _mistake(what, f"`{value}` is not the name of a Kubernetes object")
        for what in ("triton_image", "frontend_image"):
            value = getattr(self, what)
            if value is not None and not _IMAGE.fullmatch(value):
                yield _mistake(
                    what, f"`{value}` is not a container image; write `host/name:tag` or `host/name@sha256:…`"
                )
        for what in ("triton", "frontend"):
            low, high = getattr(self, f"{what}_replicas"), getattr(self, f"{what}_max_replicas")
            if low < 1 or high < low:
                yield _mistake(f"{what}_replicas", f"from {low} to {high} replicas of {what} is not a range from 1 up")
        if not _URL.fullmatch(self.prometheus_url):
            yield _mistake("prometheus_url", f"`{self.prometheus_url}` is not an http URL")

    def _engine_problems(self, kind: Kind, source: Source) -> Iterable[Diagnostic]:
        if self.engine == "embedded" and kind == "kserve":
            yield _mistake("engine", "KServe starts a tritonserver of its own image; use `nvidia`")
        if self.engine == "embedded" and self.device == "cuda":
            yield _mistake("engine", "the embedded server runs on the CPU only; use `nvidia` for CUDA")
        if self.engine == "embedded" and not source.is_claim:
            yield _mistake("engine", f"the embedded server reads folders, not {source.uri}; use `nvidia`, or a claim")


@dataclass(frozen=True, slots=True)
class Deployment:
    """`DeployOptions` after `checked`: every default is resolved and every name is valid."""

    name: str
    namespace: str
    source: Source
    own_claim: bool
    device: Device
    engine: Engine
    triton_image: str
    frontend_image: str
    triton_replicas: int
    triton_max_replicas: int
    frontend_replicas: int
    frontend_max_replicas: int
    autoscaler: Autoscaler
    prometheus_url: str
    monitoring_namespace: str
    service_account: str | None
    credentials_secret: str | None
    storage_class: str | None
    api_keys_secret: str | None


def _mistake(option: str, message: str) -> Diagnostic:
    return Diagnostic("SIE801", message, hint=f"change `--{option.replace('_', '-')}`")
