"""What both Python-based backends share: requests in, one run per group of equal shapes, responses out.

Runs inside tritonserver's stub process, the only place where `triton_python_backend_utils` can be imported.
Tensors pass by DLPack in both directions: the stub reads numpy 2 arrays wrongly, and DLPack copies nothing.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils

from sie_triton.backends.embedded import ALONE_THREADS, STREAMS
from sie_triton.backends.received import ReceivedConfig
from sie_triton.embedded.batching import Array, Arrays, BatchPlan, RowsError
from sie_triton.embedded.last_resort import UNANSWERED, end_process, lack_of_room
from sie_triton.embedded.run_limit import RunLimit, limit_from_environment
from sie_triton.embedded.streams import Streams


class DlpackInput:
    """A request's tensor for `from_dlpack` of today.

    The stub's own `__dlpack__` knows none of the keywords of newer protocols; libraries try those first and catch
    the `TypeError`, which takes longer (30 us a tensor) than all the rest that is done to a small request.
    """

    __slots__ = ("_tensor",)

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor

    def __dlpack__(self, **_: object) -> Any:
        return self._tensor.to_dlpack()

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # kDLCPU: tritonserver hands inputs over in CPU memory (FORCE_CPU_ONLY_INPUT_TENSORS)


class BatchedModel(ABC):
    """One model instance. A subclass loads the model's file and runs it on whole batches."""

    default_filename: str
    may_be_directory = False
    """Whether the model's file may be a directory that holds `default_filename`."""

    def initialize(self, args: dict[str, str]) -> None:
        """Triton's entry point. Raises `TritonModelException`, with every reason, if the model must not be served."""
        self.name, self.version = args["model_name"], args["model_version"]
        self.instance = args.get("model_instance_name") or self.name
        self.config = ReceivedConfig.of(json.loads(args["model_config"]))
        self.on_gpu = args.get("model_instance_kind") == "GPU"
        self.device_id = int(args.get("model_instance_device_id") or 0)
        filename = self.config.default_model_filename or self.default_filename
        path = Path(args["model_repository"]) / args["model_version"] / filename
        if self.may_be_directory and path.is_dir():
            path /= self.default_filename
        if not path.is_file():
            raise pb_utils.TritonModelException(f"unable to find `{path}` for model `{self.name}`")
        self.stream_count = self._at_least_one(STREAMS)
        self.alone_threads = min(self._at_least_one(ALONE_THREADS), len(os.sched_getaffinity(0)))
        if reasons := [*self._unsupported(), *self.load(path)]:
            raise pb_utils.TritonModelException(f"model `{self.name}` is refused: " + "; ".join(reasons))
        self.plan = BatchPlan.of(self.config)
        self._warned: set[str] = set()
        self._limit = RunLimit(self.name, limit_from_environment())
        self._streams = Streams(self.stream_count, self.name, self.begin_stream) if self.stream_count > 1 else None

    @abstractmethod
    def load(self, path: Path) -> list[str]:
        """Open the model at `path`; return the reasons for which NVIDIA's backend would refuse it."""

    @abstractmethod
    def decode(self, tensor: DlpackInput) -> Array:
        """A request's tensor as an array, without a copy."""

    @abstractmethod
    def concatenate(self, parts: Sequence[Array]) -> Array:
        """Join arrays along their first axis."""

    @abstractmethod
    def encode(self, array: Array) -> Any:
        """What the stub's `Tensor.from_dlpack` takes, without a copy."""

    @abstractmethod
    def run(self, feed: Arrays, outputs: Sequence[str]) -> Arrays:
        """Compute `outputs`, contiguous, from the graph's inputs."""

    def begin_stream(self) -> None:  # noqa: B027 - most backends have nothing to do
        """Called once in the thread of each stream, before its first run."""

    def run_alone(self, feed: Arrays, outputs: Sequence[str]) -> Arrays:
        """As `run`, of one row while nothing else is computed."""
        return self.run(feed, outputs)

    def execute(self, requests: Sequence[Any]) -> list[Any] | None:
        """Triton's entry point: one response per request, in order, or None where a stream answers later."""
        if self._streams is None:
            answers: list[Any] = [None] * len(requests)
            self._compute(requests, answers.__setitem__)
            return answers
        senders = [request.get_response_sender() for request in requests]
        self._streams.submit(partial(self._answer, list(requests), senders))
        return None

    def finalize(self) -> None:
        """Triton's entry point at the end: what is under way is answered first."""
        if self._streams is not None:
            self._streams.close()

    def _answer(self, requests: list[Any], senders: list[Any]) -> None:
        """Compute in a stream and answer each request, whatever happens."""
        waiting = dict(enumerate(senders))

        def send(index: int, response: Any) -> None:
            sender = waiting.pop(index)
            try:
                sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            except Exception as error:  # it is closed now, and tritonserver would wait for its answer for ever
                end_process(UNANSWERED, f"model `{self.name}` could not send an answer, so its process ends: {error}")

        try:
            self._compute(requests, send)
        except BaseException as error:  # nobody else would answer
            for index in list(waiting):
                send(index, _failure(f"model `{self.name}` failed: {error}"))

    def _compute(self, requests: Sequence[Any], respond: Callable[[int, Any], None]) -> None:
        """One run per group of equal shapes; `respond` gets each request's index and its response."""
        inputs = [
            {tensor.name(): self.decode(DlpackInput(tensor)) for tensor in request.inputs()} for request in requests
        ]
        wanted = [request.requested_output_names() for request in requests]
        for group in self.plan.groups(inputs):
            for index, response in zip(group, self._serve(group, inputs, wanted), strict=True):
                respond(index, response)

    def _serve(self, group: list[int], inputs: list[Arrays], wanted: list[list[str]]) -> list[Any]:
        members = [inputs[index] for index in group]
        names = wanted[group[0]] if len(group) == 1 else sorted({name for index in group for name in wanted[index]})
        try:
            with self._limit.run():
                computed = self._run_of(members)(self.plan.gather(members, self.concatenate), names)
        except Exception as error:  # whatever a graph can raise is the answer to its requests
            if len(group) > 1:  # one request's bad values must not fail its neighbors
                return [self._serve([index], inputs, wanted)[0] for index in group]
            return [_failure(f"model `{self.name}` failed on {_describe(members[0])}: {error}")]
        parts = {name: self.plan.split(name, output, members) for name, output in computed.items()}
        for name, output in computed.items():
            self._warn_of_surplus(name, self.plan.surplus(name, output, members))
        return [self._respond(place, wanted[index], parts) for place, index in enumerate(group)]

    def _run_of(self, members: list[Arrays]) -> Callable[[Arrays, Sequence[str]], Arrays]:
        """How to compute them: one row that has the machine for itself may be computed in another way."""
        alone = self._streams is not None and self._streams.busy == 1 and len(members) == 1
        return self.run_alone if alone and tuple(members[0][self.plan.first_input].shape[:1]) == (1,) else self.run

    def _respond(self, place: int, wanted: list[str], parts: dict[str, list[Array | RowsError]]) -> Any:
        tensors, size = [], 0
        for name in wanted:
            part = parts[name][place]
            if isinstance(part, RowsError):
                message = f"model `{self.name}`: failed to split the output: {part}"
                return _failure(message, pb_utils.TritonError.UNSUPPORTED)
            tensors.append(pb_utils.Tensor.from_dlpack(name, self.encode(part)))
            size += int(part.nbytes)
        if self._streams is not None and (lack := lack_of_room(size)):
            return _failure(f"model `{self.name}`: {lack}")
        return pb_utils.InferenceResponse(tensors)

    def _at_least_one(self, key: str) -> int:
        try:
            return max(1, self.config.integer(key, 1))
        except ValueError as error:
            raise pb_utils.TritonModelException(f"model `{self.name}` is refused: {error}") from error

    def _unsupported(self) -> list[str]:
        """What NVIDIA's backends serve and this one does not."""
        reasons = [
            f"`{tensor.name}` is TYPE_STRING, which the embedded server does not serve"
            for tensor in (*self.config.inputs, *self.config.outputs)
            if tensor.data_type == "TYPE_STRING"
        ]
        if self.config.is_sequence:
            reasons.append("`sequence_batching` is not served by the embedded server")
        return reasons

    def _warn_of_surplus(self, name: str, rows: int) -> None:
        if rows > 0 and name not in self._warned:
            self._warned.add(name)
            pb_utils.Logger.log_warn(f"model `{self.name}`: {rows} surplus rows of output `{name}` are dropped")


def row_major(shape: Sequence[int], itemsize: int = 1) -> tuple[int, ...]:
    """Strides of a row-major array of `shape`, computed as the stub does.

    For an array without elements some are 0; numpy and torch write others there, for which the stub refuses it.
    """
    return tuple(prod(shape[axis + 1 :]) * itemsize for axis in range(len(shape)))


def _failure(message: str, code: int | None = None) -> Any:
    error = pb_utils.TritonError(message) if code is None else pb_utils.TritonError(message, code)
    return pb_utils.InferenceResponse([], error)


def _describe(inputs: Arrays) -> str:
    return ", ".join(f"`{name}` {array.dtype}{list(array.shape)}" for name, array in inputs.items())
