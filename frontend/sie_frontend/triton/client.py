"""The only module that speaks to Triton: KServe's protocol, version 2, over HTTP with binary tensors.

Its failures become `TritonFailure`s at this boundary, of five kinds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from math import prod
from typing import Any, Final, TypeAlias
from urllib.parse import quote, urlsplit

import msgspec
import numpy as np
import orjson

from sie_frontend.rows import INLINE_BYTES, Array
from sie_frontend.setting_values import is_loopback
from sie_frontend.triton.connections import Answer, ConnectionPool, ExchangeError
from sie_frontend.triton.patience import RunPatience

PROBE_TIMEOUT_S = 5.0
# So long a call may take before connections that it holds up are looked for, and so long they may take to answer.
APART_S: Final = 0.1
SIFT_S: Final = 0.5
# A run that a load holds up is sent so often in all.
TRIES: Final = 3
LOOK_S: Final = 2.0

# What Triton answers when a queue policy rejects a request.
_QUEUE_MARKS = ("Exceeds maximum queue size", "Request timeout expired", "exceeds maximum queue size")
# A model that is being loaded, unloaded or was never there.
_ABSENT_MARKS = ("is not found", "is not ready", "has no available versions", "unknown model")
# A Python-based backend whose process died.
_BROKEN_MARKS = ("is not healthy",)
# The pool is what goes between tritonserver and the processes of its Python-based models.
_MEMORY_MARKS = (
    "out of memory",
    "Failed to allocate memory",
    "bad_alloc",
    "CUDA error",
    "shared memory pool",
    "can't allocate memory",  # PyTorch's words
    "Unable to allocate",  # NumPy's
)

_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "BOOL": np.dtype("?"),
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}
_DATATYPES: Final[dict[np.dtype[Any], str]] = {dtype: name for name, dtype in _DTYPES.items()}


Late: TypeAlias = Callable[[str, float], None]
"""Told of a model that does not answer, and for how many seconds."""


class FailureKind(Enum):
    """Why a call to Triton failed, by what the caller can do about it."""

    UNREACHABLE = "unreachable"  # no connection, or lost in flight: it may be starting again
    OVERLOADED = "overloaded"  # a queue policy refused it
    NOT_READY = "not ready"  # the server runs, the model does not
    BROKEN = "broken"  # the model does not run although Triton goes on to call it ready
    OUT_OF_MEMORY = "out of memory"
    REJECTED = "rejected"  # anything else that Triton says


class TritonFailure(Exception):
    """A call to Triton that gave no tensors. The message is Triton's own, or the transport's."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Parameters(msgspec.Struct):
    binary_data_size: int | None = None


class _Output(msgspec.Struct):
    name: str
    datatype: str
    shape: list[int]
    parameters: _Parameters = msgspec.field(default_factory=_Parameters)


class _Head(msgspec.Struct):
    outputs: list[_Output]


class _Count(msgspec.Struct):
    count: int


class _InferenceStats(msgspec.Struct):
    success: _Count


class _ModelStats(msgspec.Struct):
    inference_stats: _InferenceStats


class _Stats(msgspec.Struct):
    model_stats: list[_ModelStats]


_READ_HEAD = msgspec.json.Decoder(_Head)
_READ_STATS = msgspec.json.Decoder(_Stats)


