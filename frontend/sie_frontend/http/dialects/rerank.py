"""The rerank routes: their request fields, and their answers, over a score call.

`POST /v1/rerank` is SIE's: six fields, and any other is refused by name. Jina's clients, and Cohere's for its first
version, send the same fields to the same path, so they need nothing more. But Cohere's has two further ones for callers
who ask, and a field that one client may send must stay an error for all others, who would not learn that they misspelt
one. So those two are taken from the clients that have them, who name themselves in a header: `X-Fern-SDK-Name` is on
every request of Cohere's own packages, `User-Agent` tells LiteLLM, which speaks as they do.

`POST /v2/rerank` is Cohere's second version, and LiteLLM's, which sends fields of the first version there too. Its
fields are never another client's mistakes, since SIE has no such path.

What a field asks for happens, or is refused: `rank_fields` chooses and orders the fields of a document that are read;
`max_tokens_per_doc` cuts each document; `max_chunks_per_doc` is an upper limit, and a document is one chunk here, cut
at the model's limit; `priority` orders requests under load, which fair queueing does; `relevant_spans` is refused.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import orjson

from sie_frontend.contract.errors import ErrorKind, WireError
from sie_frontend.contract.requests import MAX_CANDIDATES, Item, ScoreRequest
from sie_frontend.contract.responses import ScoreEntry, Usage
from sie_frontend.http.dialects.openai import check_text_bytes, has_utf8_form


class Dialect(Enum):
    """Whose request it is; the value names the fields that it may have."""

    SIE = frozenset({"model", "query", "documents", "top_n", "return_documents", "options"})
    COHERE_V1 = SIE | {"rank_fields", "max_chunks_per_doc"}
    COHERE_V2 = COHERE_V1 | {"max_tokens_per_doc", "priority", "relevant_spans"}


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """A request to rank `documents`, as they were sent, by their `texts`; all of one length, at least 1.

    `max_tokens` is the number of tokens that each text is to be cut to, null where only the model's limit holds.
    """

    model: str
    query: str
    documents: Sequence[str | Mapping[str, Any]]
    texts: Sequence[str]
    top_n: int | None = None
    return_documents: bool = False
    options: dict[str, Any] | None = None
    max_tokens: int | None = None

    def as_score(self) -> ScoreRequest:
        """The score call behind it, without its items, of which there may be more than one call takes."""
        return ScoreRequest(query=Item(text=self.query), items=[], options=self.options)


def dialect_of(headers: Mapping[str, str]) -> Dialect:
    """Whose request to `/v1/rerank` it is, by the header in which a client names itself."""
    cohere = headers.get("x-fern-sdk-name") == "cohere" or headers.get("user-agent", "").startswith("litellm/")
    return Dialect.COHERE_V1 if cohere else Dialect.SIE


def parse_rerank(body: bytes, dialect: Dialect) -> RerankRequest:
    """The request in `body`, which is JSON whatever its content type says. Raises `WireError` (400)."""
    fields = _fields(body, dialect)
    model = _name(fields, "model")
    query = _name(fields, "query")
    check_text_bytes(query, "query", param="query", code=_CODE)
    documents = _documents(fields.get("documents"))
    texts = _texts(documents, _rank_fields(fields.get("rank_fields")))
    _at_least_one(fields, "max_chunks_per_doc")
    _check_what_is_asked_of_v2(fields)
    return RerankRequest(
        model=model,
        query=query,
        documents=documents,
        texts=texts,
        top_n=_at_least_one(fields, "top_n"),
        return_documents=_boolean(fields, "return_documents", null=dialect is not Dialect.SIE),
        options=_object(fields, "options"),
        max_tokens=_at_least_one(fields, "max_tokens_per_doc"),
    )


def reranking_unsupported(model_id: str) -> WireError:
    """400: a model without the score task."""
    return _refused(f"Model '{model_id}' does not support reranking (no score task). Use a reranker model.")


def rerank_body(request: RerankRequest, ranking: Sequence[ScoreEntry], usage: Usage) -> bytes:
    """The body of a successful call to `/v1/rerank`. The ranking's items are named by their index."""
    return orjson.dumps({"model": request.model, "results": _results(request, ranking), "usage": usage.as_map()})


