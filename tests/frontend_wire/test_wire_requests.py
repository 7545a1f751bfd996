from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from contract.recorded import sdk_requests
from hypothesis import given, settings
from hypothesis import strategies as st
from sie_frontend.contract.errors import WireError
from sie_frontend.contract.requests import (
    MAX_CANDIDATES,
    MAX_ITEM_TEXT_BYTES,
    MAX_ITEMS,
    EncodeRequest,
    Image,
    Item,
    ScoreRequest,
    check_item_count,
    parse_encode,
    parse_score,
)
from sie_frontend.http.dialects.openai import EmbeddingsRequest, parse_embeddings

MSGPACK = "application/msgpack"


def _encode(body: Any, content_type: str = MSGPACK) -> EncodeRequest:
    packed = msgpack.packb(body) if content_type == MSGPACK else json.dumps(body).encode()
    return parse_encode(packed, content_type)


def _score(body: Any) -> ScoreRequest:
    return parse_score(msgpack.packb(body), MSGPACK)


def _refusal(call: Callable[[], object]) -> tuple[int, str | None, str]:
    with pytest.raises(WireError) as refusal:
        call()
    return refusal.value.status, refusal.value.code, refusal.value.message


def test_requests_that_clients_sent() -> None:
    bodies = {
        name: sent.body
        for name, sent in sdk_requests().items()
        if sent.body and sent.headers["content-type"] == MSGPACK
    }
    assert len(bodies) == 9
    for name, body in bodies.items():
        written = msgpack.unpackb(body, strict_map_key=False)
        request = (parse_score if "score" in name else parse_encode)(body, MSGPACK)
        assert [item.text for item in request.items] == [item.get("text") for item in written["items"]], name
        assert [item.id for item in request.items] == [item.get("id") for item in written["items"]]
        assert [item.metadata for item in request.items] == [item.get("metadata") for item in written["items"]]
        if isinstance(request, ScoreRequest):
            assert (request.query.text, request.query.id) == (written["query"].get("text"), written["query"].get("id"))
            assert (request.instruction, request.options) == (written.get("instruction"), written.get("options"))
        else:
            params = written.get("params") or {}
            ours = request.params
            assert (ours is None) == ("params" not in written)
            for field in ("output_types", "instruction", "output_dtype", "options"):
                assert getattr(ours, field, None) == params.get(field)


def test_images_are_bytes_in_msgpack_and_base64_in_json() -> None:
    raw = b"\x89PNG\r\n\x1a\n\xff\x00"
    for content_type, data in ((MSGPACK, raw), ("application/json", b64encode(raw).decode())):
        request = _encode({"items": [{"images": [{"data": data, "format": "png"}]}]}, content_type)
        assert request.items == [Item(images=[Image(raw, "png")])]


