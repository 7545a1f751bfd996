"""The OpenAPI 3.1 document of what is served, made from the types that requests are decoded to and from the tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from sie_frontend.contract import errors
from sie_frontend.contract.errors import ERROR_TABLE, ErrorKind, WireError
from sie_frontend.contract.negotiation import WireFormat
from sie_frontend.contract.requests import MAX_CANDIDATES, MAX_ITEM_TEXT_BYTES
from sie_frontend.contract.responses import CONTRACT_VERSION, Timing, success_headers
from sie_frontend.http.api_reference import shapes
from sie_frontend.http.api_reference.narrowing import narrow
from sie_frontend.http.api_reference.operations import JSON, OPERATIONS, Operation
from sie_frontend.http.dialects.openai import MAX_INPUTS, SUCCESS_HEADERS
from sie_frontend.settings import Settings

Schema: TypeAlias = dict[str, Any]

_REFERENCE: Final = "#/components/schemas/{name}"

_ABOUT: Final = """\
SIE's HTTP contract in front of NVIDIA Triton: text to vectors, and rankings.

`{{model}}` is an id of `/v1/models`, exact and case-sensitive. It may hold slashes and a colon, which need no escape.
{key} Errors are JSON whatever a client accepts. A path that is not served is a 404, and a method that a
path lacks a 405; both say `{{"detail": "…"}}`.

