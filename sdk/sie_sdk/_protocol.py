"""SIE's protocol without I/O: what to send, how to read what comes back, when to try again.

A flow is a generator. It yields `Send` and receives a `Reply` or a `Failure`; it yields `Sleep` and receives None;
it returns the result or raises the call's exception. The code that drives a flow needs to know nothing else, so the
synchronous and the asynchronous client cannot differ.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, urljoin, urlsplit

from sie_sdk import _results, _wire
from sie_sdk._error_replies import exception_for, read_error
from sie_sdk._reply import Reply
from sie_sdk._retry import BUDGET_S, Failure, Patience, RetryTiming, Terms, TransportFault, Waiting, connection_error
from sie_sdk._settings import MSGPACK, ClientSettings, origin_of, split_gpu
from sie_sdk.errors import ProvisioningError, RequestError, SIEConnectionError
from sie_sdk.images import wire_item

if TYPE_CHECKING:
    from sie_sdk.types import CapacityInfo, EncodeResult, ExtractResult, GenerateResult, ModelInfo, ScoreResult

logger = logging.getLogger("sie_sdk")

JSON = "application/json"
MAX_CONTINUATIONS = 20
_CONTINUATION_KEY = "__modal_attempt_token"


@dataclass(frozen=True, slots=True)
class Send:
    """One HTTP request. `url` is relative to the base URL, or absolute and of its origin; timeouts are in seconds.

    `headers` complete and override those that go with every request.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    connect_timeout_s: float
    read_timeout_s: float


@dataclass(frozen=True, slots=True)
class Sleep:
    """A wait before a retry or the next poll, in seconds."""

    seconds: float


T = TypeVar("T")
Outcome = Reply | Failure
Flow = Generator[Send | Sleep, Outcome | None, T]


