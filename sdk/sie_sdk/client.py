"""`SIEClient` and `SIEAsyncClient`: the I/O of the SDK, and the only place that knows the HTTP library.

Both drive the flows of `_protocol.py`; what they send, accept, retry and raise is decided there.
"""

from __future__ import annotations

import errno
import functools
import logging
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

import httpx

from sie_sdk._protocol import Flow, Outcome, Protocol, Send, Sleep
from sie_sdk._reply import Reply, version_skew
from sie_sdk._retry import BUDGET_S, MAX_OOM_RETRIES, Failure, FailureKind, Timing, Waiting
from sie_sdk._settings import Settings, resolve_settings

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from sie_sdk.types import (
        CapacityInfo,
        EncodeKeywords,
        EncodeResult,
        Item,
        ModelInfo,
        OutputType,
        PoolSpec,
        ScoreResult,
    )

T = TypeVar("T")
logger = logging.getLogger("sie_sdk")


async def _asyncio_sleep(seconds: float) -> None:
    # Here, because importing it takes as long as NumPy, and `SIEClient` needs none of it.
    import asyncio

    await asyncio.sleep(seconds)


class SIEClient:
    """A client of one server, for use from any number of threads.

    Arguments (all times in seconds):

    * `base_url`: absolute http(s) URL; otherwise `SIE_BASE_URL`, otherwise the hosted service if there is a key.
    * `timeout_s`, `connect_timeout_s` (10), `read_timeout_s` (150): limits of one attempt; the first sets both.
    * `api_key`: sent as a bearer token; otherwise `SIE_API_KEY`, but only to the origin of `SIE_BASE_URL`.
    * `gpu`, `options`: defaults for calls; options of a call override single keys.
    * `pool`: a gateway's pool by its `name`, sent with every call that names no other; it must exist.
    * `max_connections`: the limit of the connection pool.
    * `base_url_headers`: headers for a proxy in front of the server; https only.
    * `remote="forbid"`: refuse to be served by a gateway's upstream.
    * `http_client`: your own client, with the same base URL and redirects off; closed with this one.
    * `control_plane_url`, `org`: accepted for compatibility; nothing here talks to a control plane.

    Keywords of `encode` and `score`:

    * `wait_for_capacity`: try again while the server is unreachable or provisioning (True).
    * `provision_timeout_s`: the budget for the whole call, waits included (900).
    * `max_oom_retries`: how often to try again when the accelerator's memory is full (3).
    * `gpu`: `type` or `pool/type`; `options`: runtime options, for example `{"profile": "sparse"}`.

    Raises `ValueError` for arguments that cannot be right.
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
        _timing: Timing = Timing(),  # noqa: B008 - frozen
        _sleep: Callable[[float], None] = time.sleep,
    ) -> None:
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
        if http_client is None:
            self._http = httpx.Client(
                base_url=settings.base_url, limits=_limits(max_connections), verify=_certificates()
            )
        else:
            self._http = _own(http_client, settings, max_connections)
        self._http.headers.update(settings.headers)
        self._protocol = Protocol(settings, _timing, names_model=True)
        self._version = _VersionCheck()
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
        """How often this thread's latest call was tried again."""
        return cast("int", getattr(self._latest, "retries", 0))

    def close(self) -> None:
        """Close the connections. The client is of no use afterwards."""
        self._http.close()

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
        """Turn items into vectors: a list gives a list in the same order, anything else one result.

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
                waiting=_waiting(gpu, wait_for_capacity, provision_timeout_s, max_oom_retries),
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
                waiting=_waiting(gpu, wait_for_capacity, provision_timeout_s, max_oom_retries),
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
        try:
            response = self._http.send(_request(self._http, send), follow_redirects=False)
        except httpx.RequestError as error:
            return _failure(error)
        self._latest.revision = response.headers.get("x-sie-model-revision") or None
        self._version.see(response)
        return Reply(response.status_code, response.headers, response.content)


class SIEAsyncClient:
    """`SIEClient` for asyncio: the same arguments, with awaitables for results. See there.

    Encode results lack the `model` key, as in SIE's own SDK.
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
        http_client: httpx.AsyncClient | None = None,
        _timing: Timing = Timing(),  # noqa: B008 - frozen
        _sleep: Callable[[float], Awaitable[None]] = _asyncio_sleep,
    ) -> None:
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
        if http_client is None:
            self._http = httpx.AsyncClient(
                base_url=settings.base_url, limits=_limits(max_connections), verify=_certificates()
            )
        else:
            self._http = _own(http_client, settings, max_connections)
        self._http.headers.update(settings.headers)
        self._protocol = Protocol(settings, _timing, names_model=False)
        self._version = _VersionCheck()
        self._sleep = _sleep

    @property
    def base_url(self) -> str:
        """The server's URL, without a slash at its end."""
        return self._protocol.settings.base_url

    async def close(self) -> None:
        """Close the connections. The client is of no use afterwards."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.close()

    @overload
    async def encode(self, model: str, items: Item, **keywords: Unpack[EncodeKeywords]) -> EncodeResult: ...

    @overload
    async def encode(self, model: str, items: list[Item], **keywords: Unpack[EncodeKeywords]) -> list[EncodeResult]: ...

    async def encode(
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
        """See `SIEClient.encode`."""
        results = await self._drive(
            self._protocol.encode(
                model,
                items if isinstance(items, list) else [items],
                output_types=output_types,
                instruction=instruction,
                output_dtype=output_dtype,
                is_query=is_query,
                options=options,
                waiting=_waiting(gpu, wait_for_capacity, provision_timeout_s, max_oom_retries),
            )
        )
        return results if isinstance(items, list) else results[0]

    async def score(
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
        """See `SIEClient.score`."""
        return await self._drive(
            self._protocol.score(
                model,
                query,
                items,
                instruction=instruction,
                options=options,
                waiting=_waiting(gpu, wait_for_capacity, provision_timeout_s, max_oom_retries),
            )
        )

    async def list_models(self) -> list[ModelInfo]:
        """See `SIEClient.list_models`."""
        return await self._drive(self._protocol.list_models())

    async def get_model(self, model: str) -> ModelInfo:
        """See `SIEClient.get_model`."""
        return await self._drive(self._protocol.get_model(model))

    async def get_capacity(self, *, gpu: str | None = None) -> CapacityInfo:
        """See `SIEClient.get_capacity`."""
        return await self._drive(self._protocol.get_capacity(gpu))

    async def wait_for_capacity(
        self,
        gpu: str,
        *,
        model: str | None = None,
        timeout_s: float | None = None,
        poll_interval_s: float = 5.0,
    ) -> CapacityInfo:
        """See `SIEClient.wait_for_capacity`."""
        return await self._drive(
            self._protocol.wait_for_capacity(gpu, model=model, timeout_s=timeout_s, poll_interval_s=poll_interval_s)
        )

    async def _drive(self, flow: Flow[T]) -> T:
        outcome: Outcome | None = None
        while True:
            try:
                step = flow.send(outcome)
            except StopIteration as done:
                return cast("T", done.value)
            if isinstance(step, Sleep):
                await self._sleep(step.seconds)
                outcome = None
            else:
                outcome = await self._send(step)

    async def _send(self, send: Send) -> Outcome:
        try:
            response = await self._http.send(_request(self._http, send), follow_redirects=False)
        except httpx.RequestError as error:
            return _failure(error)
        self._version.see(response)
        return Reply(response.status_code, response.headers, response.content)


class _VersionCheck:
    """Warns once per client about a server whose contract is too far from ours."""

    def __init__(self) -> None:
        self._warned = False

    def see(self, response: httpx.Response) -> None:
        warning = None if self._warned else version_skew(response.headers.get("x-sie-server-version"))
        if warning:
            self._warned = True
            logger.warning(warning)


def _waiting(
    gpu: str | None, wait_for_capacity: bool, provision_timeout_s: float | None, max_oom_retries: int
) -> Waiting:
    budget_s = BUDGET_S if provision_timeout_s is None else provision_timeout_s
    return Waiting(gpu, wait_for_capacity, budget_s, max_oom_retries)


def _limits(max_connections: int | None) -> httpx.Limits:
    if max_connections is None:
        return httpx.Limits(max_connections=100, max_keepalive_connections=20)
    return httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections)


@functools.cache
def _certificates() -> ssl.SSLContext:
    # Reading them is most of what making a client costs (20 ms), and they are the same for all.
    return httpx.create_ssl_context()


_HttpClient = TypeVar("_HttpClient", httpx.Client, httpx.AsyncClient)


def _own(http_client: _HttpClient, settings: Settings, max_connections: int | None) -> _HttpClient:
    """The caller's client, if it is one that keeps our headers where they belong."""
    if str(http_client.base_url).rstrip("/") != str(httpx.URL(settings.base_url)).rstrip("/"):
        raise ValueError("http_client base URL must match base_url")
    if http_client.is_closed or http_client.follow_redirects:
        raise ValueError("http_client must be open with redirects disabled")
    if max_connections is not None:
        raise ValueError("configure connection limits on http_client instead of passing max_connections")
    return http_client


