"""One client before and after `fork()`: every process gets its own answers, and the parent keeps its connections."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from fork_driver import SCHEMES, digest
from sdk_server import Canned, Received, StubServer
from sie_sdk import SIEAsyncClient, SIEClient, SIEConnectionError, _wire
from sie_sdk.types import Item

DRIVER = Path(__file__).with_name("fork_driver.py")
ROUNDS = {"sync": 60, "async": 20, "threads": 12, "pools": 6}


def echo(received: Received) -> Canned:
    """The digest of the text, after a moment in which two processes can get into each other's way."""
    body = _wire.unpack(received.body)
    assert isinstance(body, dict)
    time.sleep(0.003)
    items = [{"dense": {"values": np.array(digest(item["text"]), "<f4")}} for item in body["items"]]
    return Canned(200, {"Content-Type": "application/msgpack"}, _wire.pack({"model": "m", "items": items}))


@pytest.fixture
def server() -> Iterator[StubServer]:
    with StubServer(echo) as serving:
        yield serving


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_process_gets_its_own_answers(scheme: str, server: StubServer) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", str(DRIVER), scheme, server.url]
    done = subprocess.run([*command, str(ROUNDS[scheme])], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    outcomes = json.loads(done.stdout)
    assert list(outcomes) == ["right"]
    assert outcomes["right"] >= ROUNDS[scheme] * 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_parents_connection_survives_its_children(server: StubServer) -> None:
    with SIEClient(server.url, max_connections=1) as client:
        for _ in range(3):
            client.encode("m", Item(text="mine"))
            pid = os.fork()
            if pid == 0:
                client.close()
                os._exit(0)
            os.waitpid(pid, 0)
        client.encode("m", Item(text="mine"))
    # One connection is one thread of the server.
    assert len({seen.thread for seen in server.received}) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_an_http_client_of_the_callers_stays_in_its_process(server: StubServer) -> None:
    own = httpx.Client(base_url=server.url)
    with SIEClient(server.url, http_client=own) as client:
        client.encode("m", Item(text="mine"))
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                client.encode("m", Item(text="a child's"))
            except SIEConnectionError as error:
                os.write(writing, str(error).encode())
            os._exit(0)
        os.close(writing)
        assert "`http_client` that was made in another process" in os.read(reading, 500).decode()
        os.close(reading)
        os.waitpid(pid, 0)
        assert client.encode("m", Item(text="mine"))["dense"].tolist() == digest("mine")


def test_a_client_travels_as_its_arguments(server: StubServer) -> None:
    with SIEClient(server.url, api_key="k", options={"profile": "p"}) as client:
        client.encode("m", Item(text="mine"))
        for twin in (pickle.loads(pickle.dumps(client)), copy.copy(client)):
            with twin:
                assert twin.encode("m", Item(text="its own"))["dense"].tolist() == digest("its own")
        assert client.encode("m", Item(text="mine"))["dense"].tolist() == digest("mine")
    assert {seen.headers["authorization"] for seen in server.received} == {"Bearer k"}
    # One connection is one thread of the server: the first client's was not disturbed.
    assert server.received[0].thread == server.received[-1].thread
    assert server.received[1].thread != server.received[0].thread


def test_the_environments_key_does_not_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIE_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SIE_API_KEY", "a-secret")
    with SIEClient() as client:
        assert b"a-secret" not in pickle.dumps(client)


def test_a_client_with_connections_of_the_callers_does_not_travel(server: StubServer) -> None:
    with (
        SIEClient(server.url, http_client=httpx.Client(base_url=server.url)) as client,
        pytest.raises(TypeError, match="make the client in the process that uses it"),
    ):
        pickle.dumps(client)


# A loop that ends without `close` leaves its connections to the collector, which asyncio tells of.
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_one_async_client_in_several_event_loops(server: StubServer) -> None:
    use_in_several_event_loops(server)
    gc.collect()


def use_in_several_event_loops(server: StubServer) -> None:
    client = pickle.loads(pickle.dumps(SIEAsyncClient(server.url, max_concurrency=2)))

    async def several(name: str) -> list[list[float]]:
        calls = (client.encode("m", Item(text=f"{name}{number}")) for number in range(6))
        return [result["dense"].tolist() for result in await asyncio.gather(*calls)]

    for name in "abc":
        assert asyncio.run(several(name)) == [digest(f"{name}{number}") for number in range(6)]
    asyncio.run(client.close())
    with pytest.raises(RuntimeError, match="has been closed"):
        asyncio.run(several("d"))


def test_max_concurrency_limits_what_is_on_its_way() -> None:
    running, most = [], 0

    def count(received: Received) -> Canned:
        nonlocal most
        running.append(received)
        most = max(most, len(running))
        answer = echo(received)
        running.pop()
        return answer

    async def many(client: SIEAsyncClient) -> None:
        async with client:
            await asyncio.gather(*(client.encode("m", Item(text=str(number))) for number in range(12)))

    with StubServer(count) as counting:
        asyncio.run(many(SIEAsyncClient(counting.url, max_concurrency=3)))
    assert len(counting.received) == 12
    assert 1 < most <= 3
    with pytest.raises(ValueError, match="max_concurrency must be at least 1, got 0"):
        SIEAsyncClient("http://127.0.0.1:9", max_concurrency=0)
