"""A Triton that computes something simple: the HTTP API with binary tensors, on a free port, in a thread of its own.

What it answers depends on every real token, its position and nothing else, so that a test can tell rows that were
mixed up, padding that leaked, and ids that changed on their way.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

DIM = 32
HEADER_LENGTH = "Inference-Header-Content-Length"


def vector(ids: Sequence[int]) -> NDArray[np.float32]:
    """The raw vector of one row of real tokens."""
    tokens = np.asarray(ids, dtype=np.float64)[:, None]
    places = np.arange(len(ids), dtype=np.float64)[:, None]
    columns = np.arange(1, DIM + 1, dtype=np.float64)[None, :]
    summed: NDArray[np.float32] = np.sin(tokens * columns * 0.37 + places * 0.11).sum(0).astype(np.float32)
    return summed


def expected(ids: Sequence[int], tensor: str = "dense") -> NDArray[np.float32]:
    """What the tensor of a name holds for one row."""
    raw = vector(ids[:1] if tensor.startswith("dense_cls") else ids)
    # A row of nothing but id 0 has no direction.
    return (
        raw if tensor.endswith("_unnormalized") else (raw / max(float(np.linalg.norm(raw)), 1e-12)).astype(np.float32)
    )


def expected_of(pixels: NDArray[np.uint8], tensor: str = "dense") -> NDArray[np.float32]:
    """What the tensor of a name holds for one picture, of which every pixel counts."""
    places = np.arange(1, pixels.size + 1, dtype=np.float64)[:, None]
    columns = np.arange(1, DIM + 1, dtype=np.float64)[None, :]
    summed = (pixels.reshape(-1, 1) * np.sin(places * columns * 0.73)).sum(0)
    raw = summed if tensor.endswith("_unnormalized") else summed / max(float(np.linalg.norm(summed)), 1e-12)
    return np.asarray(raw, dtype=np.float32)


@dataclass(frozen=True)
class Run:
    """One inference request, as it came in: of texts, or of pictures `[rows, height, width, 3]`."""

    model: str
    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    outputs: tuple[str, ...]
    headers: Mapping[str, str] = field(default_factory=dict)
    pixels: NDArray[np.uint8] | None = None

    @property
    def rows(self) -> list[list[int]]:
        """The real tokens of each row."""
        pairs = zip(self.input_ids, self.attention_mask, strict=True)
        return [[int(token) for token in ids[: int(mask.sum())]] for ids, mask in pairs]


Answer = Callable[[Run], Awaitable[web.StreamResponse]]


def tensors(run: Run, arrays: dict[str, NDArray[Any]] | None = None) -> web.Response:
    """The regular answer, or one with these arrays."""
    if arrays is None and run.pixels is not None:
        pictures = list(run.pixels)
        arrays = {name: np.stack([expected_of(picture, name) for picture in pictures]) for name in run.outputs}
    if arrays is None:
        arrays = {name: np.stack([expected(row, name) for row in run.rows]) for name in run.outputs}
    head = json.dumps(
        {
            "model_name": run.model,
            "model_version": "1",
            "outputs": [
                {
                    "name": name,
                    "datatype": "FP32",
                    "shape": list(array.shape),
                    "parameters": {"binary_data_size": array.nbytes},
                }
                for name, array in arrays.items()
            ],
        }
    ).encode()
    body = head + b"".join(array.astype("<f4").tobytes() for array in arrays.values())
    return web.Response(body=body, headers={HEADER_LENGTH: str(len(head))}, content_type="application/octet-stream")


def failure(status: int, message: str) -> Answer:
    """An answer with Triton's error body."""

    async def answer(run: Run) -> web.StreamResponse:
        return web.json_response({"error": message}, status=status)

    return answer


async def compute(run: Run) -> web.StreamResponse:
    """The regular answer."""
    return tensors(run)


@dataclass
class FakeTriton:
    """Starts with `with`; `answer` and `ready` may be changed at any time, from any thread."""

    answer: Answer = compute
    ready: bool = True
    host: str = "127.0.0.1"
    port: int = 0
    runs: list[Run] = field(default_factory=list)
    running: int = 0
    most_running: int = 0

    def __enter__(self) -> FakeTriton:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(60)

    @property
    def url(self) -> str:
        """`host:port`, as the frontend's settings want it."""
        return f"{self.host}:{self.port}"

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main(started))
        self._loop.close()

    async def _main(self, started: threading.Event) -> None:
        self._stop = asyncio.Event()
        app = web.Application(client_max_size=1 << 28)
        app.router.add_get("/v2/models/{model}/ready", self._ready)
        app.router.add_get("/v2/health/ready", self._ready)
        app.router.add_post("/v2/models/{model}/infer", self._infer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, self.host, self.port)
        await site.start()
        assert site._server is not None
        self.port = int(site._server.sockets[0].getsockname()[1])  # type: ignore[attr-defined]
        started.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _ready(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.ready else 400)

    async def _infer(self, request: web.Request) -> web.StreamResponse:
        parsed = _parse(request.match_info["model"], await request.read(), int(request.headers[HEADER_LENGTH]))
        run = replace(parsed, headers=request.headers)
        self.runs.append(run)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self.answer(run)
        finally:
            self.running -= 1


def _parse(model: str, body: bytes, header_length: int) -> Run:
    head = json.loads(body[:header_length])
    arrays: dict[str, NDArray[Any]] = {}
    offset = header_length
    for tensor in head["inputs"]:
        size = tensor["parameters"]["binary_data_size"]
        dtype = {"INT64": "<i8", "UINT8": "|u1"}[tensor["datatype"]]
        arrays[tensor["name"]] = np.frombuffer(body[offset : offset + size], dtype).reshape(tensor["shape"])
        offset += size
    assert offset == len(body)
    outputs = tuple(output["name"] for output in head["outputs"])
    assert all(output["parameters"]["binary_data"] for output in head["outputs"])
    if "pixels" in arrays:
        assert list(arrays) == ["pixels"] and arrays["pixels"].dtype == np.uint8
        nothing = np.zeros((0, 0), np.int64)
        return Run(model, nothing, nothing, outputs, pixels=arrays["pixels"])
    assert all(array.dtype == np.int64 for array in arrays.values())
    return Run(model, arrays["input_ids"], arrays["attention_mask"], outputs)
