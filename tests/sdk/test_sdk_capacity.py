"""`get_capacity` and `wait_for_capacity` against what a gateway's `/health` says."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sdk_server import KINDS, Canned, FakeTime, Kind, Step, StubServer, call
from sie_sdk import ProvisioningError, RequestError, ServerError, _wire

JSON = {"Content-Type": "application/json"}
GOOD = Canned(
    200,
    {"Content-Type": "application/msgpack"},
    _wire.pack({"model": "m", "items": [{"dense": {"values": np.zeros(2, "<f4")}}]}),
)


def gateway(*workers: dict[str, Any], **changes: Any) -> Canned:
    body = {
        "status": "healthy",
        "type": "gateway",
        "cluster": {"worker_count": len(workers), "gpu_count": 3, "models_loaded": 2},
        "configured_gpu_types": ["l4", "a100"],
        "live_gpu_types": ["l4"],
        "workers": list(workers),
    }
    return Canned(200, JSON, json.dumps(body | changes).encode())


L4 = {"name": "w1", "url": "http://w1", "gpu": "L4", "gpu_count": 2, "healthy": True, "loaded_models": ["m"]}
A100 = {"name": "w2", "gpu": "a100", "ready_gpu_slots": 0, "gpu_count": 1, "surprise": 1}
BARE = {"healthy": True}


@pytest.mark.parametrize("kind", KINDS)
def test_capacity(kind: Kind) -> None:
    with StubServer(gateway(L4, A100, BARE)) as server:
        capacity = call(kind, server.url, "get_capacity")
    workers = capacity.pop("workers")
    assert capacity == {
        "status": "healthy",
        "worker_count": 3,
        "gpu_count": 3,
        "models_loaded": 2,
        "configured_gpu_types": ["l4", "a100"],
        "live_gpu_types": ["l4"],
    }
    assert [worker["ready_gpu_slots"] for worker in workers] == [2, 0, 1]
    assert workers[2] == {
        "name": "",
        "url": "",
        "gpu": "",
        "gpu_count": 0,
        "ready_gpu_slots": 1,
        "healthy": True,
        "queue_depth": 0,
        "pending_cost": 0,
        "inflight_batches": 0,
        "loaded_models": [],
        "memory_used_bytes": 0,
        "memory_total_bytes": 0,
        "bundle": "",
        "bundle_config_hash": "",
    }


@pytest.mark.parametrize(("gpu", "names"), [("l4", ["w1"]), ("A100", ["w2"]), ("h100", [])])
def test_capacity_of_one_gpu_type(gpu: str, names: list[str]) -> None:
    with StubServer(gateway(L4, A100)) as server:
        capacity = call("sync", server.url, "get_capacity", gpu=gpu)
    assert [worker["name"] for worker in capacity["workers"]] == names
    assert capacity["worker_count"] == len(names)


def test_an_empty_gateway_has_defaults() -> None:
    with StubServer(Canned(200, JSON, b'{"type": "gateway"}')) as server:
        assert call("sync", server.url, "get_capacity") == {
            "status": "unknown",
            "worker_count": 0,
            "gpu_count": 0,
            "models_loaded": 0,
            "configured_gpu_types": [],
            "live_gpu_types": [],
            "workers": [],
        }


@pytest.mark.parametrize("changes", [{"cluster": 1}, {"workers": {}}, {"workers": [1]}], ids=str)
def test_malformed_capacity(changes: dict[str, Any]) -> None:
    with StubServer(gateway(**changes)) as server, pytest.raises(RequestError, match="Malformed health JSON"):
        call("sync", server.url, "get_capacity")


@pytest.mark.parametrize("kind", KINDS)
def test_waiting_polls_until_a_worker_is_there(kind: Kind) -> None:
    time = FakeTime()
    missing = Canned(404, JSON, b'{"detail": "Not Found"}')
    # aiohttp asks once more itself for what changes nothing.
    hangs_up: list[Step] = ["hang up"] if kind == "sync" else ["hang up", "hang up"]
    with StubServer(missing, *hangs_up, gateway(), gateway(A100), gateway(L4)) as server:
        capacity = call(kind, server.url, "wait_for_capacity", "l4", time=time, poll_interval_s=2)
    assert capacity["worker_count"] == 1
    assert time.sleeps == [2, 2, 2, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_waiting_ends(kind: Kind) -> None:
    time = FakeTime()
    with StubServer(gateway()) as server, pytest.raises(ProvisioningError, match=r"Timeout after 12\.0s") as caught:
        call(kind, server.url, "wait_for_capacity", "l4", time=time, timeout_s=12)
    assert caught.value.gpu == "l4"
    assert time.sleeps == [5, 5, 2]


def test_a_broken_gateway_is_not_waited_for() -> None:
    with StubServer(Canned(500)) as server, pytest.raises(ServerError, match="HTTP 500"):
        call("sync", server.url, "wait_for_capacity", "l4")
    assert len(server.received) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_waiting_for_a_model_encodes_once(kind: Kind) -> None:
    loading = Canned(503, {"X-SIE-Error-Code": "MODEL_LOADING", "Retry-After": "3"})
    time = FakeTime()
    with StubServer(loading, GOOD, gateway(L4)) as server:
        capacity = call(kind, server.url, "wait_for_capacity", "l4", model="a/m", time=time)
    assert capacity["worker_count"] == 1
    assert [(seen.method, seen.path) for seen in server.received] == [
        ("POST", "/v1/encode/a/m"),
        ("POST", "/v1/encode/a/m"),
        ("GET", "/health"),
    ]
    assert server.received[0].headers["x-sie-machine-profile"] == "l4"
    assert _wire.unpack(server.received[0].body) == {"items": [{"text": "warmup"}]}
    assert time.sleeps == [3]