@dataclass(frozen=True, slots=True)
class Protocol:
    """The calls of one client. `names_model` puts the served model's id into encode results."""

    settings: ClientSettings
    timing: RetryTiming
    names_model: bool

    def encode(
        self,
        model: str,
        items: Sequence[object],
        *,
        output_types: Sequence[str] | None,
        instruction: str | None,
        output_dtype: str | None,
        is_query: bool | None,
        options: Mapping[str, Any] | None,
        waiting: Waiting,
    ) -> Flow[list[EncodeResult]]:
        """`POST /v1/encode/{model}`: one result per item, in order."""
        merged = self.settings.options_for(options)
        if is_query is not None:
            merged = {**(merged or {}), "is_query": is_query}
        params = {
            "output_types": output_types,
            "instruction": instruction,
            "output_dtype": output_dtype,
            "options": merged,
        }
        params = {key: value for key, value in params.items() if value is not None}
        body: dict[str, object] = {"items": [wire_item(item) for item in items]}
        if params:
            body["params"] = params
        lora = (merged or {}).get("lora")
        terms = self._terms(model, waiting, awaits_lora=True, lora=str(lora) if lora else None)
        reply = yield from self._infer(f"/v1/encode/{model}", _wire.pack(body), terms)
        return _results.read_encode(reply, model, items, names_model=self.names_model)

    def score(
        self,
        model: str,
        query: object,
        items: Sequence[object],
        *,
        instruction: str | None,
        options: Mapping[str, Any] | None,
        waiting: Waiting,
    ) -> Flow[ScoreResult]:
        """`POST /v1/score/{model}`: the candidates, best first."""
        body = {"query": wire_item(query), "items": [wire_item(item) for item in items]}
        optional = {"instruction": instruction, "options": self.settings.options_for(options)}
        body.update({key: value for key, value in optional.items() if value is not None})
        reply = yield from self._infer(f"/v1/score/{model}", _wire.pack(body), self._terms(model, waiting))
        return _results.read_score(reply)

    def extract(
        self,
        model: str,
        items: Sequence[object],
        *,
        labels: Sequence[str] | None,
        output_schema: Mapping[str, Any] | None,
        instruction: str | None,
        options: Mapping[str, Any] | None,
        waiting: Waiting,
    ) -> Flow[list[ExtractResult]]:
        """`POST /v1/extract/{model}`: one result per item, in order."""
        params = {
            "labels": labels,
            "output_schema": output_schema,
            "instruction": instruction,
            "options": self.settings.options_for(options),
        }
        params = {key: value for key, value in params.items() if value is not None}
        body: dict[str, object] = {"items": [wire_item(item) for item in items]}
        if params:
            body["params"] = params
        reply = yield from self._infer_elsewhere(
            "extract", model, f"/v1/extract/{model}", _wire.pack(body), self._terms(model, waiting)
        )
        return _results.read_extract(reply, model, items)

    def generate(
        self, model: str, fields: Mapping[str, object], *, read_timeout_s: float | None, waiting: Waiting
    ) -> Flow[GenerateResult]:
        """`POST /v1/generate/{model}`, as JSON and with `__` for the model's slash; never sent twice once begun."""
        body = json.dumps({key: value for key, value in fields.items() if value is not None}).encode()
        reply = yield from self._infer_elsewhere(
            "generate",
            model,
            f"/v1/generate/{model.replace('/', '__')}",
            body,
            replace(self._terms(model, waiting), repeatable=False),
            headers={"Content-Type": JSON, "Accept": JSON},
            read_timeout_s=read_timeout_s,
        )
        return _results.read_generate(reply)

    def list_models(self) -> Flow[list[ModelInfo]]:
        """`GET /v1/models`; never retried."""
        return _results.read_models((yield from self._get("/v1/models")))

    def get_model(self, model: str) -> Flow[ModelInfo]:
        """`GET /v1/models/{model}`; never retried."""
        return _results.read_model((yield from self._get(f"/v1/models/{model}")))

    def get_capacity(self, gpu: str | None) -> Flow[CapacityInfo]:
        """`GET /health` of a gateway; never retried."""
        return _results.read_capacity((yield from self._get("/health")), gpu)

    def wait_for_capacity(
        self, gpu: str, *, model: str | None, timeout_s: float | None, poll_interval_s: float
    ) -> Flow[CapacityInfo]:
        """Encode once if a model is named; otherwise poll `/health` until a worker with this GPU is available."""
        budget_s = BUDGET_S if timeout_s is None else timeout_s
        if model:
            yield from self.encode(
                model,
                [{"text": "warmup"}],
                output_types=None,
                instruction=None,
                output_dtype=None,
                is_query=None,
                options=None,
                waiting=Waiting(gpu=gpu, budget_s=budget_s),
            )
            return (yield from self.get_capacity(gpu))
        started = self.timing.clock()
        while True:
            try:
                capacity = yield from self.get_capacity(gpu)
            except (SIEConnectionError, RequestError) as error:
                logger.debug("no capacity yet: %s", error)
            else:
                if capacity.get("worker_count", 0) > 0:
                    return capacity
            elapsed = self.timing.clock() - started
            if elapsed >= budget_s:
                raise ProvisioningError(f"Timeout after {elapsed:.1f}s waiting for GPU '{gpu}' capacity", gpu=gpu)
            yield Sleep(min(poll_interval_s, budget_s - elapsed))

    def _infer_elsewhere(self, task: str, model: str, url: str, body: bytes, terms: Terms, **how: Any) -> Flow[Reply]:
        """`_infer` for a task that sie-triton's server does not have; explains a server's missing route."""
        try:
            return (yield from self._infer(url, body, terms, **how))
        except RequestError as error:
            if error.status_code not in (404, 405, 501) or error.code is not None:
                raise
            raise RequestError(
                f"the server at {terms.server} does not serve `{task}` (it answered HTTP {error.status_code} to "
                f"POST {url}): sie-triton serves `encode` and `score`; send `{task}` to a SIE server that has "
                f"'{model}'",
                status_code=error.status_code,
                request=error.request,
            ) from error

    def _infer(
        self,
        url: str,
        body: bytes,
        terms: Terms,
        *,
        headers: Mapping[str, str] | None = None,
        read_timeout_s: float | None = None,
    ) -> Flow[Reply]:
        """POST until a reply below 400 arrives or `Patience` gives up."""
        headers = {**(headers or {}), **self.settings.routing_headers(terms.waiting.gpu)}
        patience = Patience(terms, self.timing)
        level = logging.WARNING
        while True:
            cap = patience.attempt_cap()
            outcome = yield from self._exchange("POST", url, headers, body, cap, read_timeout_s)
            if isinstance(outcome, Reply):
                outcome = yield from self._await_result(outcome, patience)
            if isinstance(outcome, Failure):
                what: object = type(outcome.error).__name__
                delay = patience.after_failure(outcome)
            elif outcome.status >= 400:
                error = read_error(outcome, terms.detour)
                what = f"HTTP {error.status} {error.code or ''}".rstrip()
                delay = patience.after_error(error)
            else:
                return outcome
            # A caller who waits for minutes wants to know why; one warning per call is enough.
            logger.log(
                level,
                "%s from %s; trying again in %.1f s, for %.0f s at most (`provision_timeout_s`)",
                what,
                terms.server,
                delay,
                terms.waiting.budget_s,
            )
            level = logging.INFO
            yield Sleep(delay)

    def _await_result(self, reply: Reply, patience: Patience) -> Flow[Outcome]:
        """Follow the 303 of a proxy that holds our request: the same request's result, by GET."""
        for _ in range(MAX_CONTINUATIONS):
            url = self._continuation(reply)
            if url is None:
                return reply
            if patience.remaining <= 0:
                raise ProvisioningError(
                    f"Provision timeout ({patience.terms.waiting.budget_s:.1f}s) exceeded while awaiting request result"
                )
            outcome = yield from self._exchange("GET", url, {"Accept": MSGPACK}, None, patience.remaining)
            if isinstance(outcome, Failure):
                # A retry would send the POST again, while its first copy is at work.
                raise connection_error(outcome, patience.terms.server, patience.terms.detour) from outcome.error
            reply = outcome
        if self._continuation(reply) is None:
            return reply
        raise ProvisioningError(f"Provisioning result remained in flight after {MAX_CONTINUATIONS} continuation hops")

    def _continuation(self, reply: Reply) -> str | None:
        """The URL of this request's result, if the reply is a 303 to the same origin that names one."""
        if reply.status != 303:
            return None
        base = self.settings.base_url + "/"
        try:
            url = urljoin(base, reply.headers.get("location", ""))
            parts = urlsplit(url)
        except ValueError:
            return None
        if origin_of(url) != origin_of(base) or "@" in parts.netloc or parts.fragment:
            return None
        return url if len(parse_qs(parts.query).get(_CONTINUATION_KEY, [])) == 1 else None

    def _get(self, url: str) -> Flow[Reply]:
        outcome = yield from self._exchange("GET", url, {"Accept": JSON}, None, inf)
        if isinstance(outcome, Failure):
            if outcome.kind is TransportFault.READ_TIMEOUT:
                raise SIEConnectionError(f"Request timed out{self.settings.detour}: {outcome.error}") from outcome.error
            raise connection_error(outcome, self.settings.server, self.settings.detour) from outcome.error
        if outcome.status >= 400:
            raise exception_for(read_error(outcome, self.settings.detour))
        return outcome

    def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        cap_s: float,
        read_timeout_s: float | None = None,
    ) -> Flow[Outcome]:
        read_timeout_s = self.settings.read_timeout_s if read_timeout_s is None else read_timeout_s
        outcome = yield Send(
            method=method,
            url=url,
            headers=headers,
            body=body,
            connect_timeout_s=min(self.settings.connect_timeout_s, cap_s),
            read_timeout_s=min(read_timeout_s, cap_s),
        )
        assert outcome is not None, "the driver answers a `Send` with a reply or a failure"
        return outcome

    def _terms(self, model: str, waiting: Waiting, *, awaits_lora: bool = False, lora: str | None = None) -> Terms:
        gpu = split_gpu(self.settings.gpu if waiting.gpu is None else waiting.gpu)[1]
        return Terms(
            waiting,
            model,
            self.settings.server,
            gpu,
            awaits_lora=awaits_lora,
            lora=lora,
            detour=self.settings.detour,
        )