A body may have {body} bytes; an item {item} bytes of text, with its metadata; a request {items} items to encode or to
score, {candidates} documents to rank, or {inputs} texts on `/v1/embeddings`.
"""

_ASK_FOR_KEYS: Final = ("/v1/", "/v2/", "/metrics", "/admin/")
_OF_KEYS: Final = (ErrorKind.UNAUTHORIZED, ErrorKind.FORBIDDEN, ErrorKind.RATE_LIMITED)

REQUEST_HEADERS: Final[Mapping[str, str]] = {
    "X-SIE-Machine-Profile": "must be the profile of this machine, where it is there; case does not count",
    "X-SIE-Remote": "`forbid`, where it is there: nothing is answered from elsewhere",
    "X-Request-ID": "1 to 128 visible ASCII characters; comes back as `X-SIE-Request-ID`, and is in the log",
}
"""What a header of a request asks for, beside those of the format."""

RESPONSE_HEADERS: Final[Mapping[str, str]] = {
    "x-sie-server-version": "the version of the contract",
    "x-queue-time": "milliseconds that the items waited for their runs",
    "x-tokenization-time": "milliseconds that texts took to become tokens",
    "x-inference-time": "milliseconds from the first run to the last answer",
    "x-total-time": "milliseconds from the parsed request to its answer",
    "x-postprocessing-time": "milliseconds that outputs took to become others; left out where there was nothing to do",
    "x-sie-served-by": "`local`",
    "x-sie-runtime-instance": "64 hexadecimal digits, the same for the life of the process",
    "x-sie-request-id": "the request's `X-Request-ID`",
    "x-sie-model-version": "the Triton models that answered, for an id that had others before",
    "x-trace-id": "the trace, where the request is traced",
}
"""What a header of an answer says, by its name."""

_OTHER_HEADERS: Final[Mapping[str, str]] = {
    "location": "where to",
    "www-authenticate": "`Bearer`, and what the key lacked",
}

# Beside what the types say: what their fields mean.
_MEANINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "Item": {
        "id": "comes back with the item; items to score are called `item-{index}` without one",
        "text": "the text, which may be empty",
        "images": "pictures, which win over the text; a model without image input leaves them unread",
        "audio": "no model here takes it",
        "video": "no model here takes it",
        "document": "no model here takes it",
        "metadata": "not read, and counted with the text",
    },
    "Image": {
        "data": "the bytes of a picture's file; needed where it is read",
        "format": "not read: the bytes tell it",
    },
    "EncodeParams": {
        "output_types": "what to answer with; `dense` where it is null",
        "instruction": "what stands before the text, or in its template",
        "output_dtype": "what the numbers are narrowed to; float32 where it is null or empty",
    },
    "ScoreRequest": {"instruction": "what stands before the query, or in the model's prompt"},
    "Timing": {
        "total_ms": "from the parsed request to its answer",
        "queue_ms": "the wait of the items for their runs",
        "tokenization_ms": "from texts to tokens",
        "inference_ms": "from the first run to the last answer",
        "postprocessing_ms": "from outputs to other outputs; null where there was nothing to do",
    },
    "ScoreEntry": {"item_id": "the item's id, or `item-{index}`", "rank": "from 0"},
}


def document(settings: Settings | None = None) -> Schema:
    """The document of an application with these settings, by default the defaults."""
    settings = settings or Settings()
    about = _ABOUT.format(
        key="A key is needed: `Authorization: Bearer KEY`." if settings.keyed else "No key is checked.",
        body=settings.max_body_bytes,
        item=MAX_ITEM_TEXT_BYTES,
        items=settings.max_items,
        candidates=MAX_CANDIDATES,
        inputs=MAX_INPUTS,
    )
    components: Schema = {"schemas": _schemas(settings), "parameters": _parameters(settings)}
    if settings.keyed:
        components["securitySchemes"] = {"Key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "sie-triton", "version": CONTRACT_VERSION, "description": about},
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in OPERATIONS.values())],
        "paths": {
            path: {operation.method: _operation(path, operation, settings)} for path, operation in OPERATIONS.items()
        },
        "components": components,
    }


def _operation(path: str, operation: Operation, settings: Settings) -> Schema:
    found: Schema = {
        "operationId": _id(path, operation),
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.text,
    }
    parameters = ["Model"] if "{model}" in path else []
    if operation.traced:
        parameters += list(REQUEST_HEADERS)
    if parameters:
        found["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in parameters]
    if operation.body is not None:
        media = {"schema": _reference(operation.body), "example": operation.example}
        found["requestBody"] = {"required": True, "content": dict.fromkeys(operation.body_media, media)}
    elif operation.traced:
        found["requestBody"] = {"content": {"*/*": {}}}
    kinds = list(operation.refusals)
    if settings.keyed and path.startswith(_ASK_FOR_KEYS):
        kinds += _OF_KEYS
        found["security"] = [{"Key": []}]
    found["responses"] = {**_answers(operation), **_refusals(operation, kinds, settings)}
    return found


def _id(path: str, operation: Operation) -> str:
    words = "".join(character if character.isalnum() else " " for character in path).split()
    return "_".join([operation.method, *words])


def _answers(operation: Operation) -> Schema:
    answers = {str(status): {"description": text} for status, text in operation.also.items()}
    if operation.status is None:
        return answers
    answer: Schema = {"description": operation.summary}
    if headers := {name: _header(name) for name in _header_names(operation)}:
        answer["headers"] = headers
    if operation.answer_media:
        schema = {"schema": _reference(operation.answer)} if operation.answer else {}
        answer["content"] = dict.fromkeys(operation.answer_media, schema)
    return {str(operation.status): answer, **answers}


def _header_names(operation: Operation) -> list[str]:
    names: list[str] = []
    if operation.times:
        timing = Timing(1.0, 1.0, 1.0, 1.0, 1.0)
        names += success_headers(timing, wire_format=WireFormat.JSON, runtime_instance="")
    elif operation.traced and operation.status == 200:
        names += SUCCESS_HEADERS
    if operation.traced:
        names += ["x-sie-request-id", "x-trace-id"]
    return ["location"] if operation.status == 307 else [name for name in names if name != "content-type"]


def _header(name: str) -> Schema:
    return {"description": _OTHER_HEADERS.get(name) or RESPONSE_HEADERS[name], "schema": {"type": "string"}}


def _refusals(operation: Operation, refused: Iterable[ErrorKind], settings: Settings) -> Schema:
    by_status: dict[int, list[ErrorKind]] = {}
    for kind in refused:
        by_status.setdefault(ERROR_TABLE[kind].status, []).append(kind)
    return {str(status): _refusal(operation, kinds, settings) for status, kinds in sorted(by_status.items())}


def _refusal(operation: Operation, kinds: Iterable[ErrorKind], settings: Settings) -> Schema:
    kinds = list(kinds)
    codes = [
        f"`{ERROR_TABLE[kind].code}`" if ERROR_TABLE[kind].code else f"`{kind.value}`, without a code" for kind in kinds
    ]
    types = list(dict.fromkeys(_shape(operation, kind) for kind in kinds))
    schemas = [_reference(kind) for kind in types]
    refusal: Schema = {"description": ", ".join(codes)}
    if any(ERROR_TABLE[kind].retry_after for kind in kinds):
        said = "seconds to wait before the same request is sent again; what has none is final"
        refusal["headers"] = {"retry-after": {"description": said, "schema": {"type": "integer"}}}
    if any(kind in (ErrorKind.UNAUTHORIZED, ErrorKind.FORBIDDEN) for kind in kinds):
        refusal["headers"] = {"www-authenticate": _header("www-authenticate")}
    refusal["content"] = {
        JSON: {
            "schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas},
            "examples": {kind.value: {"value": _example(operation, kind, settings)} for kind in kinds},
        }
    }
    return refusal


def _shape(operation: Operation, kind: ErrorKind) -> type:
    framework = {ErrorKind.SHUTTING_DOWN: shapes.Leaving, ErrorKind.UNPROCESSABLE: shapes.Unprocessable}
    return framework.get(kind, operation.refused)


def _example(operation: Operation, kind: ErrorKind, settings: Settings) -> Any:
    error = _sample(kind, settings)
    if operation.refused is shapes.OpenAIRefused:
        return json.loads(error.openai_body())
    return json.loads(error.cohere_body() if operation.refused is shapes.CohereRefused else error.body())


def _sample(kind: ErrorKind, settings: Settings) -> WireError:
    model = "acme/small"
    missing = {"type": "missing", "loc": ["body", "model"], "msg": "Field required", "input": {}}
    samples = {
        ErrorKind.INVALID_INPUT: errors.invalid_input("Field 'items' must not be empty"),
        ErrorKind.INPUT_TOO_LONG: WireError(ErrorKind.INPUT_TOO_LONG, "a pair of 600 tokens exceeds the limit of 512"),
        ErrorKind.BODY_TOO_LARGE: errors.body_too_large(settings.max_body_bytes),
        ErrorKind.BODY_TOO_SLOW: errors.body_too_slow(settings.body_timeout_s),
        ErrorKind.REQUEST_TOO_SLOW: errors.request_too_slow(settings.request_timeout_s),
        ErrorKind.MODEL_NOT_FOUND: errors.model_not_found(model, ()),
        ErrorKind.UNPROCESSABLE: WireError(ErrorKind.UNPROCESSABLE, "", detail=[missing]),
        ErrorKind.INFERENCE_ERROR: errors.inference_error("encoding"),
        ErrorKind.MODEL_LOADING: errors.model_loading(model),
        ErrorKind.QUEUE_FULL: errors.queue_full(model),
        ErrorKind.RESOURCE_EXHAUSTED: errors.resource_exhausted(f"Triton ran out of memory on '{model}'"),
        ErrorKind.SHUTTING_DOWN: errors.shutting_down(),
        ErrorKind.UNAUTHORIZED: WireError(ErrorKind.UNAUTHORIZED, "The API key is not known here, or no longer"),
        ErrorKind.FORBIDDEN: WireError(ErrorKind.FORBIDDEN, f"This key is not for model '{model}'"),
        ErrorKind.RATE_LIMITED: WireError(
            ErrorKind.RATE_LIMITED, "This key may make 60 requests a minute; retry after 7 s"
        ),
    }
    return samples[kind]


def _parameters(settings: Settings) -> Schema:
    model = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
    profile = settings.machine_profile or ""
    values = {"X-SIE-Remote": ["forbid"], "X-SIE-Machine-Profile": [profile]}
    headers = {
        name: {
            "name": name,
            "in": "header",
            "description": meaning,
            "schema": {"type": "string", **({"enum": values[name]} if name in values else {})},
        }
        for name, meaning in REQUEST_HEADERS.items()
    }
    return {"Model": {**model, "description": "an id of `/v1/models`"}, **headers}


def _reference(kind: type) -> Schema:
    return {"$ref": _REFERENCE.format(name=kind.__name__)}


def _schemas(settings: Settings) -> Schema:
    types: dict[type, None] = {shapes.EncodeOptions: None, shapes.ScoreOptions: None}
    for operation in OPERATIONS.values():
        types |= dict.fromkeys(kind for kind in (operation.body, operation.answer) if kind is not None)
        types |= dict.fromkeys(_shape(operation, kind) for kind in operation.refusals)
    _, schemas = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    for name, meanings in _MEANINGS.items():
        for member, meaning in meanings.items():
            schemas[name]["properties"][member]["description"] = meaning
    narrow(schemas, settings)
    return dict(sorted(schemas.items()))