class TritonClient:
    """Asynchronous Triton client with kept connections. Made inside a running loop.

    `url` is `host:port`, with or without `http://` before it and a path behind it. As many connections are open as
    calls are under way; up to `connections` stay open between calls. `late` is told of each run that takes much longer
    than the last ones of its model though Triton loads nothing, again and again until it is answered. Raises
    `ValueError` for a URL of another kind.
    """

    def __init__(self, url: str, *, connections: int = 64, timeout_s: float = 120.0, late: Late | None = None) -> None:
        host, port, self._path = parse_url(url)
        self.url = url
        # Behind a name or an address of a network, such as a Service's of Kubernetes, there may be several.
        self._one_server = is_loopback(host)
        self._timeout_s = timeout_s
        self._late = late or (lambda *_: None)
        self._loading = 0
        self._patience = RunPatience()
        self._answered: dict[str, int] = {}  # how many runs of each model since it was loaded, as far as we know
        self._given_up: dict[str, set[asyncio.Future[str]]] = {}  # of each run under way, by model
        self._pool = ConnectionPool(host, port, kept=connections)
        self._host = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def close(self) -> None:
        """Close the kept connections."""
        self._pool.close()

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        *,
        timeout_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Array]:
        """Run `model` on arrays of shape `[rows, …]`; returns the named outputs, read-only. Raises `TritonFailure`.

        `headers` join the request's own, for tracing.
        """
        arrays = [np.asarray(array, order="C") for array in inputs.values()]
        head = orjson.dumps(
            {
                "inputs": [
                    {
                        "name": name,
                        "datatype": _DATATYPES[array.dtype],
                        "shape": array.shape,
                        "parameters": {"binary_data_size": array.nbytes},
                    }
                    for name, array in zip(inputs, arrays, strict=True)
                ],
                "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in outputs],
            }
        )
        length = len(head) + sum(array.nbytes for array in arrays)
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items()) if headers else ""
        lines = (
            f"POST {self._path}/v2/models/{quote(model)}/infer HTTP/1.1\r\nHost: {self._host}\r\n"
            "Content-Type: application/octet-stream\r\n"
            f"Inference-Header-Content-Length: {len(head)}\r\nContent-Length: {length}\r\n"
            f"{more}\r\n"
        )
        # The bytes of every array, whatever its type and shape; this is the only copy.
        parts: list[Any] = [lines.encode("ascii"), head, *(array.reshape(-1).view(np.uint8) for array in arrays)]
        # Python's lock is let go of for a large copy, so that the event loop goes on in the meantime.
        body = b"".join(parts) if length <= INLINE_BYTES else await asyncio.to_thread(b"".join, parts)
        try:
            answer = await self._run(model, body, timeout_s or self._timeout_s)
        except ExchangeError as error:
            raise TritonFailure(FailureKind.UNREACHABLE, str(error)) from error
        if answer.status != 200:
            raise refusal(answer)
        try:
            found = _tensors(answer)
        except ValueError as error:  # msgspec's errors are ValueErrors too
            raise TritonFailure(
                FailureKind.REJECTED, f"Triton's answer for `{model}` cannot be read: {error}"
            ) from error
        for name in outputs:
            if name not in found:
                raise TritonFailure(FailureKind.REJECTED, f"Triton returned no tensor `{name}` for `{model}`")
        return {name: found[name] for name in outputs}

    async def _run(self, model: str, request: bytes, timeout_s: float) -> Answer:
        """Send an inference; again on another connection, if it is late and Triton loads a model.

        The thread that loads may be the one that should take the request or hand over the answer, whoever asked for the
        load. Inference changes nothing in Triton, but it costs: so a run is late only if it takes much longer than its
        model's runs did of late, and the other connection has just shown that its thread is free.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        tries = {loop.create_task(self._pool.exchange(request, timeout_s))}
        given_up: asyncio.Future[str] = loop.create_future()
        self._given_up.setdefault(model, set()).add(given_up)
        sent = 1
        try:
            while True:
                waiting = self._patience.of(model) if sent < TRIES else None
                either: set[asyncio.Future[Any]] = {given_up, *tries}
                await asyncio.wait(either, timeout=waiting, return_when=asyncio.FIRST_COMPLETED)
                if given_up.done():
                    raise TritonFailure(FailureKind.BROKEN, given_up.result())
                done = {one for one in tries if one.done()}
                answered = [one for one in done if one.exception() is None]
                if answered and sent == 1:
                    self._patience.took(model, loop.time() - begun)
                if answered or done == tries:
                    found = (answered or list(done))[0].result()
                    self._answered[model] = self._answered.get(model, 0) + (found.status == 200)
                    return found
                tries -= done
                if not done and await self._loads():
                    sent += 1
                    probe = self._get("/v2/health/live")
                    tries.add(loop.create_task(self._pool.exchange_proven(probe, SIFT_S, request, timeout_s)))
                elif not done and await self._was_loaded_anew(model):
                    raise TritonFailure(FailureKind.BROKEN, f"`{model}` was loaded anew while it computed")
                elif not done:
                    self._late(model, loop.time() - begun)
        finally:
            _let_go(tries)
            self._given_up[model].discard(given_up)

    def give_up(self, model: str, cause: str) -> None:
        """The runs of a model that are under way will not be answered: fail them as those of a broken one."""
        for given_up in self._given_up.get(model, ()):
            if not given_up.done():
                given_up.set_result(cause)

    async def _loads(self) -> bool:
        """Whether Triton loads a model now, for us or for anybody else."""
        if self._loading:
            return True
        request = self._post_of("/v2/repository/index", b"{}")
        try:
            answer = await self._pool.exchange_apart(request, LOOK_S)
        except ExchangeError:
            return False
        return b'"LOADING"' in answer.body

    async def _was_loaded_anew(self, model: str) -> bool:
        """Whether Triton has counted fewer runs of a model than it gave us: then nobody answers what ran before.

        A process that computes several runs takes them along when it dies, and Triton forgets them. Where a balancer
        may stand in between, another Triton may have counted: nothing is concluded then.
        """
        if not self._one_server:
            return False
        try:
            answer = await self._pool.exchange_apart(self._get(f"/v2/models/{quote(model)}/stats"), LOOK_S)
            found = _READ_STATS.decode(answer.body).model_stats if answer.status == 200 else []
        except (ExchangeError, msgspec.DecodeError):
            return False
        counted = sum(one.inference_stats.success.count for one in found)
        if not found or counted >= self._answered.get(model, 0):
            return False
        self._answered[model] = counted
        return True

    async def post(self, path: str, body: bytes, timeout_s: float, *, apart: bool = False) -> Answer:
        """POST a JSON body; `path` begins behind the URL's own. Raises `ExchangeError`.

        One that takes long goes `apart`: Triton has a thread for several connections, and answers none of them as long
        as it loads a model for one. So that one is opened anew, and those that its thread holds up are let go.
        """
        request = self._post_of(path, body)
        if not apart:
            return await self._pool.exchange(request, timeout_s)
        self._loading += 1
        answer = asyncio.ensure_future(self._pool.exchange_apart(request, timeout_s))
        try:
            await asyncio.wait([answer], timeout=APART_S)
            if not answer.done():
                await self._pool.sift(self._get("/v2/health/live"), SIFT_S)
            return await answer
        finally:
            self._loading -= 1
            _let_go([answer])

    async def server_live(self) -> bool:
        """Whether the server answers, whatever becomes of its models."""
        return await self._probe("/v2/health/live")

    async def server_ready(self) -> bool:
        """Whether the server answers that it and the models it loaded at start are ready."""
        return await self._probe("/v2/health/ready")

    async def model_ready(self, model: str) -> bool:
        """Whether one Triton model answers that it is ready."""
        return await self._probe(f"/v2/models/{quote(model)}/ready")

    async def _probe(self, path: str) -> bool:
        """Whether Triton answers 200; asked on a second connection where the first is held up, as by a load."""
        request = self._get(path)
        first = asyncio.ensure_future(self._pool.exchange(request, PROBE_TIMEOUT_S))
        tries = [first]
        try:
            done, _ = await asyncio.wait(tries, timeout=SIFT_S)
            if not done:
                tries.append(asyncio.ensure_future(self._pool.exchange_apart(request, PROBE_TIMEOUT_S)))
                done, _ = await asyncio.wait(tries, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result().status == 200
        except ExchangeError:
            return False
        finally:
            _let_go(tries)

    def _get(self, path: str) -> bytes:
        return f"GET {self._path}{path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode("ascii")

    def _post_of(self, path: str, body: bytes) -> bytes:
        lines = (
            f"POST {self._path}{path} HTTP/1.1\r\nHost: {self._host}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return lines.encode("ascii") + body


def _let_go(tries: Iterable[asyncio.Future[Answer]]) -> None:
    """End what nobody waits for any more; what has failed meanwhile is nobody's matter either."""
    for one in tries:
        one.cancel()
        one.add_done_callback(lambda done: done.cancelled() or done.exception())
        if one.done() and not one.cancelled():
            one.exception()