def rerank_v2_body(request: RerankRequest, ranking: Sequence[ScoreEntry], usage: Usage) -> bytes:
    """The body of a successful call to `/v2/rerank`; its `meta` counts tokens, and bills nothing."""
    tokens = {"input_tokens": usage.input_tokens, "output_tokens": 0}
    meta = {"api_version": {"version": "2"}, "tokens": tokens}
    return orjson.dumps({"id": str(uuid.uuid4()), "results": _results(request, ranking), "meta": meta})


def _results(request: RerankRequest, ranking: Sequence[ScoreEntry]) -> list[dict[str, Any]]:
    results = []
    for entry in ranking[: request.top_n]:
        index = int(entry.item_id)
        result: dict[str, Any] = {"index": index, "relevance_score": entry.score}
        if request.return_documents:
            document = request.documents[index]
            result["document"] = {"text": document} if isinstance(document, str) else document
        results.append(result)
    return results


# Reading the fields. SIE gives its own code on this route, unlike on `/v1/embeddings`.

_CODE: Final = "INVALID_INPUT"


def _refused(message: str, param: str | None = None) -> WireError:
    return WireError(ErrorKind.INVALID_INPUT, message, param=param, openai_code=_CODE)


def _fields(body: bytes, dialect: Dialect) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _refused("request body must be a JSON object") from error
    if not isinstance(fields, dict):
        raise _refused("request body must be a JSON object")
    if unknown := sorted(fields.keys() - dialect.value):
        raise _refused(f"field '{unknown[0]}' is not supported", unknown[0])
    return fields


def _name(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not value.strip() or not has_utf8_form(value):
        raise _refused(f"'{key}' must be a non-empty string", key)
    return value


def _documents(value: object) -> list[str | Mapping[str, Any]]:
    if not isinstance(value, list) or not value:
        raise _no_documents()
    if len(value) > MAX_CANDIDATES:
        raise _refused(f"'documents' exceeds the maximum of {MAX_CANDIDATES} per request", "documents")
    return value


def _no_documents(which: str = "") -> WireError:
    # SIE's words first; an object with a text is what its clients do not send, and others do.
    message = f"'documents' must be a non-empty array of strings, or of objects with a non-empty `text`{which}"
    return _refused(message, "documents")


def _texts(documents: Sequence[object], rank_fields: Sequence[str] | None) -> list[str]:
    texts = []
    for index, document in enumerate(documents):
        text = _text(document, rank_fields)
        if not isinstance(text, str) or not text.strip() or not has_utf8_form(text):
            raise _no_documents(f"; see documents[{index}]")
        check_text_bytes(text, f"documents[{index}]", param="documents", code=_CODE)
        texts.append(text)
    return texts


def _text(document: object, rank_fields: Sequence[str] | None) -> object:
    """What is read of a document: itself, its `text`, or the fields that were asked for, a line each."""
    if not isinstance(document, dict):
        return document
    if rank_fields is None:
        return document.get("text")
    return "\n".join(str(document[name]) for name in rank_fields if document.get(name) is not None)


def _rank_fields(value: object) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise _refused("'rank_fields' must be a non-empty array of strings", "rank_fields")
    return value


def _at_least_one(fields: Mapping[str, Any], key: str) -> int | None:
    value = fields.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _refused(f"'{key}' must be a positive integer", key)
    return value


def _boolean(fields: Mapping[str, Any], key: str, *, null: bool) -> bool:
    value = fields.get(key, False)
    if value is None and null:
        return False
    if not isinstance(value, bool):
        raise _refused(f"'{key}' must be a boolean", key)
    return value


def _object(fields: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    value = fields.get(key)
    if value is not None and not isinstance(value, dict):
        raise _refused(f"'{key}' must be an object", key)
    return value


def _check_what_is_asked_of_v2(fields: Mapping[str, Any]) -> None:
    priority = fields.get("priority")
    if priority is not None and (not isinstance(priority, int) or isinstance(priority, bool)):
        raise _refused("'priority' must be an integer", "priority")
    spans = _object(fields, "relevant_spans")
    if spans is not None and spans.get("mode") != "disabled":
        raise _refused("'relevant_spans' is not served; leave it out, or set its mode to 'disabled'", "relevant_spans")
