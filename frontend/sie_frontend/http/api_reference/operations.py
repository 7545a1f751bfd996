"""Every route in the words of its OpenAPI operation: what it does, takes and gives, and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from sie_frontend.contract.errors import ErrorKind
from sie_frontend.contract.negotiation import WireFormat
from sie_frontend.contract.requests import EncodeRequest, ScoreRequest
from sie_frontend.http.api_reference import shapes, status_shapes
from sie_frontend.http.status.facts import StatusReport
from sie_frontend.watch.metrics import CONTENT_TYPE

JSON: Final = WireFormat.JSON.value
MSGPACK: Final = WireFormat.MSGPACK.value
TEXT: Final = "text/plain; charset=utf-8"
HTML: Final = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. A type stands for the schema of a body; null is a body without one.

    `refused` is the shape of its refusals that have a code. `times` says that an answer carries the headers of an
    encode call, `traced` that the request has an id and a trace.
    """

    method: Literal["get", "post"]
    tag: str
    summary: str
    text: str
    answer: type | None = None
    answer_media: tuple[str, ...] = (JSON,)
    body: type | None = None
    body_media: tuple[str, ...] = (JSON,)
    example: Mapping[str, Any] = field(default_factory=dict)
    refusals: tuple[ErrorKind, ...] = ()
    refused: type = shapes.Refused
    status: int | None = 200
    also: Mapping[int, str] = field(default_factory=dict)
    times: bool = False
    traced: bool = False


_ASKED_WRONGLY: Final = (
    ErrorKind.INVALID_INPUT,
    ErrorKind.MODEL_NOT_FOUND,
    ErrorKind.BODY_TOO_LARGE,
    ErrorKind.BODY_TOO_SLOW,
    ErrorKind.REQUEST_TOO_SLOW,
)
_NOT_NOW: Final = (
    ErrorKind.INFERENCE_ERROR,
    ErrorKind.MODEL_LOADING,
    ErrorKind.QUEUE_FULL,
    ErrorKind.RESOURCE_EXHAUSTED,
)
_ENCODES: Final = (*_ASKED_WRONGLY, *_NOT_NOW)
_SCORES: Final = (ErrorKind.INPUT_TOO_LONG, *_ENCODES)
_LEAVES: Final = (ErrorKind.SHUTTING_DOWN,)

_ENCODE_TAG, _SCORE_TAG, _MODELS_TAG, _PROCESS_TAG = "Encode", "Score and rerank", "Models", "The process"
_MODEL: Final = "sentence-transformers/all-MiniLM-L6-v2"
_RERANKER: Final = "cross-encoder/ms-marco-MiniLM-L-6-v2"

_NOT_SERVED: Final = Operation(
    "post",
    _MODELS_TAG,
    "A task that is not served",
    "SIE has this task, and nothing here does it: the answer says so, and names the routes that there are.",
    refusals=(*_ASKED_WRONGLY, *_LEAVES),
    status=None,
    traced=True,
)

