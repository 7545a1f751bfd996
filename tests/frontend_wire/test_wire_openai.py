from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from contract.recorded import sdk_requests
from sie_frontend.contract.errors import WireError
from sie_frontend.http.dialects.openai import EmbeddingsRequest, embeddings_body, parse_embeddings, resolve_embeddings

JSON = "application/json"


def _parse(**fields: Any) -> EmbeddingsRequest:
    return parse_embeddings(json.dumps(fields).encode(), JSON)


def _mistakes(body: bytes, content_type: str | None = JSON) -> list[dict[str, Any]]:
    with pytest.raises(WireError) as refusal:
        parse_embeddings(body, content_type)
    assert refusal.value.status == 422
    detail: list[dict[str, Any]] = json.loads(refusal.value.openai_body())["detail"]
    return detail


def _error(error: WireError) -> tuple[int, Any, Any]:
    envelope = json.loads(error.openai_body())["error"]
    return error.status, envelope["code"], envelope["param"]


def test_requests_that_the_openai_client_sent() -> None:
    for name, encoding_format in (("openai_embeddings_default", "base64"), ("openai_embeddings_float", "float")):
        body = sdk_requests()[name].body
        request = parse_embeddings(body, JSON)
        written = json.loads(body)
        texts = [written["input"]] if isinstance(written["input"], str) else written["input"]
        assert (request.model, list(request.texts)) == (written["model"], texts)
        assert request.encoding_format == encoding_format


@pytest.mark.parametrize("content_type", [JSON, "application/json; charset=utf-8", "application/vnd.x+json"])
def test_json_content_types(content_type: str | None) -> None:
    assert parse_embeddings(b'{"model":"m","input":"a"}', content_type).texts == ("a",)


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        (b"", [("missing", ["body"])]),
        (b"[]", [("model_attributes_type", ["body"])]),
        (b"{}", [("missing", ["body", "model"]), ("missing", ["body", "input"])]),
        (b'{"model":1,"input":null}', [("string_type", ["body", "model"]), ("string_type", ["body", "input"])]),
        (b'{"model":"m","input":["a",1]}', [("string_type", ["body", "input", 1])]),
        (b'{"model":"m","input":"a","dimensions":"x"}', [("int_parsing", ["body", "dimensions"])]),
        (b'{"model":"m","input":"\\ud800"}', [("string_unicode", ["body", "input"])]),
        (b'{"model"', [("json_invalid", ["body", 8])]),
    ],
)
def test_schema_mistakes(body: bytes, kinds: list[tuple[str, list[str | int]]]) -> None:
    mistakes = _mistakes(body)
    assert [(mistake["type"], mistake["loc"]) for mistake in mistakes] == kinds
    assert all({"msg", "input"} <= set(mistake) for mistake in mistakes)


def test_other_content_types_are_not_read() -> None:
    for content_type in ("application/msgpack", "text/plain", "", None):
        for body in (b'{"model":"m","input":"a"}', b"\xff"):
            assert _mistakes(body, content_type)[0]["type"] == "model_attributes_type"


@pytest.mark.parametrize("texts", [[], [1, 2], [[1], [2, 3]], [[]]])
def test_inputs_that_are_legal_and_not_served(texts: list[Any]) -> None:
    with pytest.raises(WireError) as refusal:
        _parse(model="m", input=texts)
    assert _error(refusal.value) == (400, "invalid_request", "input")


@pytest.mark.parametrize("body", [b"\xff", b"[" * 100_000, b'{"model":' + b"9" * 5000 + b"}"])
def test_bodies_beyond_the_parser(body: bytes) -> None:
    with pytest.raises(WireError) as refusal:
        parse_embeddings(body, JSON)
    assert refusal.value.status == 400


PROFILES: Mapping[str, Mapping[str, Any]] = {
    "default": {"output_dtype": "int8", "instruction": "ignored", "is_query": True, "output_types": ["dense", "sparse"]}
}


def test_a_call_is_dense_and_wide_and_keeps_the_profile_s_is_query() -> None:
    call = resolve_embeddings(_parse(model="m", input="a"), profiles=PROFILES, declared_dims={"dense": 8})
    assert call.output_types == ("dense",)
    assert (call.output_dtype, call.instruction, call.is_query) == ("float32", None, True)


def test_dimensions_other_than_the_model_s_are_refused() -> None:
    request = _parse(model="m", input="a", dimensions=4)
    with pytest.raises(WireError) as refusal:
        resolve_embeddings(request, profiles=PROFILES, declared_dims={"dense": 8})
    assert _error(refusal.value) == (400, "unsupported_field", "dimensions")
    assert "4" in refusal.value.message and "8" in refusal.value.message


def test_a_profile_without_dense_is_refused() -> None:
    request = _parse(model="m", input="a")
    with pytest.raises(WireError) as refusal:
        resolve_embeddings(request, profiles={"default": {"output_types": ["sparse"]}}, declared_dims={"dense": 8})
    assert _error(refusal.value) == (400, "invalid_request", "model")


def test_base64_is_little_endian_float32() -> None:
    vector = np.array([1.5, -2.0], dtype=">f4")
    body = json.loads(embeddings_body(_parse(model="m", input="a", encoding_format="base64"), [vector], input_tokens=1))
    assert np.frombuffer(b64decode(body["data"][0]["embedding"]), dtype="<f4").tolist() == [1.5, -2.0]


def test_unknown_token_counts_are_estimated() -> None:
    request = _parse(model="m", input=["a" * 7, "b" * 8])
    vectors = [np.zeros(2, dtype=np.float32)] * 2
    usage = json.loads(embeddings_body(request, vectors, input_tokens=None))["usage"]
    assert usage == {"prompt_tokens": 3, "total_tokens": 3, "sie_token_source": "character_estimate"}
