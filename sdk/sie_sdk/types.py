"""Inputs and outputs of calls as typed dictionaries: `Item(text="…")` is a dict.

Nothing is validated here; the server validates. Arrays are read-only and have the dtype that the server sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, Union

from sie_sdk._other_tasks import (
    Classification,
    ClassificationResult,
    DetectedObject,
    Entity,
    EntityResult,
    ExtractItemErrorDetail,
    ExtractResult,
    FinishReason,
    GenerateResult,
    GenerationUsage,
    ObjectResult,
    PromptTokensDetails,
    Relation,
    RelationResult,
)
from sie_sdk._request_metadata import RequestMetadata, RequestUsage

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "AudioInput",
    "CallKeywords",
    "CapacityInfo",
    "Classification",
    "ClassificationResult",
    "DType",
    "DetectedObject",
    "DocumentInput",
    "EncodeKeywords",
    "EncodeResult",
    "Entity",
    "EntityResult",
    "ExtractItemErrorDetail",
    "ExtractKeywords",
    "ExtractResult",
    "FinishReason",
    "GenerateResult",
    "GenerationUsage",
    "ImageInput",
    "ImageLike",
    "Item",
    "ModelCapabilities",
    "ModelDims",
    "ModelInfo",
    "ModelLoadError",
    "ModelRouting",
    "ModelState",
    "ObjectResult",
    "OutputDType",
    "OutputType",
    "PillowImage",
    "PoolSpec",
    "ProfileInfo",
    "PromptTokensDetails",
    "Relation",
    "RelationResult",
    "RequestMetadata",
    "RequestUsage",
    "ScoreEntry",
    "ScoreInputTokensDetails",
    "ScoreResult",
    "ScoreUsage",
    "SparseResult",
    "TimingInfo",
    "VideoInput",
    "WorkerInfo",
]

OutputType = Literal["dense", "sparse", "multivector"]
OutputDType = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
DType = Literal["float32", "float16", "bfloat16", "int8", "uint8", "binary", "ubinary"]
ModelState = Literal["available", "loading", "loaded", "unloading", "failed"]


class PillowImage(Protocol):
    """The part of `PIL.Image.Image` that the SDK uses; Pillow itself is optional."""

    @property
    def mode(self) -> str:
        """Pillow's pixel format, for example `RGB` or `L`."""

    def load(self) -> Any:
        """Decode the pixels, if that was not done."""

    def convert(self, mode: str, /) -> PillowImage:
        """The same picture in another pixel format."""

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:
        """Write the encoded picture to the file object `fp`."""


ImageLike = Union[bytes, str, "Path", "NDArray[Any]", PillowImage]
"""Encoded bytes as they are; a path, an array (H, W) or (H, W, C), or a Pillow image to be sent as JPEG."""


class ImageInput(TypedDict, total=False):
    """An image with its format (`jpeg`, `png`, …), which is detected when left out."""

    data: ImageLike
    format: str


class AudioInput(TypedDict, total=False):
    """Encoded audio. Sent as it is; no model of the encode or score tasks reads it."""

    data: bytes
    format: str
    sample_rate: int


class VideoInput(TypedDict, total=False):
    """An encoded video. Sent as it is."""

    data: bytes
    format: str


class DocumentInput(TypedDict, total=False):
    """An encoded document. Sent as it is; no model of the encode or score tasks reads it."""

    data: bytes
    format: str


class Item(TypedDict, total=False):
    """One thing to encode or to score. `id` is echoed in the result; `metadata` counts for the size limit only."""

    id: str
    text: str
    images: Sequence[ImageInput | ImageLike]
    audio: AudioInput
    video: VideoInput
    document: DocumentInput
    metadata: dict[str, Any]
    multivector: NDArray[np.float16] | NDArray[np.float32]


class SparseResult(TypedDict):
    """A sparse vector: int32 `indices` and their `values`, both of shape [nnz]."""

    indices: NDArray[np.int32]
    values: NDArray[Any]


class TimingInfo(TypedDict, total=False):
    """The server's own timing of the whole request, in milliseconds."""

    total_ms: float
    queue_ms: float
    tokenization_ms: float
    inference_ms: float
    postprocessing_ms: float | None


class EncodeResult(TypedDict, total=False):
    """The outputs of one item; only those that were asked for.

    `dense` has shape [dims] (packed bytes for a binary `output_dtype`), `multivector` [tokens, token_dims].
    `model` is set by `SIEClient` only.
    """

    id: str
    dense: NDArray[Any]
    sparse: SparseResult
    multivector: NDArray[Any]
    model: str
    timing: TimingInfo
    request: RequestMetadata


