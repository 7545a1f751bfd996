"""Request bodies of `/v1/encode` and `/v1/score`: bytes to typed requests, or the refusal SIE would answer with.

The messages are those of msgspec's typed decoders, which is what SIE answers with too. Unknown keys are skipped
at every level, so numpy's five-pair maps (binary keys) may stand wherever nobody reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from sie_frontend.contract.errors import WireError, body_too_large, invalid_input
from sie_frontend.contract.negotiation import WireFormat, request_format

MAX_BODY_BYTES: Final = 34 * 1024 * 1024
MAX_ITEM_TEXT_BYTES: Final = 2 * 1024 * 1024
MAX_CANDIDATES: Final = 1000
MAX_ITEMS: Final = 512
MAX_IMAGES: Final = 512
MAX_ITEM_IMAGES: Final = 64
MAX_IMAGE_PIXELS: Final = 50_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may hold, as far as readers look at it: the bytes of its body, its images and one item's.

    `image_bytes` and `image_pixels` are those of one image, encoded and decoded.
    """

    body_bytes: int = MAX_BODY_BYTES
    images: int = MAX_IMAGES
    item_images: int = MAX_ITEM_IMAGES
    image_bytes: int = MAX_BODY_BYTES
    image_pixels: int = MAX_IMAGE_PIXELS


class Image(msgspec.Struct, frozen=True, gc=False):
    """An encoded picture: raw bytes in msgpack, standard base64 in JSON.

    Whether it is there, and whether it decodes, is asked by models that read images.
    """

    data: bytes | msgspec.UnsetType = msgspec.UNSET
    format: str | None = None


class Audio(msgspec.Struct, frozen=True, gc=False):
    """Encoded sound, as `Image` holds a picture."""

    data: bytes
    format: str | None = None
    sample_rate: int | None = None


class Media(msgspec.Struct, frozen=True, gc=False):
    """An encoded video or document, as `Image` holds a picture."""

    data: bytes
    format: str | None = None


class Item(msgspec.Struct, frozen=True):
    """One thing to encode, or one side of a score pair. An empty text is a text; an empty `images` equals none.

    Images that are not empty win over a text where the model reads both. Sound, video and documents are checked for
    their shape, as SIE does, although nothing that is served reads them.
    """

    id: str | None = None
    text: str | None = None
    images: list[Image] | None = None
    audio: Audio | None = None
    video: Media | None = None
    document: Media | None = None
    metadata: dict[str, Any] | None = None


class EncodeParams(msgspec.Struct, frozen=True):
    """What an encode call may ask for; null means not said."""

    output_types: list[str] | None = None
    instruction: str | None = None
    output_dtype: str | None = None
    options: dict[str, Any] | None = None


class EncodeRequest(msgspec.Struct, frozen=True):
    """The body of `POST /v1/encode/{model}`; `items` has at least one item."""

    items: list[Item]
    params: EncodeParams | None = None


class ScoreRequest(msgspec.Struct, frozen=True):
    """The body of `POST /v1/score/{model}`; its parameters stand at the top level, unlike encode's."""

    query: Item
    items: list[Item]
    instruction: str | None = None
    options: dict[str, Any] | None = None


_Request = TypeVar("_Request", EncodeRequest, ScoreRequest)
_Decoder = msgspec.msgpack.Decoder[_Request] | msgspec.json.Decoder[_Request]

_ENCODE_DECODERS: Final[dict[WireFormat, _Decoder[EncodeRequest]]] = {
    WireFormat.MSGPACK: msgspec.msgpack.Decoder(EncodeRequest),
    WireFormat.JSON: msgspec.json.Decoder(EncodeRequest),
}
_SCORE_DECODERS: Final[dict[WireFormat, _Decoder[ScoreRequest]]] = {
    WireFormat.MSGPACK: msgspec.msgpack.Decoder(ScoreRequest),
    WireFormat.JSON: msgspec.json.Decoder(ScoreRequest),
}


def parse_encode(body: bytes, content_type: str | None) -> EncodeRequest:
    """The encode request in `body`, whose format `content_type` decides. Raises `WireError` only."""
    check_body_size(len(body))
    request = _decode(_ENCODE_DECODERS[request_format(content_type)], body)
    _check_items(request.items)
    return request


def parse_score(body: bytes, content_type: str | None) -> ScoreRequest:
    """The score request in `body`, whose format `content_type` decides. Raises `WireError` only."""
    check_body_size(len(body))
    request = _decode(_SCORE_DECODERS[request_format(content_type)], body)
    if len(request.items) > MAX_CANDIDATES:
        raise invalid_input(f"Field 'items' must contain at most {MAX_CANDIDATES} candidates")
    _check_items(request.items)
    _check_text_size(request.query, "query")
    return request


def check_body_size(received: int, limit: int = MAX_BODY_BYTES) -> None:
    """Refuse a body of more than `limit` bytes; cheap enough to be asked while the body is still coming in."""
    if received > limit:
        raise body_too_large(limit)


def check_item_count(items: Sequence[Item], model_id: str, limit: int = MAX_ITEMS) -> None:
    """Refuse more items than the model's queue takes at once; asked after the model is known and loaded."""
    if len(items) > limit:
        raise invalid_input(
            f"Request has {len(items)} items but the queue accepts at most {limit} items per request "
            f"for model '{model_id}'; split the request into batches of {limit} or fewer"
        )


def _decode(decoder: _Decoder[_Request], body: bytes) -> _Request:
    try:
        return decoder.decode(body)
    except msgspec.DecodeError as error:
        raise invalid_input(str(error)) from error
    except (ValueError, RecursionError) as error:  # invalid UTF-8, nesting beyond the interpreter's limit
        raise _unparsable(error) from error


def _unparsable(error: Exception) -> WireError:
    return invalid_input(f"Failed to parse request body: {error}")


def _check_items(items: Sequence[Item]) -> None:
    if not items:
        raise invalid_input("Field 'items' must not be empty")
    for index, item in enumerate(items):
        _check_text_size(item, f"items[{index}]")


def _check_text_size(item: Item, field: str) -> None:
    size = 0 if item.text is None else utf8_size(item.text)
    if item.metadata:
        size += _metadata_size(item.metadata)
    if size > MAX_ITEM_TEXT_BYTES:
        raise invalid_input(f"Field '{field}' must hold at most {MAX_ITEM_TEXT_BYTES} bytes of UTF-8 text")


def utf8_size(text: str) -> int:
    """How many bytes a text has in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def _metadata_size(metadata: dict[str, Any]) -> int:
    """UTF-8 bytes of every string in `metadata`, keys included, and of every binary value."""
    size = 0
    pending: list[Any] = [metadata]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            size += utf8_size(value)
        elif isinstance(value, bytes):
            size += len(value)
        elif isinstance(value, dict):
            pending.extend(value)
            pending.extend(value.values())
        elif isinstance(value, list | tuple):
            pending.extend(value)
    return size
