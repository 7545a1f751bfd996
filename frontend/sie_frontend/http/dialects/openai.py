"""`POST /v1/embeddings`: OpenAI's request, answer and error shapes over an encode call for dense vectors.

The 422 bodies are those of the web framework that SIE answers with: a list of `{type, loc, msg, input}`.
"""

from __future__ import annotations

import json
import math
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from email.message import Message
from typing import Any, Final, Literal

import orjson
from numpy.typing import NDArray

from sie_frontend.contract.dtypes import widened
from sie_frontend.contract.errors import JSON_TYPE, ErrorKind, WireError
from sie_frontend.contract.requests import MAX_ITEM_TEXT_BYTES, EncodeParams, Image, Item, check_body_size
from sie_frontend.http.dialects.image_urls import image_of, is_image_url
from sie_frontend.outputs.options import ResolvedCall, resolve_encode

EncodingFormat = Literal["float", "base64"]

# A successful answer carries these and none of the stage times of an encode call.
SUCCESS_HEADERS: Final[Mapping[str, str]] = {"x-sie-served-by": "local", "content-type": JSON_TYPE}

# The vectors of a request are held until all of them are there: these bound what one request may hold.
MAX_INPUTS: Final = 8192

# So many vectors become text at a time.
_RENDERED_AT_ONCE: Final = 256

# What pydantic takes for a whole number, and how many digits of it.
_WHOLE: Final = re.compile(r"[+-]?[0-9]+(_[0-9]+)*(\.0+)?", re.ASCII)
_MAX_DIGITS: Final = 4300

_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class EmbeddingsRequest:
    """A request for one vector per text; `texts` has at least one, and an empty text is a text."""

    model: str
    texts: tuple[str, ...]
    encoding_format: EncodingFormat = "float"
    dimensions: int | None = None


def parse_embeddings(body: bytes, content_type: str | None) -> EmbeddingsRequest:
    """The request in `body`. Raises `WireError`: 413, 422 for its schema, 400 for what is legal but not served."""
    check_body_size(len(body))
    fields = _fields(body, content_type)
    mistakes: list[dict[str, Any]] = []
    model = _string(fields, "model", fields, mistakes)
    texts = _texts(fields, mistakes)
    encoding_format = _encoding_format(fields.get("encoding_format"), mistakes)
    dimensions = _dimensions(fields.get("dimensions"), mistakes)
    if mistakes:
        raise _unprocessable(mistakes)
    if not texts:
        raise _refused("Input cannot be empty", param="input")
    if len(texts) > MAX_INPUTS:
        message = f"Input has {len(texts)} texts but a request may have at most {MAX_INPUTS}; split it into several"
        raise _refused(message, param="input")
    for index, text in enumerate(texts):
        if not is_image_url(text):  # which is no text to a model that reads images
            check_text_bytes(text, f"input[{index}]", param="input")
    return EmbeddingsRequest(model, tuple(texts), encoding_format, dimensions)


def embeddings_items(request: EmbeddingsRequest, *, reads_images: bool) -> list[Item]:
    """The items of a request: its texts, and its images where the model reads them and a text is the URL of one.

    Raises `WireError` (400) for a text that is too long, and for a URL that holds no image.
    """
    items = []
    for index, text in enumerate(request.texts):
        if reads_images and is_image_url(text):
            try:
                items.append(Item(images=[Image(image_of(text))]))
            except ValueError as error:
                raise _refused(f"{error} - at `input[{index}]`", param="input") from error
        else:
            check_text_bytes(text, f"input[{index}]", param="input")
            items.append(Item(text=text))
    return items


def resolve_embeddings(
    request: EmbeddingsRequest,
    *,
    profiles: Mapping[str, Mapping[str, Any]],
    declared_dims: Mapping[str, int],
    cuts: Sequence[int] = (),
) -> ResolvedCall:
    """The encode call behind a request: dense, float32, without an instruction; the rest is the default profile's.

    `declared_dims` holds the bundle's dims by output type, `cuts` the widths that a vector may be cut to. Raises
    `WireError` (400).
    """
    native = declared_dims.get("dense")
    # Among the options, since those beat a profile's own `output_types`.
    params = EncodeParams(output_dtype="float32", options={"output_types": ["dense"]})
    try:
        call = resolve_encode(params, profiles=profiles, declared_outputs=tuple(declared_dims), model_id=request.model)
    except WireError as error:
        raise _refused(error.message, param="model") from error
    if request.dimensions is not None and request.dimensions not in (native, *cuts):
        others = f" and may be cut to {', '.join(map(str, cuts))}" if cuts else "; leave `dimensions` out"
        raise _refused(
            f"dimensions={request.dimensions} is not supported for model '{request.model}', "
            f"whose vectors have {native}{others}",
            param="dimensions",
            code="unsupported_field",
        )
    return replace(call, instruction=None)


def embeddings_body(request: EmbeddingsRequest, vectors: Sequence[NDArray[Any]], *, input_tokens: int | None) -> bytes:
    """The body of a successful call: one vector [d] per text, and a token count estimated where it is unknown."""
    return b"".join(embeddings_pieces(request, vectors, input_tokens=input_tokens))


