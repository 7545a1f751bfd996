"""The `sie_sdk` client: vectors and rankings from sie-triton, or from any server that speaks SIE's contract.

    from sie_sdk import SIEClient
    from sie_sdk.types import Item

    client = SIEClient("http://localhost:8080")
    result = client.encode("BAAI/bge-small-en-v1.5", Item(text="The mitochondrion is the powerhouse of the cell."))
    vec = result["dense"]

It can replace SIE's own SDK for encode, score and the model list: same names, bytes, results and exceptions. If both
are installed, the import finds SIE's own.
"""

from __future__ import annotations

from sie_sdk.client import SIEAsyncClient, SIEClient
from sie_sdk.encoding import (
    SparseVector,
    dense_embedding,
    multivector_embedding,
    normalize_sparse_vector,
    sparse_embedding,
    sparse_embedding_dict,
)
from sie_sdk.errors import (
    AccountInactiveError,
    AccountStateUnavailableError,
    EstimateUnroutableError,
    IncompleteBatchError,
    InputTooLongError,
    InsufficientCreditsError,
    JobFailedError,
    LoraLoadingError,
    ModelLoadFailedError,
    ModelLoadingError,
    PoolError,
    ProvisioningError,
    RateLimitError,
    RelayUnavailableError,
    RequestError,
    ResourceExhaustedError,
    ServerError,
    SIEConnectionError,
    SIEError,
    SpendLimitError,
)
from sie_sdk.exceptions import GatedModelError
from sie_sdk.jobs import MalformedChunkError
from sie_sdk.types import (
    CapacityInfo,
    EncodeResult,
    Entity,
    ExtractResult,
    GenerateResult,
    GenerationUsage,
    Item,
    ModelInfo,
    PoolSpec,
    ScoreResult,
    SparseResult,
    TimingInfo,
    WorkerInfo,
)

__version__ = "0.1.0"

__all__ = [
    "AccountInactiveError",
    "AccountStateUnavailableError",
    "CapacityInfo",
    "EncodeResult",
    "Entity",
    "EstimateUnroutableError",
    "ExtractResult",
    "GatedModelError",
    "GenerateResult",
    "GenerationUsage",
    "IncompleteBatchError",
    "InputTooLongError",
    "InsufficientCreditsError",
    "Item",
    "JobFailedError",
    "LoraLoadingError",
    "MalformedChunkError",
    "ModelInfo",
    "ModelLoadFailedError",
    "ModelLoadingError",
    "PoolError",
    "PoolSpec",
    "ProvisioningError",
    "RateLimitError",
    "RelayUnavailableError",
    "RequestError",
    "ResourceExhaustedError",
    "SIEAsyncClient",
    "SIEClient",
    "SIEConnectionError",
    "SIEError",
    "ScoreResult",
    "ServerError",
    "SparseResult",
    "SparseVector",
    "SpendLimitError",
    "TimingInfo",
    "WorkerInfo",
    "dense_embedding",
    "multivector_embedding",
    "normalize_sparse_vector",
    "sparse_embedding",
    "sparse_embedding_dict",
]
