from __future__ import annotations

import json

import pytest
from contract.recorded import sdk_answers
from sie_frontend.contract.errors import (
    ERROR_TABLE,
    ErrorKind,
    WireError,
    body_too_large,
    inference_error,
    model_load_failed,
    model_loading,
    model_not_found,
    queue_full,
    resource_exhausted,
    scoring_unsupported,
    shutting_down,
)


def test_the_table_is_complete() -> None:
    assert set(ERROR_TABLE) == set(ErrorKind)


@pytest.mark.parametrize(
    ("kind", "status", "code", "retry_after"),
    [
        (ErrorKind.INVALID_INPUT, 400, "INVALID_INPUT", None),
        (ErrorKind.INPUT_TOO_LONG, 400, "INPUT_TOO_LONG", None),
        (ErrorKind.MODEL_NOT_FOUND, 404, "MODEL_NOT_FOUND", None),
        (ErrorKind.BODY_TOO_LARGE, 413, "INPUT_TOO_LONG", None),
        (ErrorKind.INFERENCE_ERROR, 500, "INFERENCE_ERROR", None),
        (ErrorKind.MODEL_LOAD_FAILED, 502, "MODEL_LOAD_FAILED", None),
        (ErrorKind.MODEL_LOADING, 503, "MODEL_LOADING", "5"),
        (ErrorKind.MODEL_NOT_LOADED, 503, "MODEL_NOT_LOADED", None),
        (ErrorKind.LORA_LOADING, 503, "LORA_LOADING", "1"),
        (ErrorKind.QUEUE_FULL, 503, "QUEUE_FULL", "1"),
        (ErrorKind.RESOURCE_EXHAUSTED, 503, "RESOURCE_EXHAUSTED", "5"),
    ],
)
def test_contract_catalogue(kind: ErrorKind, status: int, code: str, retry_after: str | None) -> None:
    error = WireError(kind, "why", extras={"more": 1})
    assert error.status == status
    assert error.headers().get("retry-after") == retry_after
    assert error.headers()["content-type"] == "application/json"
    assert json.loads(error.body()) == {"detail": {"code": code, "message": "why", "more": 1}}


@pytest.mark.parametrize(
    ("kind", "status", "kind_of_error", "code"),
    [
        (ErrorKind.MODEL_NOT_FOUND, 404, "invalid_request_error", "model_not_found"),
        (ErrorKind.INVALID_INPUT, 400, "invalid_request_error", "invalid_request"),
        (ErrorKind.MODEL_LOADING, 503, "server_error", "MODEL_LOADING"),
        (ErrorKind.QUEUE_FULL, 503, "server_overloaded", "QUEUE_FULL"),
        (ErrorKind.INFERENCE_ERROR, 500, "server_error", "INFERENCE_ERROR"),
    ],
)
def test_openai_envelope(kind: ErrorKind, status: int, kind_of_error: str, code: str) -> None:
    error = WireError(kind, "why", param="input")
    assert error.status == status
    expected = {"message": "why", "type": kind_of_error, "param": "input", "code": code}
    assert json.loads(error.openai_body()) == {"error": expected}


def test_framework_bodies() -> None:
    assert WireError(ErrorKind.ROUTE_NOT_FOUND, "Not Found").body() == b'{"detail":"Not Found"}'
    refused = WireError(ErrorKind.METHOD_NOT_ALLOWED, "Method Not Allowed")
    assert (refused.status, refused.body()) == (405, b'{"detail":"Method Not Allowed"}')
    mistakes = WireError(ErrorKind.UNPROCESSABLE, "schema", detail=[{"loc": ["body"]}])
    assert (mistakes.status, mistakes.body()) == (422, b'{"detail":[{"loc":["body"]}]}')
    assert mistakes.openai_body() == mistakes.body()


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("503_shutdown", shutting_down()),
        ("502_model_load_failed", model_load_failed("m", "x", error_class="GATED", attempts=1, permanent=True)),
        ("503_resource_exhausted_then_ok", resource_exhausted("oom")),
    ],
)
def test_bodies_that_the_sdk_understands(name: str, error: WireError) -> None:
    recorded = sdk_answers()[f"ERR {name}"]
    assert json.loads(error.body()) == json.loads(recorded.body)
    assert recorded.status == error.status


def test_messages() -> None:
    assert model_loading("m").message == "Model 'm' is loading, please retry"
    assert inference_error("scoring").message == "internal error during scoring"
    assert body_too_large(7).message == "request body exceeds the limit of 7 bytes"
    assert queue_full("m").headers()["retry-after"] == "1"
    assert scoring_unsupported("m").message == (
        "Model 'm' does not support scoring. Use an encoder model with /v1/encode instead, or use a reranker model."
    )


def test_suggestions_are_three_at_most_and_nearest_first() -> None:
    known = ["a/model-1", "a/model-2", "A/MODEL-X", "a/model-x:half", "unlike"]
    message = model_not_found("a/model-x", known).message
    assert message.startswith("Model 'a/model-x' not found Did you mean 'A/MODEL-X', ")
    assert message.count("', '") == 2
    assert model_not_found("zzz", known).message == "Model 'zzz' not found"


def test_what_has_no_utf8_form_is_still_answered() -> None:
    assert json.loads(model_not_found("\ud800", []).body())["detail"]["message"] == "Model '\ud800' not found"
    assert json.loads(WireError(ErrorKind.UNPROCESSABLE, "", detail=[{"input": 1 << 70}]).body()) == {
        "detail": [{"input": 1 << 70}]
    }
