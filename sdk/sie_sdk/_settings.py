"""A client's constructor arguments, checked and completed. The environment is read here and nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies

from sie_sdk._proxies import proxy_for

if TYPE_CHECKING:
    from sie_sdk.types import PoolSpec

CONTRACT_VERSION = "0.10.1"
"""The version of SIE's wire contract that this SDK speaks; what `X-SIE-SDK-Version` announces."""

MSGPACK = "application/msgpack"
HOSTED_BASE_URL = "https://api.superlinked.com"
"""Where a client with an API key and no base URL goes, as SIE's own SDK does."""

BASE_URL_ENV = "SIE_BASE_URL"
API_KEY_ENV = "SIE_API_KEY"
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 150.0

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_RESERVED_HEADERS = frozenset(
    {
        "accept",
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "idempotency-key",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-sie-sdk-version",
    }
)

Origin = tuple[str, str, int]
"""Scheme, host and port: who gets to see what we send."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """A client's configuration with nothing left to decide. Times are in seconds, `headers` go with every request."""

    base_url: str
    headers: Mapping[str, str]
    connect_timeout_s: float
    read_timeout_s: float
    gpu: str | None
    options: Mapping[str, Any] | None
    pool: str | None
    proxy: str | None = None

    @property
    def server(self) -> str:
        """The server as messages and logs name it: without credentials, and with the proxy that leads there."""
        return shown(self.base_url) + self.detour

    @property
    def detour(self) -> str:
        """` through the proxy …`, nothing where there is none."""
        return f" through the proxy {shown(self.proxy)}" if self.proxy else ""

    def options_for(self, options: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The options of one call: the client's, overridden by the call's."""
        if self.options is None or options is None:
            return self.options if options is None else options
        return {**self.options, **options}

    def routing_headers(self, gpu: str | None) -> dict[str, str]:
        """The headers that `gpu`, `type` or `pool/type`, asks for."""
        pool, gpu = split_gpu(self.gpu if gpu is None else gpu)
        headers = {}
        if gpu:
            headers["X-SIE-MACHINE-PROFILE"] = gpu
        if pool or (gpu is None and self.pool):
            headers["X-SIE-Pool"] = pool or self.pool or ""
        return headers


def split_gpu(gpu: str | None) -> tuple[str | None, str | None]:
    """The pool and the type in `pool/type` or `type`."""
    if gpu is None or "/" not in gpu:
        return None, gpu
    pool, _, kind = gpu.partition("/")
    return pool, kind


def resolve_settings(
    base_url: str | None,
    *,
    timeout_s: float | None = None,
    api_key: str | None = None,
    gpu: str | None = None,
    options: Mapping[str, Any] | None = None,
    pool: PoolSpec | None = None,
    control_plane_url: str | None = None,
    base_url_headers: Mapping[str, str] | None = None,
    connect_timeout_s: float | None = None,
    read_timeout_s: float | None = None,
    remote: Literal["forbid"] | None = None,
    environ: Mapping[str, str] = os.environ,
    proxies: Mapping[str, str] | None = None,
) -> ClientSettings:
    """Check and complete what a client's constructor was given.

    `proxies` are by scheme, with the exceptions under `no`; None means what the environment or the system says.

    Raises `ValueError` (`TypeError` for headers that are not text) with the argument's name.
    """
    if remote not in (None, "forbid"):
        raise ValueError(f"remote must be 'forbid' or None, got {remote!r}")
    if pool is not None and "name" not in pool:
        raise ValueError("Pool spec must have 'name' key")
    base_url = _base_url(base_url, api_key, environ)
    api_key = _api_key(api_key, base_url, control_plane_url, environ)
    headers = {"Content-Type": MSGPACK, "Accept": MSGPACK, "X-SIE-SDK-Version": CONTRACT_VERSION}
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    if remote:
        headers["X-SIE-Remote"] = remote
    # Not left to the HTTP library, which would offer whatever decoders happen to be installed.
    headers["Accept-Encoding"] = "gzip, deflate"
    return ClientSettings(
        base_url=base_url,
        headers=headers | _edge_headers(base_url_headers, base_url),
        connect_timeout_s=_first(connect_timeout_s, timeout_s, CONNECT_TIMEOUT_S),
        read_timeout_s=_first(read_timeout_s, timeout_s, READ_TIMEOUT_S),
        gpu=gpu,
        options=options,
        pool=None if pool is None else pool["name"],
        proxy=proxy_for(base_url, getproxies() if proxies is None else proxies),
    )


def origin_of(url: str) -> Origin | None:
    """The origin of an absolute http(s) URL; None for anything else."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, port if port is not None else {"http": 80, "https": 443}[parts.scheme]


def shown(base_url: str) -> str:
    """The URL without the user and password that it may carry, for messages and logs."""
    parts = urlsplit(base_url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _base_url(given: str | None, api_key: str | None, environ: Mapping[str, str]) -> str:
    url = given if given is not None else environ.get(BASE_URL_ENV, "").strip()
    if given is None and not url:
        if not (environ.get(API_KEY_ENV, "").strip() if api_key is None else api_key):
            raise ValueError(
                f"base_url is required: pass it (e.g. 'http://localhost:8080') or set {BASE_URL_ENV}; "
                f"with an API key ({API_KEY_ENV}) alone the client uses {HOSTED_BASE_URL}"
            )
        url = HOSTED_BASE_URL
    if origin_of(url) is None:
        raise ValueError(
            "base_url must be an absolute http:// or https:// URL with a host "
            f"(e.g. 'http://localhost:8080'), got {url!r}"
        )
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ValueError(f"base_url must end with its path, without query or fragment, got {url!r}")
    return url.rstrip("/")


def _api_key(given: str | None, base_url: str, control_plane_url: str | None, environ: Mapping[str, str]) -> str | None:
    """The given key, or the environment's where it belongs.

    The environment's key is for the origin of the environment's URL (the hosted one if that is not set): a client
    of another server must not carry it there.
    """
    if given is not None:
        return given
    key = environ.get(API_KEY_ENV, "").strip()
    home = origin_of(environ.get(BASE_URL_ENV, "").strip() or HOSTED_BASE_URL)
    if not key or home is None or origin_of(base_url) != home:
        return None
    if control_plane_url and origin_of(control_plane_url) != home:
        raise ValueError(
            f"{API_KEY_ENV} belongs to the origin of {BASE_URL_ENV} and control_plane_url has another; "
            "pass api_key explicitly"
        )
    return key


def _edge_headers(headers: Mapping[str, str] | None, base_url: str) -> dict[str, str]:
    """Headers for a proxy in front of the server. They are credentials, so they travel by https only."""
    seen: set[str] = set()
    for name, value in (headers or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("base_url_headers must map header names to values, all of them str")
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"invalid base_url_headers name: {name!r}")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"invalid character in base_url_headers value for {name!r}")
        if name.lower() in seen:
            raise ValueError(f"duplicate base_url_headers name (case-insensitive): {name!r}")
        if name.lower() in _RESERVED_HEADERS or name.lower().startswith("sec-websocket-"):
            raise ValueError(f"base_url_headers cannot override SDK-owned header {name!r}")
        seen.add(name.lower())
    if headers and (urlsplit(base_url).scheme != "https" or "@" in urlsplit(base_url).netloc):
        raise ValueError("base_url_headers require an absolute https base_url without embedded credentials")
    return dict(headers or {})


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)
