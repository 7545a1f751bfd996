"""`SIEClient`: it drives the flows of `_protocol.py`, which decide what is sent, accepted, retried and raised."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from sie_sdk._connections import Connections, Make
from sie_sdk._protocol import Flow, Outcome, Protocol, Send, Sleep
from sie_sdk._reply import Reply
from sie_sdk._retry import MAX_OOM_RETRIES, RetryTiming
from sie_sdk._settings import ClientSettings, resolve_settings
from sie_sdk.client._common import VersionCheck, given_arguments, reduced, waiting_for
from sie_sdk.images import convert_images_for_json

if TYPE_CHECKING:
    import httpx
    from typing_extensions import Self, Unpack

    from sie_sdk.transport.common import Http
    from sie_sdk.types import (
        CapacityInfo,
        EncodeKeywords,
        EncodeResult,
        ExtractKeywords,
        ExtractResult,
        GenerateResult,
        Item,
        ModelInfo,
        OutputType,
        PoolSpec,
        ScoreResult,
    )

T = TypeVar("T")


class SIEClient:
    """A client of one server, which any number of threads and processes may use.

    After `fork()` (gunicorn's preload, Celery's prefork, `multiprocessing`) a child opens its own connections, and
    the parent's stay usable. A client is pickled as its arguments, for example when `multiprocessing` spawns.

    Arguments (all times in seconds):

    * `base_url`: absolute http(s) URL; otherwise `SIE_BASE_URL`, otherwise the hosted service if there is a key.
    * `timeout_s`, `connect_timeout_s` (10), `read_timeout_s` (150): limits of one attempt; the first sets both.
    * `api_key`: sent as a bearer token; otherwise `SIE_API_KEY`, but only to the origin of `SIE_BASE_URL`.
    * `gpu`, `options`: defaults for calls; options of a call override single keys.
    * `pool`: a gateway's pool by its `name`, sent with every call that does not name another; it must exist.
    * `max_connections`: the limit of the connection pool.
    * `base_url_headers`: headers for a proxy in front of the server; https only.
    * `remote="forbid"`: refuse to be served by a gateway's upstream.
    * `http_client`: your own client, with the same base URL and redirects off; closed with this one. It belongs to
      the process that made it: it is neither pickled nor used after a fork.
    * `control_plane_url`, `org`: accepted for compatibility; this client uses no control plane.

    Keywords of `encode` and `score`:

    * `wait_for_capacity`: try again while the server is unreachable or provisioning (True).
    * `provision_timeout_s`: the budget for the whole call, waits included (900).
    * `max_oom_retries`: how often to try again when the accelerator's memory is full (3).
    * `gpu`: `type` or `pool/type`; `options`: runtime options, for example `{"profile": "sparse"}`.

    `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` are obeyed; loopback is never reached through a proxy.

    Raises `ValueError` for invalid arguments.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        timeout_s: float | None = None,
        api_key: str | None = None,
        gpu: str | None = None,
        options: dict[str, Any] | None = None,
        pool: PoolSpec | None = None,
        max_connections: int | None = None,
        control_plane_url: str | None = None,
        org: str | None = None,
        base_url_headers: Mapping[str, str] | None = None,
        connect_timeout_s: float | None = None,
        read_timeout_s: float | None = None,
        remote: Literal["forbid"] | None = None,
        http_client: httpx.Client | None = None,
        _timing: RetryTiming = RetryTiming(),  # noqa: B008 - frozen
        _sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        given = given_arguments(locals())
        settings = resolve_settings(
            base_url,
            timeout_s=timeout_s,
            api_key=api_key,
            gpu=gpu,
            options=options,
            pool=pool,
            control_plane_url=control_plane_url,
            base_url_headers=base_url_headers,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
            remote=remote,
        )
        self._given = given
        self._connections: Connections[Http] = Connections(
            _maker(settings, max_connections, http_client), given=http_client is not None
        )
        if http_client is not None:
            # Which proxies it uses is known to its owner only.
            settings = replace(settings, proxy=None)
        self._protocol = Protocol(settings, _timing, names_model=True)
        self._version = VersionCheck()
        self._sleep = _sleep
        self._latest = threading.local()

    @property
    def base_url(self) -> str:
        """The server's URL, without a slash at its end."""
        return self._protocol.settings.base_url

    @property
    def last_model_revision(self) -> str | None:
        """The `X-SIE-Model-Revision` of this thread's latest call; None if it had none."""
        return cast("str | None", getattr(self._latest, "revision", None))

    @property
    def last_retry_count(self) -> int:
        """How many retries this thread's latest call needed."""
        return cast("int", getattr(self._latest, "retries", 0))

    def close(self) -> None:
        """Close the connections. The client cannot be used afterwards."""
        http = self._connections.shut()
        if http is not None:
            http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    @overload
    def encode(self, model: str, items: Item, **keywords: Unpack[EncodeKeywords]) -> EncodeResult: ...

    @overload
    def encode(self, model: str, items: list[Item], **keywords: Unpack[EncodeKeywords]) -> list[EncodeResult]: ...

    def encode(
        self,
        model: str,
        items: Item | list[Item],
        *,
        output_types: Sequence[OutputType] | None = None,
        instruction: str | None = None,
        output_dtype: str | None = None,
        is_query: bool | None = None,
        options: dict[str, Any] | None = None,
        gpu: str | None = None,
        wait_for_capacity: bool = True,
        provision_timeout_s: float | None = None,
        max_oom_retries: int = MAX_OOM_RETRIES,
    ) -> EncodeResult | list[EncodeResult]:
        """Encode items into vectors. A list returns a list in the same order, anything else a single result.

        `output_types` defaults to `["dense"]` on the server; `output_dtype` to float32. `is_query` selects the query
        side of asymmetric models, `instruction` is for models that take one.

        Raises `RequestError`, `ServerError`, `SIEConnectionError` and the rest of `sie_sdk.errors`; `ValueError` or
        `TypeError` for an item that cannot be sent.
        """
        results = self._drive(
            self._protocol.encode(
                model,
                items if isinstance(items, list) else [items],
                output_types=output_types,
                instruction=instruction,
                output_dtype=output_dtype,
                is_query=is_query,
                options=options,
                waiting=waiting_for(gpu, wait_for_capacity, provision_timeout_s, max_oom_retries),
            )
        )
        return results if isinstance(items, list) else results[0]

    def score(
        self,
        model: str,
        query: Item,
        items: list[Item],
        *,
        instruction: str | None = None,
        options: dict[str, Any] | None = None,
        gpu: str | None = None,
        wait_for_capacity: bool = True,
        provision_timeout_s: float | None = None,
        max_oom_retries: int = MAX_OOM_RETRIES,
    ) -> ScoreResult:
        """Rank items by their relevance to the query, best first. Raises as `encode` does."""
        return self._drive(
            self._protocol.score(
                model,
                query,
                items,
                instruction=instruction,
                options=options,
                waiting=waiting_for(gpu, wait_for_capacity, provision_timeout_s, max_oom_retries),
            )
        )

    @overload
    def extract(self, model: str, items: Item, **keywords: Unpack[ExtractKeywords]) -> ExtractResult: ...

    @overload
    def extract(self, model: str, items: list[Item], **keywords: Unpack[ExtractKeywords]) -> list[ExtractResult]: ...

    def extract(
        self,
        model: str,
        items: Item | list[Item],
        *,
        labels: list[str] | None = None,
        output_schema: dict[str, Any] | None = None,
        instruction: str | None = None,
        options: dict[str, Any] | None = None,
        gpu: str | None = None,
        wait_for_capacity: bool = True,
        provision_timeout_s: float | None = None,
        max_oom_retries: int = MAX_OOM_RETRIES,
    ) -> ExtractResult | list[ExtractResult]:
        """Extract entities or structured data. A list returns a list, anything else a single result.

        sie-triton's server does not extract: it answers with a `RequestError` that says so. Raises as `encode` does.
        """
        results = self._drive(
            self._protocol.extract(
                model,
                items if isinstance(items, list) else [items],
                labels=labels,
                output_schema=output_schema,
                instruction=instruction,
                options=options,
                waiting=waiting_for(gpu, wait_for_capacity, provision_timeout_s, max_oom_retries),
            )
        )
        return results if isinstance(items, list) else results[0]

    def generate(
        self,
        model: str,
        prompt: str,
        *,
        max_new_tokens: int,
        images: Sequence[Any] | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: list[str] | None = None,
        frequency_penalty: float | None = None,
        presence_penalty: float | None = None,
        grammar: Mapping[str, Any] | None = None,
        seed: int | None = None,
        logit_bias: dict[str, float] | None = None,
        routing_key: str | None = None,
        prompt_cache_key: str | None = None,
        safety_identifier: str | None = None,
        lora_adapter: str | None = None,
        options: dict[str, Any] | None = None,
        gpu: str | None = None,
        wait_for_capacity: bool = True,
        provision_timeout_s: float | None = None,
        max_oom_retries: int = MAX_OOM_RETRIES,
        read_timeout_s: float | None = None,
    ) -> GenerateResult:
        """Generate text. A request that failed midway is not repeated.

        sie-triton's server does not generate: it answers with a `RequestError` that says so. Raises as `encode` does.
        """
        return self._drive(
            self._protocol.generate(
                model,
                {
                    "prompt": prompt,
                    "max_new_tokens": max_new_tokens,
                    "images": None if images is None else convert_images_for_json(images),
                    "stop": stop,
                    "temperature": temperature,
                    "top_p": top_p,
                    "options": self._protocol.settings.options_for(options),
                    "frequency_penalty": frequency_penalty,
                    "presence_penalty": presence_penalty,
                    "grammar": grammar,
                    "seed": seed,
                    "logit_bias": logit_bias,
                    "routing_key": routing_key,
                    "prompt_cache_key": prompt_cache_key,
                    "safety_identifier": safety_identifier,
                    "lora_adapter": lora_adapter,
                },
                read_timeout_s=read_timeout_s,
                waiting=waiting_for(gpu, wait_for_capacity, provision_timeout_s, max_oom_retries),
            )
        )

    def list_models(self) -> list[ModelInfo]:
        """Every model id that the server routes, profiles included. Never retried."""
        return self._drive(self._protocol.list_models())

    def get_model(self, model: str) -> ModelInfo:
        """One model's dims, outputs and state; loads nothing. Never retried."""
        return self._drive(self._protocol.get_model(model))

    def get_capacity(self, *, gpu: str | None = None) -> CapacityInfo:
        """A gateway's workers, of one GPU type if `gpu` names it. A single server is a `RequestError`."""
        return self._drive(self._protocol.get_capacity(gpu))

    def wait_for_capacity(
        self,
        gpu: str,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
        poll_interval_s: float = 5.0,
    ) -> CapacityInfo:
        """Wait until a gateway has a worker with this GPU; with `model`, until that model has answered once.

        Raises `ProvisioningError` after `timeout_s` (900).
        """
        return self._drive(
            self._protocol.wait_for_capacity(gpu, model=model, timeout_s=timeout_s, poll_interval_s=poll_interval_s)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(type(self), self._given)

    def _drive(self, flow: Flow[T]) -> T:
        self._latest.retries, self._latest.revision = 0, None
        outcome: Outcome | None = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as done:
                return cast("T", done.value)
            if isinstance(step, Sleep):
                self._latest.retries += 1
                self._sleep(step.seconds)
                outcome = None
            else:
                outcome = self._send(step)

    def _send(self, send: Send) -> Outcome:
        outcome = self._connections.client().exchange(send)
        if isinstance(outcome, Reply):
            self._latest.revision = outcome.headers.get("x-sie-model-revision") or None
            self._version.see(outcome.headers)
        return outcome


def _maker(settings: ClientSettings, max_connections: int | None, given: httpx.Client | None) -> Make[Http]:
    # Imported here, so that nothing is left to import when a connection is made: a child that is forked while a
    # thread of the parent is importing waits for that import forever.
    if given is not None:
        from sie_sdk.transport.with_httpx import HttpxHttp

        return lambda opened: HttpxHttp(given, settings, max_connections, opened)
    from sie_sdk.transport.with_urllib3 import Urllib3Http, prepare

    prepare(settings.proxy)
    return lambda opened: Urllib3Http(settings, max_connections, opened)
