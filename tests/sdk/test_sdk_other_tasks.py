"""`extract` and `generate`: a sentence where the server has neither, results where it has."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from sdk_server import KINDS, Canned, Kind, StubServer, call
from sie_sdk import IncompleteBatchError, RequestError, ServerError, SIEConnectionError, _wire
from sie_sdk.images import convert_item_images
from sie_sdk.types import Item

EXTRACT = ("extract", "owner/m", [Item(text="Ada met Bob.", id="a"), Item(text="b")])
GENERATE = ("generate", "owner/m", "Once")
MSGPACK = {"Content-Type": "application/msgpack"}
JSON = {"Content-Type": "application/json"}
GIF = b"GIF89a-and-so-on"


def keywords(method: tuple[Any, ...]) -> dict[str, Any]:
    return {"max_new_tokens": 5} if method[0] == "generate" else {}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [EXTRACT, GENERATE], ids=lambda method: str(method[0]))
@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (404, JSON, b'{"detail":"Not Found"}'),
        (404, {"Content-Type": "text/plain"}, b"Not Found"),
        (405, JSON, b'{"detail":"Method Not Allowed"}'),
        (404, {}, b""),
    ],
)
def test_a_server_without_the_route_is_explained(
    kind: Kind, method: tuple[Any, ...], status: int, headers: dict[str, str], body: bytes
) -> None:
    with StubServer(Canned(status, headers, body)) as server, pytest.raises(RequestError) as caught:
        call(kind, server.url, *method, **keywords(method))
    message = str(caught.value)
    assert f"the server at {server.url} does not serve `{method[0]}`" in message
    assert "sie-triton serves `encode` and `score`" in message
    assert (caught.value.status_code, len(server.received)) == (status, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", [EXTRACT, GENERATE], ids=lambda method: str(method[0]))
@pytest.mark.parametrize("envelope", ["error", "detail"])
def test_the_servers_own_sentence_is_the_message(kind: Kind, method: tuple[Any, ...], envelope: str) -> None:
    sentence = "This server encodes and scores; it does not extract."
    body = json.dumps({envelope: {"code": "NOT_SERVED", "message": sentence}}).encode()
    with StubServer(Canned(404, JSON, body)) as server, pytest.raises(RequestError) as caught:
        call(kind, server.url, *method, **keywords(method))
    assert (str(caught.value), caught.value.code) == (sentence, "NOT_SERVED")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_extracted(kind: Kind) -> None:
    entity = {"text": "Ada", "label": "person", "score": 0.9, "start": 0, "end": 3}
    items = [
        {"id": "a", "entities": [entity], "data": {"k": 1}},
        {"id": "item-1", "error": {"code": "X", "message": "y"}},
    ]
    answer = Canned(200, MSGPACK, _wire.pack({"model": "owner/m", "items": items}))
    with StubServer(answer) as server:
        results = call(kind, server.url, *EXTRACT, labels=["person"], output_schema={"s": 1}, options={"o": 1})
        single = Canned(200, MSGPACK, _wire.pack({"model": "owner/m", "items": items[:1]}))
        server.steps = (single,)
        assert call(kind, server.url, "extract", "owner/m", Item(text="x")) == results[0]
    nothing: dict[str, Any] = {"relations": [], "classifications": [], "objects": [], "model": "owner/m"}
    assert results[0] == {"id": "a", "entities": [entity], "data": {"k": 1}, **nothing}
    assert results[1] == {"id": "item-1", "entities": [], "error": {"code": "X", "message": "y"}, **nothing}
    sent = server.received[0]
    assert sent.path == "/v1/extract/owner/m"
    assert _wire.unpack(sent.body) == {
        "items": [{"text": "Ada met Bob.", "id": "a"}, {"text": "b"}],
        "params": {"labels": ["person"], "output_schema": {"s": 1}, "options": {"o": 1}},
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_for_each_item(kind: Kind) -> None:
    answer = Canned(200, MSGPACK, _wire.pack({"model": "m", "items": [{"id": "a"}]}))
    with StubServer(answer) as server, pytest.raises(IncompleteBatchError, match=r"1 result\(s\) for 2") as caught:
        call(kind, server.url, *EXTRACT)
    assert caught.value.code == "EXTRACT_RESULT_COUNT_MISMATCH"


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_generated(kind: Kind) -> None:
    body = {"model": "m", "text": "upon a time", "finish_reason": "stop", "usage": {"total_tokens": 3}, "other": 1}
    with StubServer(Canned(200, JSON, json.dumps(body).encode())) as server:
        result = call(kind, server.url, *GENERATE, max_new_tokens=5, images=[GIF], temperature=0.5, options={"o": 1})
    assert result == {key: value for key, value in body.items() if key != "other"}
    sent = server.received[0]
    assert (sent.path, sent.headers["content-type"], sent.headers["accept"]) == (
        "/v1/generate/owner__m",
        "application/json",
        "application/json",
    )
    assert json.loads(sent.body) == {
        "prompt": "Once",
        "max_new_tokens": 5,
        "images": [{"data": base64.b64encode(GIF).decode(), "format": "gif"}],
        "temperature": 0.5,
        "options": {"o": 1},
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_generation_that_began_is_not_repeated(kind: Kind) -> None:
    with StubServer("hang up") as server, pytest.raises(SIEConnectionError, match="Connection lost"):
        call(kind, server.url, *GENERATE, max_new_tokens=5)
    assert len(server.received) == 1
    with StubServer(Canned(504, JSON, b"{}")) as server, pytest.raises(ServerError):
        call(kind, server.url, *GENERATE, max_new_tokens=5)
    assert len(server.received) == 1


def test_an_items_images_are_converted_in_place() -> None:
    item: dict[str, Any] = {"text": "x", "images": [GIF, {"data": GIF, "format": "gif"}]}
    assert convert_item_images(item) is item
    assert item == {"text": "x", "images": [{"data": GIF, "format": "gif"}] * 2}
    bare: dict[str, Any] = {"text": "x"}
    assert convert_item_images(bare) is bare
