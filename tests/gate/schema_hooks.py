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


@schemathesis.hook
def before_load_schema(_: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Good requests ask for models that there are, bad ones for others."""
    known = raw_schema["components"]["parameters"]["Model"]
    for path, ids in IDS.items():
        for operation in raw_schema["paths"][path].values():
            others = [one for one in operation["parameters"] if not one.get("$ref", "").endswith("/Model")]
            operation["parameters"] = [{**known, "schema": {"enum": list(ids)}}, *others]
    for name, ids in BODIES.items():
        raw_schema["components"]["schemas"][name]["properties"]["model"] = {"enum": list(ids)}


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


# Options are the adapter's: those of other adapters are not read, and none of them is checked.
_OPTIONS = re.compile(r"body - (params -> )?options\b")
# Good by the schema, which does not know the model, or what one field means for another.
_MORE_THAN_A_SCHEMA_SAYS = re.compile(
    r"dimensions=-?\d+ is not supported for model"
    r"|output type '\w+' of this model was not built"
    r"|does not support output types"
    r"|'options\.\w+' (must be|is \d+, and the special tokens)"
    r"|Profile '.*' not found"
    r"|requires text input"
    r"|Invalid base64 encoded string"  # `contentEncoding` is a remark to JSON Schema
    r"|of objects with a non-empty `text`; see"  # or with what `rank_fields` names
    r"|must be a(n| positive) integer"  # 1.0 is one to JSON Schema
    r"|must be a non-empty string"  # a control character is no space to JSON Schema
)


@schemathesis.hook
def filter_failure(
    _: schemathesis.HookContext, failure: Any, case: schemathesis.Case[Any], response: schemathesis.Response
) -> bool:
    """Whether it counts."""
    kind = type(failure).__name__
    if kind == "AcceptedNegativeData":
        return not _OPTIONS.search(failure.message)
    return not (kind == "RejectedPositiveData" and _MORE_THAN_A_SCHEMA_SAYS.search(response.text))