def embeddings_pieces(
    request: EmbeddingsRequest, vectors: Sequence[NDArray[Any]], *, input_tokens: int | None
) -> Iterator[bytes]:
    """The same body piece by piece: a float takes four bytes in a vector, and five times that in the body."""
    yield b'{"object":"list","data":['
    for start in range(0, len(vectors), _RENDERED_AT_ONCE):
        entries = [
            {"object": "embedding", "embedding": _rendered(vector, request.encoding_format), "index": index}
            for index, vector in enumerate(vectors[start : start + _RENDERED_AT_ONCE], start)
        ]
        rendered = orjson.dumps(entries, option=orjson.OPT_SERIALIZE_NUMPY)
        yield (b"," if start else b"") + rendered[1:-1]
    tokens = sum(len(text) // 4 for text in request.texts) if input_tokens is None else input_tokens
    usage = {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "sie_token_source": "character_estimate" if input_tokens is None else "worker",
    }
    yield b'],"model":' + orjson.dumps(request.model) + b',"usage":' + orjson.dumps(usage) + b"}"


def _rendered(vector: NDArray[Any], encoding_format: EncodingFormat) -> str | NDArray[Any]:
    if encoding_format == "base64":
        return b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    return widened(vector)


def _fields(body: bytes, content_type: str | None) -> dict[str, Any]:
    if not body:
        raise _unprocessable([_mistake("missing", [], "Field required", None)])
    value: object = _json(body) if _is_json(content_type) else body.decode(errors="replace")
    if not isinstance(value, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        raise _unprocessable([_mistake("model_attributes_type", [], message, value)])
    return value


def _is_json(content_type: str | None) -> bool:
    if not content_type:
        return False
    message = Message()
    message["content-type"] = content_type
    subtype = message.get_content_subtype()
    return message.get_content_maintype() == "application" and (subtype == "json" or subtype.endswith("+json"))


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        mistake = _mistake("json_invalid", [error.pos], "JSON decode error", {})
        raise _unprocessable([{**mistake, "ctx": {"error": error.msg}}]) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, digits or nesting beyond the interpreter's limits
        raise _refused("There was an error parsing the body") from error


def _string(parent: Mapping[str, Any], key: str, whole: object, mistakes: list[dict[str, Any]]) -> str:
    value = parent.get(key, _MISSING)
    if value is _MISSING:
        mistakes.append(_mistake("missing", [key], "Field required", whole))
        return ""
    return _text(value, [key], mistakes)


def _text(value: object, loc: list[str | int], mistakes: list[dict[str, Any]]) -> str:
    if not isinstance(value, str):
        mistakes.append(_mistake("string_type", loc, "Input should be a valid string", value))
        return ""
    if not has_utf8_form(value):
        message = "Input should be a valid string, unable to parse raw data as a unicode string"
        mistakes.append(_mistake("string_unicode", loc, message, value))
    return value


def check_text_bytes(text: str, field: str, *, param: str, code: str | None = None) -> None:
    """Refuse a text of more bytes than any item may have; the message names its `field`."""
    size = len(text) if text.isascii() else len(text.encode())
    if size > MAX_ITEM_TEXT_BYTES:
        message = f"Field '{field}' must hold at most {MAX_ITEM_TEXT_BYTES} bytes of UTF-8 text"
        raise _refused(message, param=param, code=code)


def has_utf8_form(text: str) -> bool:
    """False for a lone surrogate, which a JSON escape can spell."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _texts(fields: Mapping[str, Any], mistakes: list[dict[str, Any]]) -> list[str]:
    value = fields.get("input", _MISSING)
    if not isinstance(value, list):
        return [_string(fields, "input", fields, mistakes)]
    if value and (all(map(_is_token, value)) or all(map(_is_token_array, value))):
        raise _refused("token-array embeddings input is not supported; use text input", param="input")
    return [_text(entry, ["input", index], mistakes) for index, entry in enumerate(value)]


def _is_token(value: object) -> bool:
    return isinstance(value, int)


def _is_token_array(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_token, value))


def _encoding_format(value: object, mistakes: list[dict[str, Any]]) -> EncodingFormat:
    if value is None or value == "float":
        return "float"
    if value == "base64":
        return "base64"
    expected = "'float' or 'base64'"
    mistake = _mistake("literal_error", ["encoding_format"], f"Input should be {expected}", value)
    mistakes.append({**mistake, "ctx": {"expected": expected}})
    return "float"


def _dimensions(value: object, mistakes: list[dict[str, Any]]) -> int | None:
    """A whole number, however it is written: SIE's framework reads 32, 32.0, "32" and "32.0" alike, and true as 1."""
    if value is None:
        return None
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return _written_dimensions(value, mistakes)
    kind, message = "int_type", "Input should be a valid integer"
    if isinstance(value, float):
        if value.is_integer():
            return int(value)
        kind, message = "int_from_float", f"{message}, got a number with a fractional part"
        if not math.isfinite(value):
            kind, message = "finite_number", "Input should be a finite number"
    mistakes.append(_mistake(kind, ["dimensions"], message, value))
    return None


def _written_dimensions(value: str, mistakes: list[dict[str, Any]]) -> int | None:
    digits = value.strip()
    if len(digits) <= _MAX_DIGITS and _WHOLE.fullmatch(digits):
        return int(digits.partition(".")[0])
    message = "Input should be a valid integer, unable to parse string as an integer"
    mistakes.append(_mistake("int_parsing", ["dimensions"], message, value))
    return None


def _mistake(kind: str, loc: Sequence[str | int], message: str, value: object) -> dict[str, Any]:
    return {"type": kind, "loc": ["body", *loc], "msg": message, "input": value}


def _unprocessable(mistakes: list[dict[str, Any]]) -> WireError:
    return WireError(ErrorKind.UNPROCESSABLE, "the request does not fit its schema", detail=mistakes)


def _refused(message: str, *, param: str | None = None, code: str | None = None) -> WireError:
    return WireError(ErrorKind.INVALID_INPUT, message, param=param, openai_code=code)
