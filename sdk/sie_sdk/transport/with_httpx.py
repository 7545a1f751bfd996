"""Requests through an httpx client that the caller made and passed as `http_client`."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Final, TypeVar

import httpx

from sie_sdk._protocol import Outcome, Send
from sie_sdk._reply import Reply
from sie_sdk._retry import Failure, TransportFault
from sie_sdk._settings import ClientSettings
from sie_sdk.transport.common import Opened, is_transient

_Client = TypeVar("_Client", httpx.Client, httpx.AsyncClient)


class HttpxHttp:
    """A caller's `httpx.Client`."""

    def __init__(
        self, client: httpx.Client, settings: ClientSettings, max_connections: int | None, opened: Opened
    ) -> None:
        """Raises `ValueError` for a client that does not fit."""
        self._client = _adopted(client, settings, max_connections)
        self._opened = opened

    def exchange(self, send: Send) -> Outcome:
        """Send one request and read the whole answer. Raises `ValueError` if the model id makes no valid URL."""
        try:
            response = self._client.send(_request(self._client, send), follow_redirects=False)
        except httpx.RequestError as error:
            return failure(error)
        return _reply(response, self._opened)

    def close(self) -> None:
        """Close the caller's client."""
        self._client.close()


class HttpxAsyncHttp:
    """A caller's `httpx.AsyncClient`."""

    def __init__(
        self, client: httpx.AsyncClient, settings: ClientSettings, max_connections: int | None, opened: Opened
    ) -> None:
        """Raises `ValueError` for a client that does not fit."""
        self._client = _adopted(client, settings, max_connections)
        self._opened = opened

    async def exchange(self, send: Send) -> Outcome:
        """Send one request and read the whole answer. Raises `ValueError` if the model id makes no valid URL."""
        try:
            response = await self._client.send(_request(self._client, send), follow_redirects=False)
        except httpx.RequestError as error:
            return failure(error)
        return _reply(response, self._opened)

    async def close(self) -> None:
        """Close the caller's client."""
        await self._client.aclose()

    def abandon(self) -> None:
        """Leave it to the caller."""


def _adopted(client: _Client, settings: ClientSettings, max_connections: int | None) -> _Client:
    """The caller's client with our headers added.

    Raises `ValueError` if it has another base URL, is closed, follows redirects, or cannot take `max_connections`.
    """
    if str(client.base_url).rstrip("/") != str(httpx.URL(settings.base_url)).rstrip("/"):
        raise ValueError("http_client base URL must match base_url")
    if client.is_closed or client.follow_redirects:
        raise ValueError("http_client must be open with redirects disabled")
    if max_connections is not None:
        raise ValueError("configure connection limits on http_client instead of passing max_connections")
    client.headers.update(settings.headers)
    return client


def _request(client: httpx.Client | httpx.AsyncClient, send: Send) -> httpx.Request:
    timeout = httpx.Timeout(send.read_timeout_s, connect=send.connect_timeout_s)
    try:
        return client.build_request(
            send.method, send.url, content=send.body, headers=dict(send.headers), timeout=timeout
        )
    except httpx.InvalidURL as error:
        raise ValueError(f"the model id makes no valid URL: {error}") from error


def _reply(response: httpx.Response, opened: Opened) -> Reply:
    stream = response.extensions.get("network_stream")
    connection = None if stream is None else stream.get_extra_info("socket")
    if isinstance(connection, socket.socket):
        opened(connection)
    return Reply(response.status_code, response.headers, response.content)


KINDS: Final[Mapping[type[httpx.RequestError], TransportFault]] = {
    httpx.ConnectError: TransportFault.CONNECT,
    httpx.ConnectTimeout: TransportFault.CONNECT,
    httpx.PoolTimeout: TransportFault.CONNECT,
    httpx.WriteTimeout: TransportFault.WRITE_TIMEOUT,
    httpx.ReadTimeout: TransportFault.READ_TIMEOUT,
    httpx.RemoteProtocolError: TransportFault.LOST,
    httpx.ReadError: TransportFault.LOST,
    httpx.WriteError: TransportFault.LOST,
}
"""The kind of each exception; any other is `OTHER`."""


def failure(error: httpx.RequestError) -> Failure:
    """What became of an exchange."""
    kind = KINDS.get(type(error), TransportFault.OTHER)
    return Failure(kind, error, transient=kind is not TransportFault.CONNECT or is_transient(error))