class ScoreEntry(TypedDict):
    """One candidate: the id of its item, or `item-<index>`; `rank` counts from 0, best first."""

    item_id: str
    score: float
    rank: int


class ScoreInputTokensDetails(TypedDict):
    """How many of the input tokens are the caller's text rather than a prompt template."""

    content_tokens: int


class _ScoreUsageRequired(TypedDict):
    input_tokens: int


class ScoreUsage(_ScoreUsageRequired, total=False):
    """Tokens over all pairs, special tokens included."""

    images: int
    input_tokens_details: ScoreInputTokensDetails


class ScoreResult(TypedDict, total=False):
    """All candidates, best first. `query_id` is there when the query had an id, `usage` when it was counted."""

    model: str
    scores: list[ScoreEntry]
    query_id: str
    usage: ScoreUsage
    request: RequestMetadata


class ModelDims(TypedDict, total=False):
    """Declared dimensions per output: vector length, vocabulary size, length of a token vector."""

    dense: int
    sparse: int
    multivector: int


class ModelCapabilities(TypedDict, total=False):
    """What a generating model can do; None for every model of the encode and score tasks."""

    streaming: bool | None
    grammar: list[str]
    tools: bool
    lora_adapters: list[str]
    profile_lora_adapters: dict[str, list[str]]
    code: bool
    sql: bool
    guard: bool


class ProfileInfo(TypedDict, total=False):
    """One servable profile of a model."""

    is_default: bool
    identity: str | None
    remote_contract_sha256: str | None
    remote_execution_sha256: str | None
    runtime_instance_id: str | None


class ModelLoadError(TypedDict, total=False):
    """Why a model failed to load; with `permanent` it will not load again by itself."""

    code: str
    message: str
    attempts: int
    permanent: bool


class ModelRouting(TypedDict):
    """Where a gateway serves the model; both None mean local capacity."""

    policy: Literal["remote_only", "fallback", "threshold"] | None
    upstream_kind: Literal["sie", "openai"] | None


class ModelInfo(TypedDict, total=False):
    """One routable model id, as `list_models` and `get_model` return it."""

    name: str
    inputs: list[str]
    outputs: list[str]
    dims: ModelDims
    loaded: bool
    state: ModelState
    last_error: ModelLoadError | None
    max_sequence_length: int | None
    profiles: dict[str, ProfileInfo]
    revision: str | None
    capabilities: ModelCapabilities | None
    routing: ModelRouting
    aliases: list[str]


class WorkerInfo(TypedDict, total=False):
    """One worker behind a gateway."""

    name: str
    url: str
    gpu: str
    gpu_count: int
    ready_gpu_slots: int
    healthy: bool
    queue_depth: int
    pending_cost: int
    inflight_batches: int
    loaded_models: list[str]
    memory_used_bytes: int
    memory_total_bytes: int
    bundle: str
    bundle_config_hash: str


class CapacityInfo(TypedDict, total=False):
    """A gateway's cluster; with a `gpu` filter `workers` and `worker_count` cover that GPU type only."""

    status: str
    worker_count: int
    gpu_count: int
    models_loaded: int
    configured_gpu_types: list[str]
    live_gpu_types: list[str]
    workers: list[WorkerInfo]


class PoolSpec(TypedDict, total=False):
    """A gateway's resource pool. The SDK sends its `name` along and neither creates nor renews the pool."""

    name: str
    queue_pool: str
    gpus: dict[str, int]
    gpu_caps: dict[str, int]
    bundle: str
    minimum_worker_count: int
    pinned_models: list[str]


class CallKeywords(TypedDict, total=False):
    """The keywords that `encode` and `score` share; `SIEClient` describes them."""

    instruction: str | None
    options: dict[str, Any] | None
    gpu: str | None
    wait_for_capacity: bool
    provision_timeout_s: float | None
    max_oom_retries: int


class EncodeKeywords(CallKeywords, total=False):
    """The keywords of `encode`."""

    output_types: Sequence[OutputType] | None
    output_dtype: str | None
    is_query: bool | None


class ExtractKeywords(CallKeywords, total=False):
    """The keywords of `extract`."""

    labels: list[str] | None
    output_schema: dict[str, Any] | None