OPERATIONS: Final[Mapping[str, Operation]] = {
    "/v1/encode/{model}": Operation(
        "post",
        _ENCODE_TAG,
        "Vectors of items",
        "Encodes each item of the request to the outputs that `params` asks for: `dense` where it says nothing.\n\n"
        f"The body is msgpack where `Content-Type` names `{MSGPACK}` or `application/x-msgpack`, and JSON otherwise. "
        f"The answer is JSON where `Accept` names `{JSON}` and no msgpack type, and msgpack otherwise.",
        answer=shapes.EncodeAnswer,
        answer_media=(MSGPACK, JSON),
        body=EncodeRequest,
        body_media=(MSGPACK, JSON),
        example={"items": [{"id": "a", "text": "Cells make energy."}], "params": {"output_dtype": "float16"}},
        refusals=(*_ENCODES, *_LEAVES),
        times=True,
        traced=True,
    ),
    "/v1/score/{model}": Operation(
        "post",
        _SCORE_TAG,
        "Items ranked for a query",
        "Scores each item against the query and ranks them, best first. Formats as for encode. The parameters stand "
        "beside `query` and `items`, not in `params`.",
        answer=shapes.ScoreAnswer,
        answer_media=(MSGPACK, JSON),
        body=ScoreRequest,
        body_media=(MSGPACK, JSON),
        example={"query": {"text": "What makes energy?"}, "items": [{"id": "a", "text": "Cells make energy."}]},
        refusals=(*_SCORES, *_LEAVES),
        times=True,
        traced=True,
    ),
    "/v1/embeddings": Operation(
        "post",
        _ENCODE_TAG,
        "Dense vectors, as OpenAI's clients ask for them",
        "One float32 vector for each text, or image. Many are computed in parts.",
        answer=shapes.EmbeddingsAnswer,
        body=shapes.EmbeddingsBody,
        example={"model": _MODEL, "input": ["Cells make energy."], "encoding_format": "base64"},
        refusals=(*_ENCODES, ErrorKind.UNPROCESSABLE, *_LEAVES),
        refused=shapes.OpenAIRefused,
        traced=True,
    ),
    "/v1/rerank": Operation(
        "post",
        _SCORE_TAG,
        "Documents ranked for a query, as Jina's clients and Cohere's first ones ask for them",
        "For every model that scores. The body is JSON whatever its content type says.",
        answer=shapes.RerankAnswer,
        body=shapes.RerankBody,
        example={"model": _RERANKER, "query": "What makes energy?", "documents": ["Cells.", "Salt."], "top_n": 1},
        refusals=(*_SCORES, *_LEAVES),
        refused=shapes.OpenAIRefused,
        traced=True,
    ),
    "/v2/rerank": Operation(
        "post",
        _SCORE_TAG,
        "Documents ranked for a query, as Cohere's newer clients ask for them",
        "As `/v1/rerank`, with Cohere's further fields and Cohere's answer.",
        answer=shapes.RerankV2Answer,
        body=shapes.RerankV2Body,
        example={"model": _RERANKER, "query": "What makes energy?", "documents": ["Cells."], "max_tokens_per_doc": 64},
        refusals=_SCORES,
        refused=shapes.CohereRefused,
        traced=True,
    ),
    "/v1/models": Operation(
        "get",
        _MODELS_TAG,
        "Every id that can be asked",
        "A profile other than `default` is an id of its own: `model:profile`.",
        answer=shapes.ModelsAnswer,
        refusals=_LEAVES,
    ),
    "/v1/models/{model}": Operation(
        "get",
        _MODELS_TAG,
        "One id",
        "As its entry in the list, with what its vectors were compared with. It never loads anything.",
        answer=shapes.ModelAnswer,
        refusals=(ErrorKind.MODEL_NOT_FOUND, *_LEAVES),
    ),
    "/v1/extract/{model}": _NOT_SERVED,
    "/v1/generate/{model}": _NOT_SERVED,
    "/livez": Operation(
        "get", _PROCESS_TAG, "Whether the process lives", "`ok` for as long as it does.", answer_media=(TEXT,)
    ),
    "/readyz": Operation(
        "get",
        _PROCESS_TAG,
        "Whether the models answer",
        "`ok` while the models that must answer do, and the process is not about to end.",
        answer_media=(TEXT,),
        also={503: "`not ready`"},
    ),
    "/healthz": Operation(
        "get", _PROCESS_TAG, "As `/readyz`", "Another name of it.", answer_media=(TEXT,), also={503: "`not ready`"}
    ),
    "/metrics": Operation(
        "get",
        _PROCESS_TAG,
        "Metrics for Prometheus",
        "Counters and histograms of this process.",
        answer_media=(CONTENT_TYPE,),
    ),
    "/admin/status": Operation(
        "get",
        _PROCESS_TAG,
        "What is served, and how it stands",
        "Each id with its state, version, memory and requests; changes that were refused, and why. `sie-triton status` "
        "shows it. A key needs the verb `admin`.",
        answer=status_shapes.StatusAnswer,
    ),
    "/admin/reload": Operation(
        "post",
        _PROCESS_TAG,
        "Look at the repository now",
        "What is published there is loaded and switched to before the answer, which is the status. What was refused "
        "before is tried again. A key needs the verb `admin`.",
        answer=status_shapes.StatusAnswer,
    ),
    "/openapi.json": Operation(
        "get", _PROCESS_TAG, "The OpenAPI document", "OpenAPI 3.1, made from the code.", answer_media=(JSON,)
    ),
    "/docs": Operation(
        "get",
        _PROCESS_TAG,
        "The OpenAPI document as a page",
        "Plain HTML that needs nothing from elsewhere.",
        answer_media=(HTML,),
    ),
    "/v1/status": Operation(
        "get",
        _PROCESS_TAG,
        "What this process does now",
        "Its models with their states, and its numbers where the asker may read metrics: traffic of the last minute, "
        "queue, memory, replicas, errors. The page at `/` shows it.",
        answer=StatusReport,
    ),
    "/": Operation(
        "get",
        _PROCESS_TAG,
        "The status page for browsers, and to `/docs` for others",
        "A redirect, where `Accept` does not name `text/html`.",
        answer_media=(),
        status=307,
        also={200: "the status page"},
    ),
}
"""By path, in the order of the document."""
