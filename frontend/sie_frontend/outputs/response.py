"""The body of a successful encode call, its keys in the order that SIE emits them.

In msgpack it is pieced together from cached heads and views of the arrays, so that its cost is one copy of the vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import orjson

from sie_frontend.contract.negotiation import WireFormat
from sie_frontend.contract.responses import Timing, Usage
from sie_frontend.outputs.table import FORMS, EncodedType


@dataclass(frozen=True, slots=True)
class ItemOutputs:
    """What one item was encoded to: the values of the types that were asked for, narrowed to the output dtype."""

    id: str | None = None
    values: Mapping[EncodedType, Any] = field(default_factory=dict)


def encode_body(
    model_id: str,
    items: Sequence[ItemOutputs],
    *,
    declared_dims: Mapping[str, int],
    timing: Timing,
    usage: Usage | None,
    wire_format: WireFormat,
) -> bytes:
    """The body of a successful encode call.

    `model_id` is echoed as requested. `declared_dims` holds the bundle's dims by output type; an output it lacks
    (a vector made by MUVERA, say) is described by its array's length, or by null for sparse.
    """
    if wire_format is WireFormat.MSGPACK:
        return _encode_msgpack(model_id, items, declared_dims, timing, usage)
    body: dict[str, Any] = {
        "model": model_id,
        "items": [_item_json(item, declared_dims) for item in items],
        "timing": timing,
    }
    if usage is not None:
        body["usage"] = usage.as_map()
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def _encode_msgpack(
    model_id: str, items: Sequence[ItemOutputs], dims: Mapping[str, int], timing: Timing, usage: Usage | None
) -> bytes:
    pack = msgspec.msgpack.encode
    chunks: list[bytes | memoryview] = [
        b"\x83\xa5model" if usage is None else b"\x84\xa5model",
        pack(model_id),
        b"\xa5items",
        _array_length(len(items)),
    ]
    for item in items:
        chunks.append(bytes((0x80 | (len(item.values) + (item.id is not None)),)))
        if item.id is not None:
            chunks += b"\xa2id", pack(item.id)
        for output, form in FORMS.items():
            if output in item.values:
                chunks += form.as_msgpack(item.values[output], dims.get(output))
    chunks += b"\xa6timing", pack(timing)
    if usage is not None:
        chunks += b"\xa5usage", pack(usage.as_map())
    return b"".join(chunks)


def _array_length(length: int) -> bytes:
    if length < 16:
        return bytes((0x90 | length,))
    if length < 1 << 16:
        return b"\xdc" + length.to_bytes(2, "big")
    return b"\xdd" + length.to_bytes(4, "big")


def _item_json(item: ItemOutputs, dims: Mapping[str, int]) -> dict[str, Any]:
    values: dict[str, Any] = {
        output: form.as_json(item.values[output], dims.get(output))
        for output, form in FORMS.items()
        if output in item.values
    }
    return values if item.id is None else {"id": item.id, **values}
