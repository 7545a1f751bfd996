"""What goes wrong between the two ends: refused, severed and slow connections, redirects, concurrent callers."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from sdk_server import KINDS, Canned, FakeTime, Kind, StubServer, call
from sie_sdk import ProvisioningError, RequestError, SIEClient, SIEConnectionError, _wire
from sie_sdk.types import Item

MSGPACK = {"Content-Type": "application/msgpack"}
BODY = _wire.pack({"model": "m", "items": [{"dense": {"values": np.array([0.5], "<f4")}}]})
GOOD = Canned(200, MSGPACK, BODY)
ENCODE = ("encode", "m", Item(text="x"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("kind", KINDS)
def test_refused_connection_that_comes_up(kind: Kind) -> None:
    port = free_port()
    servers: list[StubServer] = []

    class Starting(FakeTime):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if len(self.sleeps) == 3:
                servers.append(StubServer(GOOD, port=port).__enter__())

    time = Starting()
    try:
        result = call(kind, f"http://127.0.0.1:{port}", *ENCODE, time=time)
    finally:
        for server in servers:
            server.__exit__()
    assert result["dense"].tolist() == [0.5]
    assert time.sleeps == [5, 5, 5]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("keywords", "sleeps"),
    [({"wait_for_capacity": False}, []), ({"provision_timeout_s": 12}, [5, 5, 2])],
    ids=str,
)
def test_refused_connection(kind: Kind, keywords: dict[str, Any], sleeps: list[float]) -> None:
    time = FakeTime()
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(SIEConnectionError, match=f"Failed to connect to {url}"):
        call(kind, url, *ENCODE, time=time, **keywords)
    assert time.sleeps == sleeps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [("list_models",), ("get_model", "m"), ("get_capacity",)], ids=str)
def test_reading_from_a_server_that_is_not_there(kind: Kind, method: tuple[str, ...]) -> None:
    with pytest.raises(SIEConnectionError, match="Failed to connect"):
        call(kind, f"http://127.0.0.1:{free_port()}", *method)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", ["hang up", "hang up midway"])
def test_severed_connection_names_what_happened(kind: Kind, step: Any) -> None:
    with StubServer(step) as server, pytest.raises(SIEConnectionError, match="Connection lost mid-request") as caught:
        call(kind, server.url, *ENCODE, wait_for_capacity=False)
    cause = caught.value.__cause__
    assert f"({type(cause).__name__}); the peer closed the connection" in str(caught.value)
    assert str(cause) in str(caught.value)
    assert len(server.received) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "keywords"),
    [
        ({"read_timeout_s": 0.05}, {}),
        ({"timeout_s": 0.05}, {}),
        ({"timeout_s": 60, "read_timeout_s": 0.05}, {}),
        ({}, {"provision_timeout_s": 0.05}),
    ],
    ids=str,
)
def test_read_timeout_is_never_retried(kind: Kind, options: dict[str, Any], keywords: dict[str, Any]) -> None:
    with StubServer("hang") as server, pytest.raises(SIEConnectionError, match="timed out waiting") as caught:
        call(kind, server.url, *ENCODE, client=options, **keywords)
    assert isinstance(caught.value.__cause__, TimeoutError | asyncio.TimeoutError)
    assert len(server.received) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_reading_models_times_out(kind: Kind) -> None:
    with StubServer("hang") as server, pytest.raises(SIEConnectionError, match=r"^Request timed out: "):
        call(kind, server.url, "list_models", client={"read_timeout_s": 0.05})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", [ENCODE, ("list_models",), ("get_model", "m")], ids=lambda method: str(method[0]))
def test_redirects_are_not_followed(kind: Kind, status: int, method: tuple[Any, ...]) -> None:
    redirect = Canned(status, {"Location": "/v1/elsewhere"})
    with StubServer(redirect, GOOD) as server, pytest.raises(RequestError, match=f"status={status}") as caught:
        call(kind, server.url, *method)
    assert caught.value.status_code == status
    assert len(server.received) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_held_request_is_continued_by_get(kind: Kind) -> None:
    held = [Canned(303, {"Location": f"/result?__modal_attempt_token=t{hop}"}) for hop in range(2)]
    with StubServer(*held, GOOD) as server:
        result = call(kind, server.url + "/base", *ENCODE, client={"api_key": "k"})
    assert result["dense"].tolist() == [0.5]
    assert [(seen.method, seen.path) for seen in server.received] == [
        ("POST", "/base/v1/encode/m"),
        ("GET", "/result?__modal_attempt_token=t0"),
        ("GET", "/result?__modal_attempt_token=t1"),
    ]
    assert {seen.headers["accept"] for seen in server.received} == {"application/msgpack"}
    assert server.received[2].headers["authorization"] == "Bearer k"


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2/r?__modal_attempt_token=t",
        "https://127.0.0.1/r?__modal_attempt_token=t",
        "//user@127.0.0.1/r?__modal_attempt_token=t",
        "/r?__modal_attempt_token=",
        "/r?__modal_attempt_token=a&__modal_attempt_token=b",
        "/r?__modal_attempt_token=t#f",
        "http://[/r?__modal_attempt_token=t",
        "/r",
    ],
)
def test_a_303_that_leads_away_is_a_redirect(location: str) -> None:
    with StubServer(Canned(303, {"Location": location}), GOOD) as server, pytest.raises(RequestError, match="303"):
        call("sync", server.url, *ENCODE)
    assert len(server.received) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_held_request_does_not_turn_in_circles(kind: Kind) -> None:
    held = Canned(303, {"Location": "/r?__modal_attempt_token=t"})
    with StubServer(held) as server, pytest.raises(ProvisioningError, match="20 continuation hops"):
        call(kind, server.url, *ENCODE)
    assert len(server.received) == 21


@pytest.mark.parametrize("kind", KINDS)
def test_a_held_request_that_breaks_is_not_sent_again(kind: Kind) -> None:
    held = Canned(303, {"Location": "/r?__modal_attempt_token=t"})
    with StubServer(held, "hang up") as server, pytest.raises(SIEConnectionError):
        call(kind, server.url, *ENCODE)
    # aiohttp asks once more for what changes nothing; the POST is nobody's to repeat.
    assert [seen.method for seen in server.received] == ["POST", "GET", "GET"][: 2 if kind == "sync" else 3]


@pytest.mark.parametrize("kind", KINDS)
def test_compressed_answers(kind: Kind) -> None:
    zipped = Canned(200, {**MSGPACK, "Content-Encoding": "gzip"}, gzip.compress(BODY))
    with StubServer(zipped) as server:
        assert call(kind, server.url, *ENCODE)["dense"].tolist() == [0.5]


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_does_not_decompress(kind: Kind) -> None:
    broken = Canned(200, {**MSGPACK, "Content-Encoding": "gzip"}, b"not gzip")
    with (
        StubServer(broken) as server,
        pytest.raises(SIEConnectionError, match=r"(?s)the exchange with .* failed \(.*decod"),
    ):
        call(kind, server.url, *ENCODE)
    assert len(server.received) == 1


def test_threads_share_one_client() -> None:
    revisions = [str(index) for index in range(8)]
    barrier = threading.Barrier(8)
    with StubServer(GOOD) as server, SIEClient(server.url) as shared, ThreadPoolExecutor(8) as pool:

        def work(revision: str) -> tuple[list[float], str | None, int]:
            barrier.wait()
            result = shared.encode("m", Item(text=revision))
            return result["dense"].tolist(), shared.last_model_revision, shared.last_retry_count

        assert list(pool.map(work, revisions)) == [([0.5], None, 0)] * 8
    sent = sorted(_wire.unpack(seen.body)["items"][0]["text"] for seen in server.received)  # type: ignore[index]
    assert sent == revisions


def test_what_the_latest_call_leaves_behind() -> None:
    loading = Canned(503, {"Retry-After": "0", "X-SIE-Error-Code": "MODEL_LOADING"})
    served = Canned(200, {**MSGPACK, "X-SIE-Model-Revision": "abc"}, BODY)
    time = FakeTime()
    with (
        StubServer(loading, loading, served, GOOD) as server,
        SIEClient(server.url, _timing=time.timing, _sleep=time.sleep) as opened,
    ):
        assert (opened.last_model_revision, opened.last_retry_count) == (None, 0)
        opened.encode("m", Item(text="x"))
        assert (opened.last_model_revision, opened.last_retry_count) == ("abc", 2)
        opened.encode("m", Item(text="x"))
        assert (opened.last_model_revision, opened.last_retry_count) == (None, 0)


@pytest.mark.parametrize(
    ("version", "warnings"),
    [("0.10.1", 0), ("0.11.0", 0), ("0.9.7", 0), ("0.12.0", 1), ("0.8", 1), ("1.10.1", 1), ("main", 0), ("7", 0)],
)
def test_version_skew_is_mentioned_once(version: str, warnings: int, caplog: pytest.LogCaptureFixture) -> None:
    answer = Canned(200, {**MSGPACK, "X-SIE-Server-Version": version}, BODY)
    with StubServer(answer) as server, SIEClient(server.url) as opened:
        opened.encode("m", Item(text="x"))
        opened.encode("m", Item(text="x"))
    assert len(caplog.records) == warnings


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_pass_is_raised_at_once(kind: Kind) -> None:
    time = FakeTime()
    with StubServer(GOOD) as server, pytest.raises(SIEConnectionError, match="Failed to connect"):
        call(kind, server.url.replace("http:", "https:"), *ENCODE, time=time)
    assert time.sleeps == []
