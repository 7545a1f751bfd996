"""What decoders leave to later checks, for the sake of SIE's messages, said in the schemas of the document.

Not in the types: with `Meta` on members of unions, the interpreter crashed at its end now and then (msgspec 0.22).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from sie_frontend.contract.dtypes import OUTPUT_DTYPES
from sie_frontend.contract.errors import ERROR_TABLE
from sie_frontend.contract.requests import MAX_CANDIDATES
from sie_frontend.http.dialects.openai import MAX_INPUTS
from sie_frontend.outputs.table import ENCODED_TYPES
from sie_frontend.settings import Settings

Schema: TypeAlias = dict[str, Any]

_NULL: Final = {"type": "null"}
_COUNT: Final = {"type": "integer", "minimum": 1}
# What Python's `int` makes a number from 1 up; adapters that are stricter take the whole numbers alone.
_LENGTH: Final = {"anyOf": [_COUNT, {"type": "string", "pattern": "^[1-9][0-9]{0,8}$"}, _NULL]}
# Not empty, and not of spaces alone: Python counts five controls as spaces, and the mark of byte order not.
_WORDS: Final = {"type": "string", "pattern": "[^\\s\\u001c-\\u001f\\u0085]|\\ufeff"}


def narrow(schemas: Mapping[str, Schema], settings: Settings) -> None:
    """Change the schemas, by their names, in place."""
    encode, score = (schemas[name]["properties"] for name in ("EncodeRequest", "ScoreRequest"))
    for items in (encode["items"], score["items"]):
        items |= {"minItems": 1, "maxItems": settings.max_items}
    _options(schemas)
    _embeddings(schemas["EmbeddingsBody"]["properties"])
    for body in ("RerankBody", "RerankV2Body"):
        _rerank(schemas[body])
    schemas["Detail"]["properties"]["code"]["enum"] = sorted({row.code for row in ERROR_TABLE.values() if row.code})


def _options(schemas: Mapping[str, Schema]) -> None:
    params, score = schemas["EncodeParams"]["properties"], schemas["ScoreRequest"]["properties"]
    params["output_types"]["anyOf"] = [{"type": "array", "minItems": 1, "items": {"enum": list(ENCODED_TYPES)}}, _NULL]
    params["output_dtype"]["anyOf"] = [{"enum": [*OUTPUT_DTYPES, ""]}, _NULL]
    params["options"]["anyOf"] = [{"$ref": "#/components/schemas/EncodeOptions"}, _NULL]
    score["options"]["anyOf"] = [{"$ref": "#/components/schemas/ScoreOptions"}, _NULL]
    schemas["EncodeOptions"]["properties"]["output_types"]["minItems"] = 1
    for name in ("EncodeOptions", "ScoreOptions"):
        for option in ("max_seq_length", "query_max_length"):
            schemas[name]["properties"][option] |= _LENGTH
        schemas[name]["properties"]["profile"]["anyOf"] = [_WORDS, _NULL]


def _embeddings(body: Schema) -> None:
    body["input"]["anyOf"][1] |= {"minItems": 1, "maxItems": MAX_INPUTS}
    written = {"type": "string", "pattern": "^[0-9]{1,9}$"}
    body["dimensions"]["anyOf"] = [{"type": "integer"}, {"type": "number", "multipleOf": 1}, written, _NULL]


def _rerank(schema: Schema) -> None:
    body = schema["properties"]
    # An object's text is its `text`, unless other fields of it are asked for.
    text = {"type": "object", "properties": {"text": _WORDS}, "required": ["text"]}
    schema["anyOf"] = [
        {"properties": {"documents": {"items": {"anyOf": [_WORDS, text]}}}},
        {"properties": {"rank_fields": {"type": "array"}}, "required": ["rank_fields"]},
    ]
    body["model"] |= _WORDS
    body["query"] |= _WORDS
    body["documents"] |= {"minItems": 1, "maxItems": MAX_CANDIDATES}
    body["documents"]["items"] = {"anyOf": [_WORDS, {"type": "object"}]}
    for name in {"top_n", "max_chunks_per_doc", "max_tokens_per_doc"} & body.keys():
        body[name]["anyOf"] = [_COUNT, _NULL]
    body["rank_fields"]["anyOf"] = [{"type": "array", "items": {"type": "string"}, "minItems": 1}, _NULL]
    if "relevant_spans" in body:
        no_spans = {"type": "object", "properties": {"mode": {"enum": ["disabled"]}}, "required": ["mode"]}
        body["relevant_spans"]["anyOf"] = [no_spans, _NULL]
