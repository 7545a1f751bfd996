"""A built repository behind the frontend's own application: HTTP in memory, the graphs run by the repository's runner.

Only Triton's process is left out. What the frontend does before and after it is what it does in production.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias
from unittest import mock

import httpx
import numpy as np
from sie_frontend.http.app import create_app
from sie_frontend.settings import Settings

from sie_triton.verify.model_runner import ModelRunner

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"


class _Runners:
    """`ReplicaSet` for a repository in this process: every model is ready, and computed where it is asked for."""

    repository: Path

    def __init__(self, *_: object, **__: object) -> None:
        self._runners: dict[str, ModelRunner] = {}
        self._lock = threading.Lock()

    async def close(self) -> None:
        """Nothing is open."""

    async def model_ready(self, _: str) -> bool:
        """A graph that cannot be opened fails when it is asked for."""
        return True

    def serving(self, _: str, at_most: int = 0) -> int:
        """One."""
        return 1

    async def infer(
        self, model: str, inputs: Mapping[str, Array], outputs: Sequence[str], *, timeout_s: float | None = None
    ) -> dict[str, Array]:
        """What Triton would answer."""
        with self._lock:
            if model not in self._runners:
                self._runners[model] = ModelRunner(self.repository, model)
            return self._runners[model].run(inputs, outputs)


@contextlib.asynccontextmanager
async def opened(repository: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the running application."""
    runners = type("Runners", (_Runners,), {"repository": repository})
    with mock.patch("sie_frontend.serving.engine.ReplicaSet", runners):
        app = create_app(Settings(repository=repository, triton_url="127.0.0.1:1"))
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://frontend", timeout=120) as client,
        ):
            while (await client.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.005)
            yield client


class Answers:
    """What the served model says, one request per text: a refusal of one text must not hide the others."""

    def __init__(self, client: httpx.AsyncClient, model: str, kind: str, width: int) -> None:
        self._client = client
        self._model = model
        self._output = {"dense": "dense", "sparse": "sparse", "multi": "multivector"}.get(kind, "score")
        self._width = width

    async def encode(self, texts: Sequence[str], *, is_query: bool) -> list[Array | str]:
        """One array per text, or the message of its refusal."""
        params = {"output_types": [self._output], "options": {"is_query": True} if is_query else {}}
        bodies = [{"items": [{"text": text}], "params": params} for text in texts]
        return [await self._asked("encode", body) for body in bodies]

    async def score(self, query: str, documents: Sequence[str]) -> list[Array | str]:
        """One score per document, or the message of its refusal."""
        bodies = [{"query": {"text": query}, "items": [{"text": document}]} for document in documents]
        return [await self._asked("score", body) for body in bodies]

    async def _asked(self, route: str, body: Mapping[str, Any]) -> Array | str:
        answer = await self._client.post(
            f"/v1/{route}/{self._model}", json=body, headers={"accept": "application/json"}
        )
        if answer.status_code != 200:
            return f"{answer.status_code} {answer.text[:300]}"
        content = answer.json()
        if route == "score":
            return np.asarray(content["scores"][0]["score"], dtype=np.float32)
        found = content["items"][0][self._output]
        values = np.asarray(found["values"], dtype=np.float32)
        if self._output != "sparse":
            return values
        vector = np.zeros(self._width, dtype=np.float32)
        vector[found["indices"]] = values
        return vector


def run(work: Any) -> Any:
    """Run a coroutine to its end."""
    return asyncio.run(work)


def blocks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Neighbours together, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))