def _request(http: httpx.Client | httpx.AsyncClient, send: Send) -> httpx.Request:
    timeout = httpx.Timeout(send.read_timeout_s, connect=send.connect_timeout_s)
    try:
        return http.build_request(send.method, send.url, content=send.body, headers=dict(send.headers), timeout=timeout)
    except httpx.InvalidURL as error:
        raise ValueError(f"the model id makes no valid URL: {error}") from error


_KINDS: Mapping[type[httpx.RequestError], FailureKind] = {
    httpx.ConnectError: FailureKind.CONNECT,
    httpx.ConnectTimeout: FailureKind.CONNECT,
    httpx.PoolTimeout: FailureKind.CONNECT,
    httpx.WriteTimeout: FailureKind.WRITE_TIMEOUT,
    httpx.ReadTimeout: FailureKind.READ_TIMEOUT,
    httpx.RemoteProtocolError: FailureKind.LOST,
    httpx.ReadError: FailureKind.LOST,
    httpx.WriteError: FailureKind.LOST,
}


def _failure(error: httpx.RequestError) -> Failure:
    kind = _KINDS.get(type(error), FailureKind.OTHER)
    return Failure(kind, error, transient=kind is not FailureKind.CONNECT or _is_transient(error))


_TRANSIENT_ERRNOS = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EHOSTDOWN,
        socket.EAI_AGAIN,
    }
)


def _is_transient(error: BaseException) -> bool:
    """Whether connecting may work later. A bad certificate or an unknown host will not mend itself."""
    if isinstance(error, ssl.SSLError):
        return False
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _TRANSIENT_ERRNOS
    # asyncio tries several addresses at once and reports them as a group.
    group: Sequence[BaseException] = getattr(error, "exceptions", ())
    if group:
        return any(_is_transient(member) for member in group)
    cause = error.__cause__ or error.__context__
    return cause is None or _is_transient(cause)
