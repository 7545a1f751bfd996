"""Success bodies and headers of `/v1/encode` and `/v1/score`, with the keys in the order that SIE emits them.

An encode body in msgpack is pieced together from cached headers and views of the arrays, so that its cost is
one copy of the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sie_frontend.contract.errors import ErrorKind, WireError
from sie_frontend.contract.negotiation import WireFormat

# The version of the contract spoken, which SDKs compare with their own; not this distribution's version.
CONTRACT_VERSION: Final = "0.10.1"


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds a request spent per stage; `postprocessing_ms` is null where there was nothing to do."""

    total_ms: float
    queue_ms: float
    tokenization_ms: float
    inference_ms: float
    postprocessing_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What was processed: token ids (specials included, after truncation), pictures, tokens without the template."""

    input_tokens: int
    images: int | None = None
    content_tokens: int | None = None

    def as_map(self) -> dict[str, Any]:
        """The body's `usage` map; unknown counts are left out."""
        usage: dict[str, Any] = {"input_tokens": self.input_tokens}
        if self.images is not None:
            usage["images"] = self.images
        if self.content_tokens is not None:
            usage["input_tokens_details"] = {"content_tokens": self.content_tokens}
        return usage


class ScoreEntry(msgspec.Struct, frozen=True, gc=False):
    """One line of a ranking; `rank` counts from 0."""

    item_id: str
    score: float
    rank: int


def score_body(
    model_id: str,
    query_id: str | None,
    ranking: Sequence[ScoreEntry],
    *,
    usage: Usage | None,
    wire_format: WireFormat,
) -> bytes:
    """The body of a successful score call, best first; `query_id` is there even when it is null."""
    body: dict[str, Any] = {"model": model_id, "query_id": query_id, "scores": ranking}
    if usage is not None:
        body["usage"] = usage.as_map()
    return msgspec.msgpack.encode(body) if wire_format is WireFormat.MSGPACK else msgspec.json.encode(body)


def rank_scores(scores: NDArray[Any], item_ids: Sequence[str | None], model_id: str) -> list[ScoreEntry]:
    """Rank the candidates: highest first, equal scores in the order of the request.

    `scores` [n] are taken as float32. An item without an id is called `item-{index}`; empty and repeated ids stay
    as they are. Raises `WireError` (500) when a score is not finite.
    """
    values = np.asarray(scores, dtype=np.float32)
    if not np.isfinite(values).all():
        raise WireError(ErrorKind.INFERENCE_ERROR, f"Model '{model_id}' produced non-finite scores")
    order = np.argsort(-values, kind="stable").tolist()
    widened = values.tolist()
    return [ScoreEntry(_item_id(item_ids[index], index), widened[index], rank) for rank, index in enumerate(order)]


def success_headers(timing: Timing, *, wire_format: WireFormat, runtime_instance: str) -> dict[str, str]:
    """The headers of a successful encode or score call; times in milliseconds with two decimals.

    `runtime_instance` is 64 hexadecimal digits, the same for the life of the process.
    """
    headers = {
        "x-sie-server-version": CONTRACT_VERSION,
        "x-queue-time": f"{timing.queue_ms:.2f}",
        "x-tokenization-time": f"{timing.tokenization_ms:.2f}",
        "x-inference-time": f"{timing.inference_ms:.2f}",
        "x-total-time": f"{timing.total_ms:.2f}",
    }
    if timing.postprocessing_ms:
        headers["x-postprocessing-time"] = f"{timing.postprocessing_ms:.2f}"
    headers["x-sie-served-by"] = "local"
    headers["x-sie-runtime-instance"] = runtime_instance
    headers["content-type"] = wire_format.value
    return headers


def _item_id(item_id: str | None, index: int) -> str:
    return f"item-{index}" if item_id is None else item_id
