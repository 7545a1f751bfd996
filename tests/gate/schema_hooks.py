"""What schemathesis must know to speak msgpack, and which models there are; it loads this by its environment."""

from __future__ import annotations

import re
from typing import Any

import msgpack
import schemathesis
from compiler import tiny
from contract.openapi_judge import in_json

from gate.served import SCORER_ID

ENCODERS = (tiny.MODEL_ID, f"{tiny.MODEL_ID}:raw")
SCORERS = (SCORER_ID,)
# The document leaves the ids to `/v1/models`, which needs a key.
IDS = {
    "/v1/encode/{model}": ENCODERS,
    "/v1/score/{model}": SCORERS,
    "/v1/models/{model}": (*ENCODERS, *SCORERS),
}
BODIES = {"EmbeddingsBody": ENCODERS, "RerankBody": SCORERS, "RerankV2Body": SCORERS}


# What these two models do not read is ignored, and may be anything.
UNREAD = {
    "EncodeOptions": (
        "image_alpha",
        "image_orientation",
        "max_seq_length",
        "query_max_length",
        "query_template",
        "smve",
    ),
    "ScoreOptions": ("query_max_length", "score_mode", "score_weights"),
}
DIM = 32
SPECIAL_TOKENS = 3


@schemathesis.hook
def before_load_schema(_: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Good requests ask for what these two models give, which the document leaves to `/v1/models`; bad ones do not."""
    known = raw_schema["components"]["parameters"]["Model"]
    for path, ids in IDS.items():
        for operation in raw_schema["paths"][path].values():
            others = [one for one in operation["parameters"] if not one.get("$ref", "").endswith("/Model")]
            operation["parameters"] = [{**known, "schema": {"enum": list(ids)}}, *others]
    schemas = raw_schema["components"]["schemas"]
    for name, ids in BODIES.items():
        schemas[name]["properties"]["model"] = {"enum": list(ids)}
    schemas["Item"]["anyOf"] = [{"required": ["text"], "properties": {"text": {"type": "string"}}}]
    for name, options in UNREAD.items():
        schemas[name]["properties"].update({option: {} for option in options})
    encode, score = schemas["EncodeOptions"]["properties"], schemas["ScoreOptions"]["properties"]
    encode["profile"], score["profile"] = {"enum": ["default", "raw", None]}, {"enum": ["default", None]}
    encode["lora_id"] = score["lora_id"] = {"enum": [None, ""]}
    dense = {"type": "array", "minItems": 1, "items": {"enum": ["dense"]}}
    encode["output_types"], encode["muvera"] = dense, {"type": "null"}
    schemas["EncodeParams"]["properties"]["output_types"] = {"anyOf": [dense, {"type": "null"}]}
    score["max_seq_length"] = {"anyOf": [{"type": "integer", "minimum": SPECIAL_TOKENS}, {"type": "null"}]}
    schemas["EmbeddingsBody"]["properties"]["dimensions"] = {"enum": [DIM, str(DIM), None]}
    for name in ("RerankBody", "RerankV2Body"):
        schemas[name]["properties"]["rank_fields"] = {"enum": [["text"], None]}
        schemas[name]["anyOf"] = schemas[name]["anyOf"][:1]  # the other way is to ask for other fields


@schemathesis.serializer("application/msgpack")
def packed(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """A generated body; what is base64 in JSON is bytes."""
    return value if isinstance(value, bytes) else bytes(msgpack.packb(_with_bytes(value), default=str))


def _with_bytes(value: Any, name: object = None) -> Any:
    if isinstance(value, dict):
        return {key: _with_bytes(member, key) for key, member in value.items()}
    if isinstance(value, list):
        return [_with_bytes(member) for member in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-(2**63), min(value, 2**63 - 1))  # msgpack has no larger ones
    return value.encode() if name == "data" and isinstance(value, str) else value


@schemathesis.deserializer("application/msgpack")
def unpacked(_: schemathesis.DeserializationContext, response: schemathesis.Response) -> Any:
    """An answer as JSON would say it."""
    return in_json(msgpack.unpackb(response.content, strict_map_key=False))


# Python's false values, as nothing said: the contract has it so, and the document names null and the empty string.
_FALSE = re.compile(r"body - (params -> )?options -> (output_dtype|lora_id): ")
# `contentEncoding` is a remark to JSON Schema, and what it encodes are bytes in msgpack.
_NO_BASE64 = re.compile(r"Invalid base64 encoded string - at `\$\.[^`]*\.data`")
# JSON Schema takes 1.0 for an integer.
_WHOLE = re.compile(r"'(options\.)?(\w+)' must be a positive integer")


@schemathesis.hook
def filter_failure(
    _: schemathesis.HookContext, failure: Any, case: schemathesis.Case[Any], response: schemathesis.Response
) -> bool:
    """Whether it counts: what the document cannot say does not."""
    body: Any = case.body
    kind, said = type(failure).__name__, response.content.decode(errors="replace")
    if kind == "AcceptedNegativeData":
        found = _FALSE.search(failure.message)
        return not (found and not _option(body, found[2]))
    if kind != "RejectedPositiveData":
        return True
    whole = _WHOLE.search(said)
    given = whole and (_option(body, whole[2]) if whole[1] else body.get(whole[2]))
    return not (_NO_BASE64.search(said) or isinstance(given, float))


def _option(body: Any, name: str) -> Any:
    """What an option was said to be."""
    return {**((body.get("params") or {}).get("options") or {}), **(body.get("options") or {})}.get(name)
