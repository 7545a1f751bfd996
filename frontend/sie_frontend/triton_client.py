"""The only module that speaks to Triton. Its failures become `TritonFailure`s at this boundary, of five kinds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, TypeAlias

import aiohttp
import numpy as np
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.http.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

# What Triton answers when a queue policy rejects a request.
_QUEUE_MARKS = ("Exceeds maximum queue size", "Request timeout expired", "exceeds maximum queue size")
# A model that is being loaded, unloaded or was never there; the last one is a Python-based backend whose process died.
_ABSENT_MARKS = ("is not found", "is not ready", "has no available versions", "unknown model", "is not healthy")
_MEMORY_MARKS = ("out of memory", "Failed to allocate memory", "bad_alloc", "CUDA error")


class FailureKind(Enum):
    """Why a call to Triton failed, by what the caller can do about it."""

    UNREACHABLE = "unreachable"  # no connection, or lost in flight: it may be starting again
    OVERLOADED = "overloaded"  # a queue policy refused it
    NOT_READY = "not ready"  # the server runs, the model does not
    OUT_OF_MEMORY = "out of memory"
    REJECTED = "rejected"  # anything else that Triton says


class TritonFailure(Exception):
    """A call to Triton that gave no tensors. The message is Triton's own, or the transport's."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class TritonClient:
    """Asynchronous Triton client over HTTP with binary tensors and kept connections. Made inside a running loop."""

    def __init__(self, url: str, *, connections: int = 64, timeout_s: float = 120.0) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._client = InferenceServerClient(url, conn_limit=connections, conn_timeout=timeout_s)
        self._outputs: dict[str, Any] = {}

    async def close(self) -> None:
        """Close the kept connections."""
        await self._client.close()

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Array]:
        """Run `model` on arrays of shape `[rows, …]`; returns the named outputs. Raises `TritonFailure`.

        `headers` join the request's own, for tracing.
        """
        tensors = []
        for name, array in inputs.items():
            tensor = InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array, binary_data=True)
            tensors.append(tensor)
        try:
            result = await asyncio.wait_for(
                self._client.infer(
                    model, tensors, outputs=[self._requested(name) for name in outputs], headers=headers
                ),
                self._timeout_s,
            )
        except InferenceServerException as error:
            raise TritonFailure(_kind_of(error), str(error.message())) from error
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise TritonFailure(FailureKind.UNREACHABLE, str(error) or type(error).__name__) from error
        arrays = {}
        for name in outputs:
            array = result.as_numpy(name)
            if array is None:
                raise TritonFailure(FailureKind.REJECTED, f"Triton returned no tensor `{name}` for `{model}`")
            arrays[name] = array
        return arrays

    def _requested(self, name: str) -> Any:
        if name not in self._outputs:
            self._outputs[name] = InferRequestedOutput(name, binary_data=True)
        return self._outputs[name]

    async def server_ready(self) -> bool:
        """Whether the server answers that it and the models it loaded at start are ready."""
        return await self._probe(self._client.is_server_ready())

    async def model_ready(self, model: str) -> bool:
        """Whether one Triton model answers that it is ready."""
        return await self._probe(self._client.is_model_ready(model))

    async def _probe(self, call: Any) -> bool:
        try:
            return bool(await asyncio.wait_for(call, 5.0))
        except (InferenceServerException, aiohttp.ClientError, asyncio.TimeoutError, OSError):
            return False


def _kind_of(error: InferenceServerException) -> FailureKind:
    message = str(error.message())
    for marks, kind in (
        (_QUEUE_MARKS, FailureKind.OVERLOADED),
        (_ABSENT_MARKS, FailureKind.NOT_READY),
        (_MEMORY_MARKS, FailureKind.OUT_OF_MEMORY),
    ):
        if any(mark in message for mark in marks):
            return kind
    return FailureKind.OVERLOADED if str(error.status()) == "503" else FailureKind.REJECTED
