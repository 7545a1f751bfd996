"""What a rerank request may say, field by field, and whose fields they are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sie_frontend.contract.errors import WireError
from sie_frontend.http.dialects.rerank import Dialect, RerankRequest, dialect_of, parse_rerank

GOOD: dict[str, Any] = {"model": "m", "query": "q", "documents": ["a", "b"]}


def _parse(dialect: Dialect = Dialect.SIE, **fields: Any) -> RerankRequest:
    return parse_rerank(json.dumps({**GOOD, **fields}).encode(), dialect)


def _refusal(body: bytes, dialect: Dialect = Dialect.SIE) -> dict[str, Any]:
    with pytest.raises(WireError) as refusal:
        parse_rerank(body, dialect)
    assert refusal.value.status == 400
    envelope: dict[str, Any] = json.loads(refusal.value.openai_body())["error"]
    assert (envelope["type"], envelope["code"]) == ("invalid_request_error", "INVALID_INPUT")
    return envelope


def _refused(dialect: Dialect = Dialect.SIE, **fields: Any) -> dict[str, Any]:
    return _refusal(json.dumps({**GOOD, **fields}).encode(), dialect)


# The reference's own words.
@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"model": ""}, "model", "'model' must be a non-empty string"),
        ({"model": None}, "model", "'model' must be a non-empty string"),
        ({"query": " \n"}, "query", "'query' must be a non-empty string"),
        ({"query": {"text": "q"}}, "query", "'query' must be a non-empty string"),
        ({"query": "\ud800"}, "query", "'query' must be a non-empty string"),
        ({"documents": []}, "documents", "'documents' must be a non-empty array of strings"),
        ({"documents": "a"}, "documents", "'documents' must be a non-empty array of strings"),
        ({"documents": None}, "documents", "'documents' must be a non-empty array of strings"),
        ({"documents": ["a", ""]}, "documents", "'documents' must be a non-empty array of strings"),
        ({"documents": ["a", 1]}, "documents", "'documents' must be a non-empty array of strings"),
        ({"documents": [{"title": "a"}]}, "documents", "'documents' must be a non-empty array of strings"),
        ({"documents": ["a"] * 1001}, "documents", "'documents' exceeds the maximum of 1000 per request"),
        ({"top_n": 0}, "top_n", "'top_n' must be a positive integer"),
        ({"top_n": True}, "top_n", "'top_n' must be a positive integer"),
        ({"top_n": 1.0}, "top_n", "'top_n' must be a positive integer"),
        ({"return_documents": None}, "return_documents", "'return_documents' must be a boolean"),
        ({"return_documents": 1}, "return_documents", "'return_documents' must be a boolean"),
        ({"options": []}, "options", "'options' must be an object"),
        ({"user": "u"}, "user", "field 'user' is not supported"),
        ({"b": 1, "a": 1}, "a", "field 'a' is not supported"),
        ({"rank_fields": ["text"]}, "rank_fields", "field 'rank_fields' is not supported"),
        ({"max_chunks_per_doc": 1}, "max_chunks_per_doc", "field 'max_chunks_per_doc' is not supported"),
        ({"max_tokens_per_doc": None}, "max_tokens_per_doc", "field 'max_tokens_per_doc' is not supported"),
        (
            {"documents": ["a", "é" * (1 << 20) + "a"]},
            "documents",
            "Field 'documents[1]' must hold at most 2097152 bytes of UTF-8 text",
        ),
        ({"query": "a" * (2 << 20) + "a"}, "query", "Field 'query' must hold at most 2097152 bytes of UTF-8 text"),
    ],
)
def test_refusals(fields: dict[str, Any], param: str, message: str) -> None:
    envelope = _refused(**fields)
    assert envelope["param"] == param
    assert envelope["message"].startswith(message)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'"x"', b"\xff", b"[" * 100_000, b"\x81\xa1a\x01"])
def test_bodies_that_are_no_object(body: bytes) -> None:
    assert _refusal(body)["message"] == "request body must be a JSON object"


def test_the_largest_request_is_taken() -> None:
    request = _parse(documents=["a" * 20] * 1000, top_n=5000, options=None)
    assert (len(request.texts), request.top_n, request.return_documents) == (1000, 5000, False)


def test_documents_are_strings_or_have_a_text() -> None:
    documents = ["a", {"text": "b", "title": "c"}]
    request = _parse(documents=documents)
    assert (list(request.texts), list(request.documents)) == (["a", "b"], documents)


@pytest.mark.parametrize(
    ("headers", "dialect"),
    [
        ({}, Dialect.SIE),
        ({"user-agent": "python-requests/2"}, Dialect.SIE),
        ({"user-agent": "not litellm/1"}, Dialect.SIE),
        ({"x-fern-sdk-name": "other"}, Dialect.SIE),
        ({"x-fern-sdk-name": "cohere"}, Dialect.COHERE_V1),
        ({"user-agent": "litellm/1.2.3"}, Dialect.COHERE_V1),
    ],
)
def test_clients_name_themselves(headers: dict[str, str], dialect: Dialect) -> None:
    assert dialect_of(headers) is dialect


def test_what_cohere_asks_for_happens() -> None:
    documents = [{"text": "t", "title": "a", "year": 1999, "none": None}, "plain"]
    request = _parse(Dialect.COHERE_V1, documents=documents, rank_fields=["year", "title", "none", "absent"])
    assert list(request.texts) == ["1999\na", "plain"]
    assert _parse(Dialect.COHERE_V1, max_chunks_per_doc=10).max_tokens is None
    asked = {"max_tokens_per_doc": 7, "priority": 0, "relevant_spans": {"mode": "disabled"}}
    assert _parse(Dialect.COHERE_V2, **asked).max_tokens == 7
    nothing = dict.fromkeys(("top_n", "return_documents", "rank_fields", "max_tokens_per_doc", "priority"))
    assert _parse(Dialect.COHERE_V2, **nothing) == _parse()


@pytest.mark.parametrize(
    ("dialect", "fields", "param"),
    [
        (Dialect.COHERE_V1, {"max_tokens_per_doc": 7}, "max_tokens_per_doc"),
        (Dialect.COHERE_V1, {"max_chunks_per_doc": 0}, "max_chunks_per_doc"),
        (Dialect.COHERE_V1, {"rank_fields": []}, "rank_fields"),
        (Dialect.COHERE_V1, {"rank_fields": "title"}, "rank_fields"),
        (Dialect.COHERE_V1, {"rank_fields": ["title"], "documents": [{"text": "a"}]}, "documents"),
        (Dialect.COHERE_V2, {"max_tokens_per_doc": 0}, "max_tokens_per_doc"),
        (Dialect.COHERE_V2, {"priority": "high"}, "priority"),
        (Dialect.COHERE_V2, {"relevant_spans": {"mode": "enabled"}}, "relevant_spans"),
        (Dialect.COHERE_V2, {"relevant_spans": True}, "relevant_spans"),
        (Dialect.COHERE_V2, {"documnts": []}, "documnts"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(dialect: Dialect, fields: dict[str, Any], param: str) -> None:
    assert _refused(dialect, **fields)["param"] == param


def test_cohere_finds_the_message_where_it_looks() -> None:
    with pytest.raises(WireError) as refusal:
        _parse(Dialect.COHERE_V2, top_n=0)
    body = json.loads(refusal.value.cohere_body())
    assert body["message"] == body["error"]["message"] == "'top_n' must be a positive integer"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "mode"]), inner, max_size=2),
    max_leaves=6,
)
FIELDS = sorted(Dialect.COHERE_V2.value)


@given(fields=st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES), dialect=st.sampled_from(list(Dialect)))
def test_whatever_is_sent_is_understood_or_refused(fields: dict[str, Any], dialect: Dialect) -> None:
    try:
        request = _parse(dialect, **fields)
    except WireError as refusal:
        assert refusal.status == 400
    else:
        assert len(request.texts) == len(request.documents) > 0
        assert all(text.strip() for text in request.texts)
