"""`SIEAsyncClient`: it drives the flows of `_protocol.py`, which decide what is sent, accepted, retried and raised."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
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
    import asyncio

    import httpx
    from typing_extensions import Self, Unpack

    from sie_sdk.transport.common import AsyncHttp
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


async def _asyncio_sleep(seconds: float) -> None:
    # Here, because importing it takes as long as NumPy, and `SIEClient` needs none of it.
    import asyncio

    await asyncio.sleep(seconds)


def _running_loop() -> Any:
    """The running event loop, None outside of one."""
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class SIEAsyncClient:
    """`SIEClient` for asyncio: the same arguments, with awaitable results. `SIEClient` describes them.

    `max_concurrency` limits how many requests are in flight at once; the others wait. One client may be used from
    several event loops, in turn or concurrently: each loop has its own connections.

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
        max_concurrency: int | None = None,
        control_plane_url: str | None = None,
        org: str | None = None,
        base_url_headers: Mapping[str, str] | None = None,
        connect_timeout_s: float | None = None,
        read_timeout_s: float | None = None,
        remote: Literal["forbid"] | None = None,
        http_client: httpx.AsyncClient | None = None,
        _timing: RetryTiming = RetryTiming(),  # noqa: B008 - frozen
        _sleep: Callable[[float], Awaitable[None]] = _asyncio_sleep,
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
        if max_concurrency is not None and max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1, got {max_concurrency}")
        self._max_concurrency = max_concurrency
        self._turns: dict[tuple[int, asyncio.AbstractEventLoop], asyncio.Semaphore] = {}
        self._given = given
        self._connections: Connections[AsyncHttp] = Connections(
            _maker(settings, max_connections, http_client),
            given=http_client is not None,
            running_loop=_running_loop,
            abandon=lambda http: http.abandon(),
        )
        if http_client is not None:
            # Which proxies it uses is known to its owner only.
            settings = replace(settings, proxy=None)
        self._protocol = Protocol(settings, _timing, names_model=False)
        self._version = VersionCheck()
        self._sleep = _sleep

    @property
    def base_url(self) -> str:
        """The server's URL, without a slash at its end."""
        return self._protocol.settings.base_url

    async def close(self) -> None:
        """Close the connections. The client cannot be used afterwards."""
        http = self._connections.shut()
        if http is not None:
            await http.close()

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
                waiting=waiting_for(gpu, wait_for_capacity, provision_timeout_s, max_oom_retries),
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
                waiting=waiting_for(gpu, wait_for_capacity, provision_timeout_s, max_oom_retries),
            )
        )

    @overload
    async def extract(self, model: str, items: Item, **keywords: Unpack[ExtractKeywords]) -> ExtractResult: ...

    @overload
    async def extract(
        self, model: str, items: list[Item], **keywords: Unpack[ExtractKeywords]
    ) -> list[ExtractResult]: ...

    async def extract(
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
        """See `SIEClient.extract`."""
        results = await self._drive(
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

    async def generate(
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
        """See `SIEClient.generate`."""
        return await self._drive(
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

    def __reduce__(self) -> tuple[Any, ...]:
        return reduced(type(self), self._given)

    def _turn(self) -> AbstractAsyncContextManager[object]:
        """One of this event loop's `max_concurrency` slots; every loop and process has its own."""
        if self._max_concurrency is None:
            return nullcontext()
        import asyncio

        owner = (os.getpid(), asyncio.get_running_loop())
        turns = self._turns.get(owner)
        if turns is None:
            for other in [known for known in list(self._turns) if known[0] != owner[0] or known[1].is_closed()]:
                self._turns.pop(other, None)
            turns = self._turns.setdefault(owner, asyncio.Semaphore(self._max_concurrency))
        return turns

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
        http = self._connections.client()
        async with self._turn():
            outcome = await http.exchange(send)
        if isinstance(outcome, Reply):
            self._version.see(outcome.headers)
        return outcome


def _maker(settings: ClientSettings, max_connections: int | None, given: httpx.AsyncClient | None) -> Make[AsyncHttp]:
    # Imported here for the reason that `SIEClient` has, and because asyncio takes as long to import as NumPy.
    if given is not None:
        from sie_sdk.transport.with_httpx import HttpxAsyncHttp

        return lambda opened: HttpxAsyncHttp(given, settings, max_connections, opened)
    from sie_sdk.transport.with_aiohttp import AiohttpHttp, prepare

    prepare(settings.proxy)
    return lambda opened: AiohttpHttp(settings, max_connections, opened)