def parse_url(url: str) -> tuple[str, int, str]:
    """Host without brackets, port (80 if there is none) and path of Triton's URL. Raises `ValueError`."""
    wrong = f"Triton's address must be `host:port`, with or without `http://` before it, not {url!r}"
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(wrong) from None
    if parts.scheme != "http" or not host or parts.query or parts.fragment or parts.username is not None:
        raise ValueError(wrong)
    return host, port or 80, quote(parts.path.rstrip("/"))


def _tensors(answer: Answer) -> dict[str, Array]:
    """The named arrays of an answer: views of its body. Raises `ValueError` for one that contradicts itself."""
    length = answer.headers.get(b"inference-header-content-length")
    if length is None:  # it is all JSON: none of its tensors has any bytes
        head, body = answer.body, b""
    elif length.isdigit():
        head, body = answer.split(int(length))
    else:
        raise ValueError(f"its header is said to have {length!r} bytes")
    arrays: dict[str, Array] = {}
    offset = 0
    for output in _READ_HEAD.decode(head).outputs:
        size = output.parameters.binary_data_size
        dtype = _DTYPES.get(output.datatype)
        if size is None or dtype is None:
            raise ValueError(f"`{output.name}` is not a binary tensor of numbers")
        if min(output.shape, default=0) < 0 or prod(output.shape) * dtype.itemsize != size:
            raise ValueError(f"`{output.name}` is {output.datatype} {output.shape} in {size} bytes")
        if offset + size > len(body):
            raise ValueError(f"it ends in the middle of `{output.name}`")
        arrays[output.name] = np.frombuffer(body, dtype, prod(output.shape), offset).reshape(output.shape)
        offset += size
    if offset != len(body):
        raise ValueError(f"{len(body) - offset} bytes are left over")
    return arrays


def refusal(answer: Answer) -> TritonFailure:
    """What an answer other than 200 says."""
    try:
        message = str(orjson.loads(answer.body)["error"])
    except (ValueError, KeyError, TypeError):
        message = f"HTTP {answer.status}: {answer.body[:300].decode(errors='replace')}"
    for marks, kind in (
        (_QUEUE_MARKS, FailureKind.OVERLOADED),
        (_ABSENT_MARKS, FailureKind.NOT_READY),
        (_BROKEN_MARKS, FailureKind.BROKEN),
        (_MEMORY_MARKS, FailureKind.OUT_OF_MEMORY),
    ):
        if any(mark in message for mark in marks):
            return TritonFailure(kind, message)
    return TritonFailure(FailureKind.OVERLOADED if answer.status == 503 else FailureKind.REJECTED, message)
