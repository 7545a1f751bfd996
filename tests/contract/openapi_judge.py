"""Holding bodies against the OpenAPI document."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from functools import cache
from typing import Any

import msgpack
from jsonschema import Draft202012Validator
from sie_frontend.http.api_reference.document import document

DOCUMENT = document()


def operation_of(path: str) -> str | None:
    """The document's path that a request's path is one of."""
    for known in DOCUMENT["paths"]:
        if re.fullmatch(re.escape(known).replace(r"\{model\}", ".*"), path):
            return str(known)
    return None


@cache
def validator(name: str, *, closed: bool = False) -> Draft202012Validator:
    """Of a schema by its name; `closed` lets no field pass that it does not list."""
    components = json.loads(json.dumps(DOCUMENT["components"]))
    if closed:
        for schema in components["schemas"].values():
            schema.setdefault("additionalProperties", False)
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": components})


def mistakes(body: Any, schema: dict[str, Any], *, closed: bool = False) -> list[str]:
    """What of a decoded body is not what a schema of the document says."""
    names = [entry["$ref"].rpartition("/")[2] for entry in schema.get("anyOf", [schema])]
    found = [[error.message for error in validator(name, closed=closed).iter_errors(body)] for name in names]
    return min(found, key=len)


def decoded(body: bytes, content_type: str) -> Any:
    """A body as JSON would say it: msgpack's binary values in base64, and the keys of an array as text."""
    return in_json(msgpack.unpackb(body, strict_map_key=False)) if "msgpack" in content_type else json.loads(body)


def in_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key.decode() if isinstance(key, bytes) else key: in_json(member) for key, member in value.items()}
    if isinstance(value, list):
        return [in_json(member) for member in value]
    return b64encode(value).decode() if isinstance(value, bytes) else value


def answer_mistakes(path: str, method: str, status: int, content_type: str, body: bytes) -> list[str]:
    operation = operation_of(path)
    assert operation is not None, path
    answer = DOCUMENT["paths"][operation][method.lower()]["responses"][str(status)]
    media = answer["content"][content_type]
    extras_are_told = status >= 400
    return mistakes(decoded(body, content_type), media["schema"], closed=not extras_are_told)
