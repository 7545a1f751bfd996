"""What we send is what SIE's own SDK sends: same path, headers and bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np
import pytest
from contract.recorded import sdk_paths, sdk_requests
from sdk_recordings import comparable
from sdk_server import KINDS, Canned, Kind, StubServer, call
from sie_sdk import SIEError
from sie_sdk.types import Item

KEY = {"api_key": "sk-test"}
ITEMS = [Item(id="d1", text="hello"), Item(text="wörld", metadata={"k": 1})]


@dataclass(frozen=True)
class Case:
    method: str
    args: tuple[Any, ...]
    keywords: Mapping[str, Any] = field(default_factory=dict)
    client: Mapping[str, Any] = field(default_factory=lambda: KEY)


CASES: dict[str, Case] = {
    "encode_single_text": Case("encode", ("BAAI/bge-m3", Item(text="hello"))),
    "encode_full_params": Case(
        "encode",
        ("BAAI/bge-m3", ITEMS),
        {
            "is_query": True,
            "output_dtype": "float16",
            "options": {"profile": "sparse", "normalize": False},
            "instruction": "Find",
            "output_types": ["dense", "sparse", "multivector"],
            "gpu": "pool1/l4",
        },
    ),
    "encode_client_defaults": Case(
        "encode",
        ("m", Item(text="x")),
        {"options": {"normalize": True}},
        {"gpu": "l4", "options": {"profile": "muvera", "normalize": False}, "remote": "forbid"},
    ),
    "encode_numpy_in_item": Case(
        "encode",
        (
            "BAAI/bge-m3",
            {
                "text": "x",
                "multivector": np.arange(6, dtype="<f4").reshape(2, 3),
                "metadata": {"score": np.float32(1.5)},
            },
        ),
    ),
    "score_basic": Case(
        "score", ("BAAI/bge-reranker-v2-m3", Item(text="q"), [Item(text="a"), Item(id="doc-2", text="b")])
    ),
    "score_full": Case(
        "score",
        ("BAAI/bge-reranker-v2-m3", Item(id="q1", text="q"), [Item(id="1", text="a")]),
        {"options": {"score_mode": "hybrid"}, "instruction": "Judge"},
    ),
    "list_models": Case("list_models", ()),
    "get_model_profile": Case("get_model", ("BAAI/bge-m3:sparse",)),
    "get_capacity": Case("get_capacity", ()),
    "async_encode_single_text": Case("encode", ("BAAI/bge-m3", Item(text="hello"))),
    "async_score_basic": Case("score", ("m/r", Item(text="q"), [Item(text="a")])),
    "async_list_models": Case("list_models", ()),
    "async_get_model": Case("get_model", ("a/b:c",)),
}
# Built from its own recording: its images are whatever was recorded.
FROM_RECORDING = {"encode_images"}
OTHER_CLIENTS = {"openai_embeddings_default", "openai_embeddings_float"}
NOT_FOUND = Canned(404, {"Content-Type": "application/json"}, b'{"detail": "Not Found"}')


def test_every_recording_is_replayed() -> None:
    assert sdk_requests().keys() == CASES.keys() | FROM_RECORDING | OTHER_CLIENTS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*CASES, *FROM_RECORDING])
def test_request_equals_the_recording(name: str, kind: Kind) -> None:
    expected = sdk_requests()[name]
    if name in FROM_RECORDING:
        images = [item["images"] for item in msgpack.unpackb(expected.body)["items"]]
        # Bare bytes, and bytes with the alias of their format: both travel as recorded.
        items = [{"images": [image["data"] for image in images[0]]}]
        items += [
            {**rest, "images": [{"data": image["data"], "format": _alias(image["format"])} for image in rest["images"]]}
            for rest in msgpack.unpackb(expected.body)["items"][1:]
        ]
        case = Case("encode", ("openai/clip-vit-base-patch32", items))
    else:
        case = CASES[name]
    with StubServer(NOT_FOUND) as server, pytest.raises(SIEError):
        call(kind, server.url, case.method, *case.args, client=case.client, **case.keywords)
    [received] = server.received
    assert (received.method, received.path, received.body) == (expected.method, expected.path, expected.body)
    assert comparable(received.headers) == comparable(expected.headers)


def _alias(name: str) -> str:
    return "JPG" if name == "jpeg" else name


@pytest.mark.parametrize("kind", KINDS)
def test_model_ids_travel_as_recorded(kind: Kind) -> None:
    recorded = sdk_paths()
    with StubServer(NOT_FOUND) as server:
        for model in recorded:
            with pytest.raises(SIEError):
                call(kind, server.url, "encode", model, Item(text="x"))
    sent = {model: received.path for model, received in zip(recorded, server.received, strict=True)}
    assert sent == {model: paths[kind] for model, paths in recorded.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_path_comes_first(kind: Kind) -> None:
    with StubServer(NOT_FOUND) as server, pytest.raises(SIEError):
        call(kind, server.url + "/behind/proxy/", "encode", "a/b", Item(text="x"))
    assert server.received[0].path == "/behind/proxy/v1/encode/a/b"


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_id_that_is_no_url_is_the_callers_mistake(kind: Kind) -> None:
    with pytest.raises(ValueError, match="model id"):
        call(kind, "http://127.0.0.1:9", "encode", "a\x00b", Item(text="x"))


@pytest.mark.parametrize(
    ("client", "gpu", "headers"),
    [
        ({}, None, {}),
        ({"gpu": "l4"}, None, {"x-sie-machine-profile": "l4"}),
        ({"gpu": "l4"}, "a100", {"x-sie-machine-profile": "a100"}),
        ({"gpu": "l4"}, "", {}),
        ({"gpu": "p/l4"}, None, {"x-sie-machine-profile": "l4", "x-sie-pool": "p"}),
        ({}, "p/l4/2", {"x-sie-machine-profile": "l4/2", "x-sie-pool": "p"}),
        ({"pool": {"name": "mine"}}, None, {"x-sie-pool": "mine"}),
        ({"pool": {"name": "mine"}}, "l4", {"x-sie-machine-profile": "l4"}),
    ],
)
def test_routing_headers(client: dict[str, Any], gpu: str | None, headers: dict[str, str]) -> None:
    with StubServer(NOT_FOUND) as server, pytest.raises(SIEError):
        call("sync", server.url, "encode", "m", Item(text="x"), client=client, gpu=gpu)
    sent = server.received[0].headers
    assert {name: sent[name] for name in ("x-sie-machine-profile", "x-sie-pool") if name in sent} == headers


def test_a_tuple_counts_as_one_item() -> None:
    with StubServer(NOT_FOUND) as server, pytest.raises(SIEError):
        call("sync", server.url, "encode", "m", ({"text": "a"}, {"text": "b"}))
    assert msgpack.unpackb(server.received[0].body) == {"items": [[{"text": "a"}, {"text": "b"}]]}


def test_the_callers_items_stay_untouched() -> None:
    png = b"\x89PNG\r\n\x1a\n..."
    item = Item(images=[png])
    with StubServer(NOT_FOUND) as server, pytest.raises(SIEError):
        call("sync", server.url, "encode", "m", item)
    assert item == {"images": [png]}
    assert msgpack.unpackb(server.received[0].body) == {"items": [{"images": [{"data": png, "format": "png"}]}]}