@pytest.mark.parametrize(
    ("item", "fits"),
    [
        ({"text": "a" * MAX_ITEM_TEXT_BYTES}, True),
        ({"text": "a" * (MAX_ITEM_TEXT_BYTES + 1)}, False),
        ({"text": "ü" * (MAX_ITEM_TEXT_BYTES // 2)}, True),
        ({"text": "ü" * (MAX_ITEM_TEXT_BYTES // 2) + "a"}, False),
        ({"text": "a" * (MAX_ITEM_TEXT_BYTES - 10), "metadata": {"key": ["1234567"]}}, True),
        ({"text": "a" * (MAX_ITEM_TEXT_BYTES - 10), "metadata": {"key": ["12345678"]}}, False),
        ({"metadata": {"k" * (MAX_ITEM_TEXT_BYTES + 1): None}}, False),
        ({"metadata": {"a": {b"data": b"x" * MAX_ITEM_TEXT_BYTES}}}, False),
    ],
)
def test_text_limit(item: dict[str, Any], fits: bool) -> None:
    for parse, field in (
        (lambda: _encode({"items": [{"text": "first"}, item]}), "items[1]"),
        (lambda: _score({"query": item, "items": [{"text": "a"}]}), "query"),
    ):
        if fits:
            parse()
        else:
            message = f"Field '{field}' must hold at most 2097152 bytes of UTF-8 text"
            assert _refusal(parse) == (400, "INVALID_INPUT", message)


def test_candidate_limit_comes_before_the_queue_limit() -> None:
    def body(count: int) -> dict[str, Any]:
        return {"query": {"text": "q"}, "items": [{"text": "a"}] * count}

    request = _score(body(MAX_CANDIDATES))
    message = "Field 'items' must contain at most 1000 candidates"
    assert _refusal(lambda: _score(body(MAX_CANDIDATES + 1))) == (400, "INVALID_INPUT", message)
    assert _refusal(lambda: check_item_count(request.items, "m"))[2].startswith("Request has 1000 items but")
    check_item_count(request.items[:MAX_ITEMS], "m")


def test_body_limit_is_enforced_by_the_parsers_too() -> None:
    body = b" " * (34 * 1024 * 1024 + 1)
    expected = (413, "INPUT_TOO_LONG", "request body exceeds the limit of 35651584 bytes")
    for parse in (parse_encode, parse_score, parse_embeddings):
        assert _refusal(lambda parse=parse: parse(body, None)) == expected  # type: ignore[misc]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "Expected `object`, got `array`"),
        ({"items": [{"text": "a"}], "query": "q"}, "Expected `object`, got `str` - at `$.query`"),
        ({"items": [], "query": {"text": "q"}}, "Field 'items' must not be empty"),
        ({"items": [{}], "query": {}, "options": []}, "Expected `object | null`, got `array` - at `$.options`"),
    ],
)
def test_score_refusals(body: Any, message: str) -> None:
    assert _refusal(lambda: _score(body)) == (400, "INVALID_INPUT", message)


@pytest.mark.parametrize("content_type", [MSGPACK, "application/json"])
def test_nesting_without_end_is_refused(content_type: str) -> None:
    opened = b"\x91" * 100_000 if content_type == MSGPACK else b"[" * 100_000
    prefix = b"\x81\xa5items\x91\x81\xa8metadata\x81\xa1a"
    body = prefix + opened if content_type == MSGPACK else b'{"items":[{"metadata":{"a":' + opened
    status, code, message = _refusal(lambda: parse_encode(body, content_type))
    assert (status, code) == (400, "INVALID_INPUT")
    assert message.startswith("Failed to parse request body: maximum recursion depth exceeded")


_VALID = (
    msgpack.packb(
        {"items": [{"id": "1", "text": "hé", "images": [{"data": b"\xff"}], "metadata": {"a": [1.5, None]}}]}
    ),
    msgpack.packb({"query": {"text": "q"}, "items": [{"text": "a"}], "options": {"profile": "x"}}),
    b'{"items":[{"text":"\\u00e9","images":[{"data":"AA=="}]}],"params":{"output_types":["dense"]}}',
    b'{"model":"m","input":["a","b"],"encoding_format":"base64","dimensions":8}',
)


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    """A valid body with some bytes replaced, removed or repeated."""
    body = bytearray(draw(st.sampled_from(_VALID)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body) - 1))
        body[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
        if not body:
            return b""
    return bytes(body)


@settings(max_examples=400)
@given(
    st.one_of(st.binary(max_size=200), _mutated(), st.text(max_size=80).map(str.encode)),
    st.sampled_from([None, MSGPACK, "application/json", "text/plain", "application/json; charset=\xff", "x"]),
)
def test_any_bytes_are_a_request_or_a_refusal(body: bytes, content_type: str | None) -> None:
    parsers: tuple[Callable[[bytes, str | None], object], ...] = (parse_encode, parse_score, parse_embeddings)
    for parse in parsers:
        try:
            request = parse(body, content_type)
        except WireError as error:
            assert 400 <= error.status < 500
            assert json.loads(error.body()).keys() == {"detail"}
            assert json.loads(error.openai_body()).keys() <= {"detail", "error"}
        else:
            assert isinstance(request, EncodeRequest | ScoreRequest | EmbeddingsRequest)
