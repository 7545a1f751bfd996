"""What a constructor accepts, refuses and completes from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from sdk_server import Canned, StubServer
from sie_sdk import SIEAsyncClient, SIEClient
from sie_sdk._settings import HOSTED_BASE_URL, ClientSettings, resolve_settings

URL = "http://127.0.0.1:8080"


def resolve(base_url: str | None = URL, environ: Mapping[str, str] | None = None, **given: Any) -> ClientSettings:
    nothing = dict.fromkeys(
        (
            "timeout_s",
            "api_key",
            "gpu",
            "options",
            "pool",
            "control_plane_url",
            "base_url_headers",
            "connect_timeout_s",
            "read_timeout_s",
            "remote",
        )
    )
    return resolve_settings(base_url, environ=environ or {}, **(nothing | given))


@pytest.mark.parametrize(
    ("given", "environ", "expected"),
    [
        (URL, {}, URL),
        (URL + "///", {}, URL),
        ("https://[::1]:8443/base/", {}, "https://[::1]:8443/base"),
        (URL, {"SIE_BASE_URL": "http://other"}, URL),
        (None, {"SIE_BASE_URL": " http://other/ "}, "http://other"),
        (None, {"SIE_API_KEY": "k"}, HOSTED_BASE_URL),
        (None, {"SIE_BASE_URL": "", "SIE_API_KEY": "k"}, HOSTED_BASE_URL),
    ],
)
def test_base_url(given: str | None, environ: dict[str, str], expected: str) -> None:
    assert resolve(given, environ).base_url == expected


def test_base_url_with_a_key_alone() -> None:
    assert resolve(None, api_key="k").base_url == HOSTED_BASE_URL


@pytest.mark.parametrize("environ", [{}, {"SIE_BASE_URL": " "}, {"SIE_API_KEY": " "}], ids=str)
def test_no_base_url(environ: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"base_url is required: pass it .* or set SIE_BASE_URL"):
        resolve(None, environ)
    with pytest.raises(ValueError, match="base_url is required"):
        resolve(None, environ | {"SIE_API_KEY": "k"}, api_key="")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:8080",
        "127.0.0.1",
        "ftp://host",
        "unix:///socket",
        "http://",
        "http:///v1",
        "http://host:port",
        "http://host:99999",
        "http://[::1",
        "/v1",
    ],
)
def test_malformed_base_url(url: str) -> None:
    with pytest.raises(ValueError, match="base_url must be an absolute http"):
        resolve(url)


@pytest.mark.parametrize("url", [URL + "?a=b", URL + "#f"])
def test_base_url_with_more_than_a_path(url: str) -> None:
    with pytest.raises(ValueError, match="without query or fragment"):
        resolve(url)


@pytest.mark.parametrize(
    ("url", "environ", "key"),
    [
        ("http://a", {"SIE_API_KEY": "k", "SIE_BASE_URL": "http://a"}, "k"),
        ("http://A:80/base", {"SIE_API_KEY": "k", "SIE_BASE_URL": "http://a"}, "k"),
        (None, {"SIE_API_KEY": "k", "SIE_BASE_URL": "http://a"}, "k"),
        ("http://b", {"SIE_API_KEY": "k", "SIE_BASE_URL": "http://a"}, None),
        ("https://a", {"SIE_API_KEY": "k", "SIE_BASE_URL": "http://a"}, None),
        ("http://a:81", {"SIE_API_KEY": "k", "SIE_BASE_URL": "http://a"}, None),
        ("http://a", {"SIE_API_KEY": "k"}, None),
        (None, {"SIE_API_KEY": "k"}, "k"),
        ("http://a", {"SIE_API_KEY": "k", "SIE_BASE_URL": "nonsense"}, None),
    ],
)
def test_the_environments_key_stays_at_home(url: str | None, environ: dict[str, str], key: str | None) -> None:
    expected = None if key is None else f"Bearer {key}"
    assert resolve(url, environ).headers.get("Authorization") == expected


def test_a_given_key_wins() -> None:
    environ = {"SIE_API_KEY": "k", "SIE_BASE_URL": URL}
    assert resolve(environ=environ, api_key="mine").headers["Authorization"] == "Bearer mine"
    assert "Authorization" not in resolve(environ=environ, api_key="").headers


def test_the_environments_key_is_not_for_another_control_plane() -> None:
    environ = {"SIE_API_KEY": "k", "SIE_BASE_URL": URL}
    assert resolve(environ=environ, control_plane_url=URL + "/control").headers["Authorization"] == "Bearer k"
    with pytest.raises(ValueError, match="pass api_key explicitly"):
        resolve(environ=environ, control_plane_url="http://elsewhere")


@pytest.mark.parametrize(
    ("given", "connect", "read"),
    [
        ({}, 10, 150),
        ({"timeout_s": 3}, 3, 3),
        ({"timeout_s": 3, "read_timeout_s": 7}, 3, 7),
        ({"timeout_s": 3, "connect_timeout_s": 7}, 7, 3),
        ({"connect_timeout_s": 1, "read_timeout_s": 2}, 1, 2),
        ({"timeout_s": 0}, 0, 0),
    ],
)
def test_timeouts(given: dict[str, Any], connect: float, read: float) -> None:
    resolved = resolve(**given)
    assert (resolved.connect_timeout_s, resolved.read_timeout_s) == (connect, read)


@pytest.mark.parametrize(
    ("defaults", "options", "merged"),
    [
        (None, None, None),
        (None, {"a": 1}, {"a": 1}),
        ({"a": 1}, None, {"a": 1}),
        ({"a": 1, "b": 1}, {"b": 2, "c": 2}, {"a": 1, "b": 2, "c": 2}),
        (None, {}, {}),
    ],
)
def test_options(defaults: dict[str, int] | None, options: dict[str, int] | None, merged: object) -> None:
    assert resolve(options=defaults).options_for(options) == merged


@pytest.mark.parametrize(
    ("headers", "error", "message"),
    [
        ({"Modal-Key": 1}, TypeError, "all of them str"),
        ({"bad name": "x"}, ValueError, "invalid base_url_headers name"),
        ({"X-A": "x\r\ny"}, ValueError, "invalid character"),
        ({"X-A": "1", "x-a": "2"}, ValueError, "duplicate"),
        ({"Authorization": "x"}, ValueError, "cannot override"),
        ({"Sec-WebSocket-Key": "x"}, ValueError, "cannot override"),
    ],
)
def test_malformed_edge_headers(headers: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        resolve("https://a", base_url_headers=headers)


def test_edge_headers_travel_by_https_only() -> None:
    assert resolve("https://a", base_url_headers={"Modal-Key": "k"}).headers["Modal-Key"] == "k"
    for url in ("http://a", "https://user:secret@a"):
        with pytest.raises(ValueError, match="require an absolute https"):
            resolve(url, base_url_headers={"Modal-Key": "k"})


def test_remote_and_pool_are_checked() -> None:
    with pytest.raises(ValueError, match="remote must be 'forbid' or None, got 'allow'"):
        resolve(remote="allow")
    with pytest.raises(ValueError, match="Pool spec must have 'name' key"):
        resolve(pool={"gpus": {"l4": 1}})


def test_the_environment_is_read_when_the_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIE_API_KEY", "k")
    with StubServer(Canned(200, {}, b'{"models": []}')) as server:
        monkeypatch.setenv("SIE_BASE_URL", server.url)
        with SIEClient() as client:
            assert client.base_url == server.url
            client.list_models()
        assert server.received[0].headers["authorization"] == "Bearer k"
        assert SIEAsyncClient().base_url == server.url


def test_connection_limits() -> None:
    with pytest.raises(ValueError, match="configure connection limits on http_client"):
        SIEClient(URL, max_connections=3, http_client=httpx.Client(base_url=URL))


@pytest.mark.parametrize(
    ("http_client", "message"),
    [
        (httpx.Client(base_url="http://127.0.0.1:9"), "must match base_url"),
        (httpx.Client(base_url=URL, follow_redirects=True), "redirects disabled"),
    ],
)
def test_an_http_client_that_does_not_fit(http_client: httpx.Client, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SIEClient(URL, http_client=http_client)


def test_an_http_client_of_the_callers() -> None:
    with StubServer(Canned(200, {}, b'{"models": []}')) as server:
        own = httpx.Client(base_url=server.url, headers={"X-Mine": "1"})
        with SIEClient(server.url, http_client=own, api_key="k", max_connections=None) as client:
            assert client.list_models() == []
        assert own.is_closed
        with pytest.raises(ValueError, match="must be open"):
            SIEClient(server.url, http_client=own)
    sent = server.received[0].headers
    assert (sent["x-mine"], sent["authorization"], sent["accept"]) == ("1", "Bearer k", "application/json")


def test_max_connections_limits_the_pool() -> None:
    good = Canned(200, {}, b'{"models": []}')
    with StubServer(good) as server, SIEClient(server.url, max_connections=1) as client:
        assert [client.list_models(), client.list_models()] == [[], []]
    # One connection is one thread of the server.
    assert len({seen.thread for seen in server.received}) == 1
