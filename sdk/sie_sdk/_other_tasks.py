"""Results of the tasks that only SIE's own servers offer, as `sie_sdk.types` exports them."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from sie_sdk._request_metadata import RequestMetadata

FinishReason = Literal["stop", "length", "cancelled", "content_filter", "error"]


class Entity(TypedDict, total=False):
    """A span of a text with its character offsets, or a region `[x, y, width, height]` of an image in pixels."""

    text: str
    label: str
    score: float
    start: int | None
    end: int | None
    bbox: list[int] | None


class Relation(TypedDict):
    """A typed connection between two entities."""

    head: str
    tail: str
    relation: str
    score: float


class Classification(TypedDict):
    """A label of a whole item."""

    label: str
    score: float


class DetectedObject(TypedDict):
    """Something seen in an image, at `[x, y, width, height]` in pixels."""

    label: str
    score: float
    bbox: list[int]


EntityResult = Entity
RelationResult = Relation
ClassificationResult = Classification
ObjectResult = DetectedObject


class ExtractItemErrorDetail(TypedDict):
    """Why extraction failed for one item of a batch."""

    code: str
    message: str


class ExtractResult(TypedDict, total=False):
    """What was found in one item; `data` is what an `output_schema` asked for, `error` is there instead of findings."""

    model: str
    id: str
    entities: list[Entity]
    relations: list[Relation]
    classifications: list[Classification]
    objects: list[DetectedObject]
    data: dict[str, Any]
    error: ExtractItemErrorDetail
    request: RequestMetadata


class PromptTokensDetails(TypedDict):
    """How many tokens of the prompt the server had cached."""

    cached_tokens: int


class _GenerationUsageRequired(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class GenerationUsage(_GenerationUsageRequired, total=False):
    """Tokens of one generation."""

    images: int
    prompt_tokens_details: PromptTokensDetails
    credits_charged: int
    rate_book_version: str


class GenerateResult(TypedDict, total=False):
    """A generated text; times in milliseconds."""

    model: str
    text: str
    finish_reason: FinishReason
    usage: GenerationUsage
    attempt_id: str | None
    ttft_ms: float | None
    tpot_ms: float | None
    request: RequestMetadata
