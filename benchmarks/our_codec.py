"""Our frontend's way to write a dense answer, for `codecs`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sie_frontend.contract.negotiation import WireFormat
from sie_frontend.contract.responses import Timing, Usage
from sie_frontend.outputs.response import ItemOutputs, encode_body

_TIMING = Timing(total_ms=1.0, queue_ms=0.0, tokenization_ms=0.0, inference_ms=1.0)


def write_msgpack(array: NDArray[np.float32]) -> bytes:
    """The whole body of an encode answer, one item for each row."""
    return _write(array, WireFormat.MSGPACK)


def write_json(array: NDArray[np.float32]) -> bytes:
    """The same in JSON."""
    return _write(array, WireFormat.JSON)


def _write(array: NDArray[np.float32], wire_format: WireFormat) -> bytes:
    return encode_body(
        "model",
        [ItemOutputs(values={"dense": row}) for row in array],
        declared_dims={"dense": array.shape[1]},
        timing=_TIMING,
        usage=Usage(input_tokens=1),
        wire_format=wire_format,
    )
