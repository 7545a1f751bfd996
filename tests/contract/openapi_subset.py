"""The part of OpenAPI 3.1 that our document may use, as a JSON Schema that lets nothing else pass.

Written from the specification: https://spec.openapis.org/oas/v3.1.0.
"""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string", "minLength": 1}
_SCHEMA = {"type": ["object", "boolean"]}


def _object(needed: dict[str, Any], /, **optional: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": sorted(needed),
        "properties": {**needed, **optional},
        "additionalProperties": False,
    }


def _map(members: Any, names: str = ".+") -> dict[str, Any]:
    return {"type": "object", "patternProperties": {f"^{names}$": members}, "additionalProperties": False}


_HEADER = _object({"schema": _SCHEMA}, description=_TEXT)
_MEDIA = _object({}, schema=_SCHEMA, example={}, examples=_map(_object({"value": {}})))
_CONTENT = _map(_MEDIA, r"(\*/\*|[a-z]+/[a-z.+-]+(; [a-z]+=[^;]+)*)")
_RESPONSE = _object({"description": _TEXT}, headers=_map(_HEADER, "[a-z-]+"), content=_CONTENT)
_REFERENCE = _object({"$ref": {"type": "string", "pattern": "^#/components/parameters/[A-Za-z0-9._-]+$"}})
_OPERATION = _object(
    {
        "operationId": _TEXT,
        "tags": {"type": "array", "items": _TEXT, "minItems": 1},
        "summary": _TEXT,
        "description": _TEXT,
        "responses": {**_map(_RESPONSE, "[1-5][0-9][0-9]"), "minProperties": 1},
    },
    parameters={"type": "array", "items": _REFERENCE, "uniqueItems": True},
    requestBody=_object({"content": _CONTENT}, required={"type": "boolean"}),
    security={"type": "array", "items": _map({"type": "array", "items": _TEXT}), "minItems": 1},
)
_NAME = "[A-Za-z0-9._-]+"
_PATH_PARAMETER = _object(
    {"name": _TEXT, "in": {"const": "path"}, "required": {"const": True}, "schema": _SCHEMA}, description=_TEXT
)
_HEADER_PARAMETER = _object({"name": _TEXT, "in": {"const": "header"}, "schema": _SCHEMA}, description=_TEXT)

SUBSET: dict[str, Any] = _object(
    {
        "openapi": {"const": "3.1.0"},
        "info": _object({"title": _TEXT, "version": _TEXT}, description=_TEXT),
        "paths": _map(_map(_OPERATION, "(get|post)"), "/.*"),
        "components": _object(
            {
                "schemas": _map(_SCHEMA, _NAME),
                "parameters": _map({"oneOf": [_PATH_PARAMETER, _HEADER_PARAMETER]}, _NAME),
            },
            securitySchemes=_map(_object({"type": {"const": "http"}, "scheme": {"const": "bearer"}}), _NAME),
        ),
    },
    servers={"type": "array", "items": _object({"url": _TEXT})},
    tags={"type": "array", "items": _object({"name": _TEXT})},
)
