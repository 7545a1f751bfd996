"""SIE's encode call as bytes, for our server and for theirs."""

from __future__ import annotations

from collections.abc import Sequence

import msgpack
import msgspec
import numpy as np

CONTENT_TYPE = "application/msgpack"


def request(texts: Sequence[str]) -> bytes:
    """The body of an encode call."""
    return msgspec.msgpack.encode({"items": [{"text": text} for text in texts]})


def vectors(answer: bytes) -> list[list[float]]:
    """The dense vectors of an answer, read without any code of the server's."""
    # The keys of an array are bytes, those of everything else are text.
    content = msgpack.unpackb(answer, strict_map_key=False)
    arrays = [item["dense"]["values"] for item in content["items"]]
    return [np.frombuffer(array[b"data"], np.dtype(array[b"type"])).astype(np.float64).tolist() for array in arrays]
