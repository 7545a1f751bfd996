"""The OpenAPI document and its page: they are whole, and recorded requests and answers are what they say."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import pytest
from jsonschema import Draft202012Validator
from sie_frontend.contract.requests import parse_encode, parse_score
from sie_frontend.http.api_reference.document import document
from sie_frontend.http.api_reference.operations import OPERATIONS
from sie_frontend.http.api_reference.page import page
from sie_frontend.http.dialects.openai import parse_embeddings
from sie_frontend.http.dialects.rerank import Dialect, parse_rerank
from sie_frontend.settings import Settings

from contract.openapi_judge import DOCUMENT, answer_mistakes, decoded, mistakes, operation_of
from contract.openapi_subset import SUBSET
from contract.recorded import Exchange, exchanges, sdk_requests

# Refused for what no schema tells: what a model has and can do, headers, bytes where text is due, broken spellings.
FITS_AND_IS_REFUSED = {
    "encode_dense_only_ask_sparse",
    "encode_image_json_bad_b64",
    "encode_image_msgpack_str_data",
    "encode_json_lone_surrogate",
    "encode_profile_unknown_option",
    "encode_remote_bad",
    "encode_sparse_only_default_types",
    "encode_text_bin",
    "oai_nonjson",
    "oai_sparse_only",
    "score_query_no_text",
}

PARSERS: Mapping[str, Callable[[bytes], object]] = {
    "/v1/encode/{model}": lambda body: parse_encode(body, "application/json"),
    "/v1/score/{model}": lambda body: parse_score(body, "application/json"),
    "/v1/embeddings": lambda body: parse_embeddings(body, "application/json"),
    "/v1/rerank": lambda body: parse_rerank(body, Dialect.SIE),
    "/v2/rerank": lambda body: parse_rerank(body, Dialect.COHERE_V2),
}

# Models that fail to load: those that are built do not.
NEVER_ANSWERED_HERE = {"encode_load_failed_second", "oai_load_failed"}


# The document


def test_the_document_is_openapi() -> None:
    assert [error.message for error in Draft202012Validator(SUBSET).iter_errors(DOCUMENT)] == []
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
        assert schema["title"] and schema["description"]


def test_the_judge_of_documents_is_strict() -> None:
    for path, wrong in (
        (("openapi",), "3.0.0"),
        (("paths", "/livez", "get", "responses", "200", "summary"), "no such field"),
        (("paths", "/livez", "get", "operationId"), 5),
        (("components", "parameters", "Model", "required"), False),
    ):
        changed: Any = json.loads(json.dumps(DOCUMENT))
        place = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = wrong
        assert list(Draft202012Validator(SUBSET).iter_errors(changed)), path


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    references = set(re.findall(r'"\$ref": "#/components/(\w+)/([^"]+)"', json.dumps(DOCUMENT)))
    known = {(kind, name) for kind, members in DOCUMENT["components"].items() for name in members}
    assert references == known
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            named = {parameter["$ref"].rpartition("/")[2] for parameter in operation.get("parameters", ())}
            assert ("Model" in named) == ("{model}" in path)
    ids = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))


def test_the_limits_are_those_of_the_settings() -> None:
    changed = document(Settings(max_items=7, max_body_bytes=4711))
    assert changed["components"]["schemas"]["EncodeRequest"]["properties"]["items"]["maxItems"] == 7
    assert "4711 bytes" in changed["info"]["description"]
    assert "request body exceeds the limit of 4711 bytes" in json.dumps(changed)


def test_a_server_with_keys_says_so_and_what_it_refuses() -> None:
    keyed = document(Settings(api_keys="search sha256:" + "0" * 64))
    assert [error.message for error in Draft202012Validator(SUBSET).iter_errors(keyed)] == []
    assert set(keyed["components"]["securitySchemes"]) == {"Key"}
    open_to_all = {"/livez", "/readyz", "/healthz", "/openapi.json", "/docs", "/"}
    for path, methods in keyed["paths"].items():
        for operation in methods.values():
            assert ("security" in operation) == (path not in open_to_all)
            assert ({"401", "403", "429"} <= operation["responses"].keys()) == (path not in open_to_all)
            for answer in operation["responses"].values():
                media = answer.get("content", {}).get("application/json", {})
                for example in media.get("examples", {}).values():
                    assert mistakes(example["value"], media["schema"], closed=True) == []
    assert "security" not in json.dumps(DOCUMENT)


@pytest.mark.parametrize("path", [path for path, operation in OPERATIONS.items() if operation.body])
def test_the_examples_are_requests(path: str) -> None:
    operation = DOCUMENT["paths"][path]["post"]
    for media in operation["requestBody"]["content"].values():
        assert mistakes(media["example"], media["schema"], closed=True) == []
    PARSERS[path](json.dumps(OPERATIONS[path].example).encode())


def test_the_examples_of_refusals_fit_their_schemas() -> None:
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            for answer in operation["responses"].values():
                media = answer.get("content", {}).get("application/json", {})
                for example in media.get("examples", {}).values():
                    assert mistakes(example["value"], media["schema"], closed=True) == []


@pytest.mark.parametrize(("name", "dialect"), [("RerankBody", Dialect.COHERE_V1), ("RerankV2Body", Dialect.COHERE_V2)])
def test_the_fields_of_a_rerank_are_those_of_its_dialect(name: str, dialect: Dialect) -> None:
    assert DOCUMENT["components"]["schemas"][name]["properties"].keys() == dialect.value
    assert DOCUMENT["components"]["schemas"][name]["additionalProperties"] is False


# Recorded bodies


def _documented(exchange: Exchange) -> bool:
    return operation_of(exchange.path) is not None and bool(exchange.response_body)


ANSWERED = sorted(
    name
    for name, exchange in exchanges().items()
    if _documented(exchange) and "text/plain" not in exchange.response_headers["content-type"]
    if name not in NEVER_ANSWERED_HERE
)
ASKED = sorted(name for name, exchange in exchanges().items() if _documented(exchange) and exchange.method == "POST")


@pytest.mark.parametrize("name", ANSWERED)
def test_recorded_answers_are_what_the_document_says(name: str) -> None:
    exchange = exchanges()[name]
    content_type = exchange.response_headers["content-type"]
    found = answer_mistakes(exchange.path, exchange.method, exchange.status, content_type, exchange.response_body)
    if exchange.path.startswith("/v1/models") and exchange.status == 200:
        # What we say beside it: the certificate, and OpenAI's list.
        beside = ("'certificate' is a required property", "'object' is a required", "'data' is a required")
        found = [mistake for mistake in found if not mistake.startswith(beside)]
    assert found == []


@pytest.mark.parametrize("name", sorted(NEVER_ANSWERED_HERE))
def test_what_is_never_answered_is_not_documented(name: str) -> None:
    exchange = exchanges()[name]
    operation = operation_of(exchange.path)
    assert operation is not None
    assert str(exchange.status) not in DOCUMENT["paths"][operation]["post"]["responses"]


def test_recorded_requests_fit_where_they_were_answered_and_only_there() -> None:
    refused_and_fit = set()
    for name in ASKED:
        exchange = exchanges()[name]
        fits = _fits(exchange)
        if exchange.status == 200:
            assert fits, name
        elif exchange.status in (400, 422) and fits:
            refused_and_fit.add(name)
    assert refused_and_fit == FITS_AND_IS_REFUSED


def _fits(exchange: Exchange) -> bool:
    operation = operation_of(exchange.path)
    assert operation is not None
    content_type = exchange.request_headers.get("content-type", "application/json")
    try:
        body = decoded(exchange.request_body, content_type)
    except (ValueError, msgpack.UnpackException):
        return False
    media = "application/json" if "msgpack" not in content_type else "application/msgpack"
    content = DOCUMENT["paths"][operation]["post"]["requestBody"]["content"]
    return mistakes(body, content[media]["schema"]) == []


@pytest.mark.parametrize("name", sorted(name for name, sent in sdk_requests().items() if sent.body))
def test_what_clients_send_is_what_the_document_says(name: str) -> None:
    sent = sdk_requests()[name]
    operation = operation_of(sent.path)
    assert operation is not None
    media = DOCUMENT["paths"][operation][sent.method.lower()]["requestBody"]["content"][sent.headers["content-type"]]
    assert mistakes(decoded(sent.body, sent.headers["content-type"]), media["schema"]) == []


# The page


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    text = page(DOCUMENT)
    root = ET.fromstring(text.partition("\n")[2])
    assert {element.tag for element in root.iter()} & {"script", "link", "img", "iframe", "form"} == set()
    assert "@import" not in text and "url(" not in text
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    links = [element.get("href") for element in root.iter("a")]
    assert len(ids) == len(set(ids))
    assert {link for link in links if link and not link.startswith("#")} == {"/openapi.json"}
    assert {link[1:] for link in links if link and link.startswith("#")} <= set(ids)
    shown = " ".join(root.itertext())
    for path, methods in DOCUMENT["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in shown
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert name in ids
        assert all(member in shown for member in schema["properties"])


def test_the_page_shows_what_it_is_told_as_text() -> None:
    hostile: Any = json.loads(json.dumps(DOCUMENT))
    hostile["info"]["title"] = hostile["tags"][0]["name"] = "<b>&"
    hostile["paths"]["/livez"]["get"]["summary"] = "<script>`<i>`"
    for methods in hostile["paths"].values():
        for operation in methods.values():
            operation["tags"] = ["<b>&"]
    root = ET.fromstring(page(hostile).partition("\n")[2])
    assert {element.tag for element in root.iter()} & {"b", "i", "script"} == set()
    assert "<script><i>" in "".join(root.itertext())
