"""The tables of `docs/http-api.md`, from the code that answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, TypeAlias

import numpy as np
from sie_frontend.contract.dtypes import OUTPUT_DTYPES, OutputDtype, dtype_label, quantize_vectors, quantize_weights
from sie_frontend.contract.errors import ERROR_TABLE, ErrorKind
from sie_frontend.contract.ndarray import DTYPES
from sie_frontend.contract.requests import MAX_CANDIDATES, MAX_ITEM_TEXT_BYTES
from sie_frontend.http.api_reference.document import REQUEST_HEADERS, RESPONSE_HEADERS, document
from sie_frontend.http.api_reference.operations import OPERATIONS
from sie_frontend.http.dialects.openai import MAX_INPUTS
from sie_frontend.http.heads import HEAD_S, MAX_HEAD_BYTES
from sie_frontend.http.limits import MAX_PIPELINED
from sie_frontend.setting_values import Setting
from sie_frontend.settings import known_settings

from sie_triton.pages.markdown import code, listed, table

Schema: TypeAlias = Mapping[str, Any]

# What becomes of a number x of a vector; `m` is the vector's largest magnitude, `a` and `b` are its least and largest.
_NARROWED: Final[Mapping[OutputDtype, str]] = {
    "float32": "as the model gave them",
    "float16": "rounded to half precision",
    "int8": "`x / m × 127`, rounded; `m` is the vector's largest magnitude",
    "uint8": "`(x - a) / (b - a) × 255`, rounded; `a` and `b` are the vector's least and largest number",
    "binary": "one bit each, 1 where `x > 0`, eight to a byte, the first one highest",
    "ubinary": "as `binary`",
}

_MEANINGS: Final[Mapping[ErrorKind, str]] = {
    ErrorKind.INVALID_INPUT: "the request is wrong; the message names the field",
    ErrorKind.INPUT_TOO_LONG: "a text to score that the model's prompt does not let be cut",
    ErrorKind.BODY_TOO_LARGE: "the body is too large",
    ErrorKind.BODY_TOO_SLOW: "the body did not arrive in time",
    ErrorKind.REQUEST_TOO_SLOW: "the answer was not there in time; sent again as it is, it would be late again",
    ErrorKind.MODEL_NOT_FOUND: "no such id; the message names up to three that look alike",
    ErrorKind.ROUTE_NOT_FOUND: "no such route; `detail` says which there are, and near to one, as `/embeddings` is, "
    "`error` says in OpenAI's shape what to change",
    ErrorKind.METHOD_NOT_ALLOWED: "the route has another method; `Allow` names it",
    ErrorKind.UNPROCESSABLE: "a body that does not fit OpenAI's schema; `detail` lists every mistake",
    ErrorKind.INFERENCE_ERROR: "the model failed, or its numbers are not finite",
    ErrorKind.MODEL_LOAD_FAILED: "never said here: part of SIE's contract",
    ErrorKind.MODEL_LOADING: "no Triton answers for the model yet",
    ErrorKind.MODEL_NOT_LOADED: "never said here: part of SIE's contract",
    ErrorKind.LORA_LOADING: "never said here: part of SIE's contract",
    ErrorKind.QUEUE_FULL: "more is waiting than is admitted",
    ErrorKind.RESOURCE_EXHAUSTED: "Triton ran out of memory on this request, or decoding its images did",
    ErrorKind.SHUTTING_DOWN: "this process ends; ask another one",
    ErrorKind.UNAUTHORIZED: "a key is needed, and none came or one that is not known; `WWW-Authenticate` says which",
    ErrorKind.FORBIDDEN: "the key is not for this route, or not for this model",
    ErrorKind.RATE_LIMITED: "the key's requests or tokens of a minute are used up, or its requests at once",
}


def routes() -> str:
    """Every route with what it does."""
    rows = [(code(f"{one.method.upper()} {path}"), one.summary) for path, one in OPERATIONS.items()]
    return table(("Route", "Does"), rows)


def fields(name: str, *, without: str = "") -> str:
    """The fields of a body, by the name of its schema; `without` those of another."""
    schemas = _schemas()
    known = schemas[without]["properties"] if without else {}
    rows = [
        (
            code(member),
            _kind(schema),
            "yes" if member in schemas[name].get("required", ()) else "",
            _sentence(schema.get("description", "")),
        )
        for member, schema in schemas[name]["properties"].items()
        if member not in known
    ]
    return table(("Field", "Type", "Required", "Means"), rows)


@cache
def _schemas() -> Mapping[str, Schema]:
    schemas: Mapping[str, Schema] = document()["components"]["schemas"]
    return schemas


def dtypes() -> str:
    """The output dtypes with what they make of numbers, and how they travel."""
    return table(
        ("`output_dtype`", "Dense and token vectors", "Their array", "Label", "Sparse weights"),
        map(_dtype, OUTPUT_DTYPES),
    )


def _dtype(name: OutputDtype) -> tuple[str, ...]:
    vector = np.linspace(-1, 1, 16, dtype=np.float32)
    narrow = quantize_vectors(vector, name)
    weights = quantize_weights(vector, name)
    label = dtype_label(narrow, len(vector))
    return code(name), _NARROWED[name], code(narrow.dtype.str), code(label), code(weights.dtype.str)


def array_dtypes() -> str:
    """The dtypes that an array may have: those of one byte, and those that have a byte order."""
    single = sorted(name for name in DTYPES if name.startswith("|"))
    sized = sorted({name[1:] for name in DTYPES if not name.startswith("|")})
    return f"{listed(single)}, or {listed(sized)} behind `<` (little-endian) or `>` (big-endian)"


def errors() -> str:
    """The table of errors."""
    rows = [
        (
            str(row.status),
            code(row.code) if row.code else "",
            code(row.openai_code) if row.code else "",
            str(row.retry_after or ""),
            _sentence(_MEANINGS[kind]),
        )
        for kind, row in sorted(ERROR_TABLE.items(), key=lambda entry: entry[1].status)
    ]
    return table(("Status", "Code", "OpenAI's code", "Retry-After", "Means"), rows)


def limits() -> str:
    """What a request may hold, and which settings decide."""
    settings = {setting.name: setting for setting in known_settings()}
    rows = [
        ("bytes of a body", *_limit(settings["max_body_bytes"]), "413"),
        ("bytes of the request line and headers", str(MAX_HEAD_BYTES), "", "431"),
        ("seconds until they have come", f"{HEAD_S:g}", "", "the connection is closed"),
        ("seconds until the body has come", *_limit(settings["body_timeout_s"]), "408"),
        ("seconds until the answer, from the end of the head", *_limit(settings["request_timeout_s"]), "408"),
        (
            "seconds until the answer is taken",
            *_limit(settings["answer_timeout_s"]),
            "the connection is closed",
        ),
        (
            "requests of a connection behind one that is not answered",
            str(MAX_PIPELINED),
            "",
            "the connection is closed behind their answers",
        ),
        ("items to encode or to score", *_limit(settings["max_items"]), "400"),
        ("items waiting in the process", *_limit(settings["pending_items"]), "503"),
        ("images of a request", *_limit(settings["max_images"]), "400"),
        ("images of an item", *_limit(settings["max_item_images"]), "400"),
        ("bytes of an encoded image", *_limit(settings["max_image_bytes"]), "400"),
        ("pixels of an image", *_limit(settings["max_image_pixels"]), "400"),
        ("images waiting in the process", *_limit(settings["pending_images"]), "503"),
        ("documents to rank", str(MAX_CANDIDATES), "", "400"),
        ("texts on `/v1/embeddings`", str(MAX_INPUTS), "", "400"),
        ("UTF-8 bytes of an item's text and metadata", str(MAX_ITEM_TEXT_BYTES), "", "400"),
    ]
    return table(("At most", "Default", "Setting", "Beyond it"), rows)


def _limit(setting: Setting) -> tuple[str, str]:
    return setting.default_text, code(setting.variable)


def request_headers() -> str:
    """The headers of a request that count, beside those of the format."""
    return _headers(REQUEST_HEADERS)


def response_headers() -> str:
    """The headers of an answer."""
    return _headers(RESPONSE_HEADERS)


def _headers(meanings: Mapping[str, str]) -> str:
    return table(("Header", "Says"), ((code(name), _sentence(text)) for name, text in meanings.items()))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""


def _kind(schema: Schema) -> str:
    """A schema in a few words."""
    if reference := schema.get("$ref"):
        return f"{code(reference.rpartition('/')[2])}"
    if alternatives := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(map(_kind, alternatives)))
    if choices := schema.get("enum"):
        return ", ".join("empty" if choice == "" else code(json.dumps(choice).strip('"')) for choice in choices)
    kind = schema.get("type", "anything")
    if kind == "array":
        inner = _kind(schema.get("items", {}))
        return f"array of ({inner})" if " or " in inner or "," in inner else f"array of {inner}"
    if "contentEncoding" in schema:
        return "bytes, or base64 in JSON"
    return str(kind)
