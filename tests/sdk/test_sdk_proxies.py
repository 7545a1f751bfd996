"""Which servers are reached through a proxy, and what is said when that fails."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.request import getproxies, proxy_bypass

import pytest
from sdk_server import KINDS, Canned, Kind, StubServer, call
from sie_sdk import RequestError, SIEClient, SIEConnectionError
from sie_sdk._proxies import proxy_for
from sie_sdk.types import Item
from test_sdk_transport import ENCODE, GOOD, free_port

PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def no_proxies_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080",
        "http://127.8.9.10",
        "https://localhost",
        "http://LOCALHOST:8080/base",
        "http://localhost.:8080",
        "http://sie.localhost",
        "http://[::1]:8080",
        "http://[::ffff:127.0.0.1]:8080",
        "http://0.0.0.0:8080",
    ],
)
def test_loopback_is_reached_directly(url: str) -> None:
    assert proxy_for(url, {"http": PROXY, "https": PROXY, "all": PROXY}) is None


@pytest.mark.parametrize(
    ("url", "proxies", "expected"),
    [
        ("http://a.example", {"http": PROXY}, PROXY),
        ("https://a.example", {"http": PROXY}, None),
        ("https://a.example", {"all": PROXY}, PROXY),
        ("https://a.example", {"all": "http://other:1", "https": PROXY}, PROXY),
        ("http://a.example", {"http": "proxy.example:3128"}, PROXY),
        ("http://localhost.example", {"http": PROXY}, PROXY),
        ("http://10.1.2.3", {"http": PROXY, "no": "10.0.0.0/8"}, None),
        ("http://11.1.2.3", {"http": PROXY, "no": "10.0.0.0/8"}, PROXY),
        ("http://[fd00::1]", {"http": PROXY, "no": "fd00::/8"}, None),
        ("http://[fd00::1]:80", {"http": PROXY, "no": "[fd00::1]"}, None),
        ("http://a.example", {"http": PROXY, "no": "http://a.example"}, None),
        ("http://a.b.example", {"http": PROXY, "no": "*.b.example"}, None),
        ("http://notb.example", {"http": PROXY, "no": "b.example"}, PROXY),
    ],
)
def test_what_the_variables_mean(url: str, proxies: Mapping[str, str], expected: str | None) -> None:
    assert proxy_for(url, proxies) == expected


@pytest.mark.parametrize(
    "exceptions", ["*", "a.example", ".example", "x, a.example:8080", "a.example:9", "b.example", ""]
)
def test_exceptions_are_those_of_the_standard_library(exceptions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", exceptions)
    expected = proxy_bypass("a.example:8080")
    assert (proxy_for("http://a.example:8080", {"http": PROXY, "no": exceptions}) is None) == bool(expected)


@pytest.mark.parametrize("proxy", ["ftp://proxy:21", "http://", "://"])
def test_what_is_no_proxy_is_refused_by_its_variable(proxy: str) -> None:
    with pytest.raises(ValueError, match="HTTP_PROXY must be a URL like http://proxy:3128"):
        proxy_for("http://a.example", {"http": proxy})


@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_of_the_environment_is_used(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    with StubServer(GOOD) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert getproxies() == {"http": proxy.url}
        assert call(kind, "http://sie.example:8080", *ENCODE)["dense"].tolist() == [0.5]
    assert [seen.path for seen in proxy.received] == ["http://sie.example:8080/v1/encode/m"]


def test_loopback_is_not_sent_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with StubServer(GOOD) as proxy, StubServer(GOOD) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        for url in (server.url, server.url.replace("127.0.0.1", "localhost")):
            with SIEClient(url) as client:
                client.encode("m", Item(text="x"))
    assert (len(proxy.received), len(server.received)) == (0, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("method", [ENCODE, ("list_models",)], ids=lambda method: str(method[0]))
def test_a_proxy_that_is_not_there_is_named(
    kind: Kind, scheme: str, method: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv(f"{scheme}_proxy", f"http://user:secret@127.0.0.1:{port}")
    keywords: dict[str, Any] = {} if len(method) == 1 else {"wait_for_capacity": False}
    with pytest.raises(SIEConnectionError, match=f"sie.example through the proxy http://127.0.0.1:{port}") as caught:
        call(kind, f"{scheme}://sie.example", *method, **keywords)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", ["hang up", "hang"])
def test_a_proxy_that_breaks_the_exchange_is_named(kind: Kind, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with StubServer(step) as proxy:  # type: ignore[arg-type] # a parametrised `str` is one of the literals
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with pytest.raises(SIEConnectionError, match=f"through the proxy {proxy.url}"):
            call(kind, "http://sie.example", *ENCODE, client={"read_timeout_s": 0.2}, wait_for_capacity=False)


@pytest.mark.parametrize("kind", KINDS)
def test_a_proxy_that_refuses_is_named(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = Canned(403, {"Content-Type": "text/html"}, b"<h1>Access denied</h1>")
    with StubServer(refusal) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(RequestError, match=f"denied.*through the proxy {proxy.url}, which may have answered"):
            call(kind, "http://sie.example", *ENCODE)


def test_an_answer_of_the_server_is_not_blamed_on_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    body = b'{"error": {"code": "MODEL_NOT_FOUND", "message": "Model \'m\' not found"}}'
    with StubServer(Canned(404, {"Content-Type": "application/json"}, body)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with pytest.raises(RequestError, match=r"^Model 'm' not found$"):
            call("sync", "http://sie.example", *ENCODE)
