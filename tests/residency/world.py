"""A repository of many models on the real tritonserver, whose loads and runs take what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import onnx
from compiler import tiny
from embedded.graphs import FLOAT, INT64, graph
from frontend.repository import write_repository
from frontend.wire import dense, encode, texts
from numpy.typing import NDArray
from sie_frontend.http.app import create_app
from sie_frontend.manifest import Manifest, dump_manifest, read_manifest
from sie_frontend.residency.carrier import Discharge
from sie_frontend.serving.ailments import Ailments
from sie_frontend.settings import Settings
from tokenizers import Tokenizer

from sie_triton.embedded.server import TritonServer

MODEL = Path(__file__).parent / "slow_model.py"
OUTPUTS = ("dense", "dense_unnormalized", "dense_cls", "dense_cls_unnormalized")
NAMES = tuple("pqrs")
GRAPH = "o"  # the name of one that is an ONNX graph
CONFIG = """
backend: "python"
max_batch_size: 32
input [ { name: "input_ids" data_type: TYPE_INT64 dims: [ -1 ] },
        { name: "attention_mask" data_type: TYPE_INT64 dims: [ -1 ] } ]
output [ OUTPUTS ]
instance_group [ { kind: KIND_CPU count: 1 } ]
""".replace("OUTPUTS", ", ".join(f'{{ name: "{name}" data_type: TYPE_FP32 dims: [ 32 ] }}' for name in OUTPUTS))


def sie_id(name: str) -> str:
    """The model's id."""
    return f"acme/{name}"


def write_world(folder: Path, names: Sequence[str] = NAMES) -> Path:
    """A manifest of models with a profile each, and for every one a folder that tritonserver loads."""
    repository = folder / "repository"
    whole = None
    for number, name in enumerate((*names, GRAPH)):
        bundle = tiny.BUNDLE.replace("acme/tiny", sie_id(name))
        one = read_manifest(write_repository(folder / name / "repository", bundle))
        whole = one if whole is None else msgspec.structs.replace(whole, models={**whole.models, **one.models})
        model = (folder / name / "repository" / f"acme__{name}").rename(_made(repository) / f"acme__{name}")
        (model / "config.pbtxt").write_text(CONFIG)
        if name == GRAPH:
            write_graph(model)
            continue
        (model / "1" / "model.py").write_bytes(MODEL.read_bytes())
        behave(repository, name, number=number)
    assert isinstance(whole, Manifest)
    (repository / "manifest.json").write_bytes(dump_manifest(whole))
    return repository


def write_graph(model: Path) -> None:
    """Every output is the number of real tokens, times 1 to 32."""
    nodes: list[Any] = [
        ("Cast", ["attention_mask"], ["real"], {"to": FLOAT}),
        ("ReduceSum", ["real", "axis"], ["count"]),
        ("MatMul", ["count", "columns"], ["row"]),
        ("Cast", ["input_ids"], ["ids"], {"to": FLOAT}),
        ("ReduceSum", ["ids", "axis"], ["sum"]),
        ("Mul", ["sum", "nothing"], ["zero"]),
        *(("Add", ["row", "zero"], [name]) for name in OUTPUTS),
    ]
    constants = {
        "axis": np.asarray([1]),
        "columns": np.arange(1, 33, dtype=np.float32)[None],
        "nothing": np.zeros(1, np.float32),
    }
    inputs = [("input_ids", INT64, ("b", "n")), ("attention_mask", INT64, ("b", "n"))]
    onnx.save(graph(nodes, inputs, [(name, FLOAT, ("b", 32)) for name in OUTPUTS], constants), model / "1/model.onnx")
    (model / "config.pbtxt").write_text(CONFIG.replace('"python"', '"onnxruntime"'))


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def behave(repository: Path, name: str, **changes: Any) -> None:
    """How a model behaves from its next load on: `load_s`, `run_s`, `finalize_s`, `megabytes`, `fails`."""
    path = repository / f"acme__{name}" / "1" / ".." / "world.json"
    usual = {"load_s": 0.0, "run_s": 0.0, "finalize_s": 0.0, "megabytes": 0, "fails": False}
    known = json.loads(path.read_text()) if path.exists() else usual
    path.write_text(json.dumps({**usual, "number": known.get("number", 0), **changes}))


def expected(repository: Path, name: str, text: str) -> NDArray[np.float32]:
    """The vector of a text, computed here from the ids of the tokenizer library."""
    folder = repository / f"acme__{name}"
    tokenizer = Tokenizer.from_file(str(folder / "1" / "tokenizer.json"))
    ids = np.asarray(tokenizer.encode(text).ids)[:, None]
    if name == GRAPH:
        return np.arange(1, 33, dtype=np.float32) * len(ids)
    number = json.loads((folder / "world.json").read_text())["number"]
    waves: NDArray[np.float32] = np.sin(ids * np.arange(1, 33) * 0.37 + number * math.e).sum(0).astype(np.float32)
    return waves


@dataclass
class Client:
    """Requests to one application, and what Triton holds meanwhile."""

    http: httpx.AsyncClient
    repository: Path
    most_resident: int = 0
    delays: list[float] = field(default_factory=list)

    async def ask(self, name: str, text: str = "the cell") -> httpx.Response:
        """One request; a success must be this model's own vector."""
        begun = time.monotonic()
        response = await encode(self.http, texts(text), f"/v1/encode/{sie_id(name)}")
        self.delays.append(time.monotonic() - begun)
        if response.status_code == 200:
            np.testing.assert_allclose(dense(response)[0], expected(self.repository, name, text), atol=1e-4)
        return response

    async def until_served(self, name: str, seconds: float = 20) -> float:
        """Ask until it is answered, again when it is there or after the hint; returns after how long.

        Meanwhile nothing else than "loading" is said.
        """
        begun = time.monotonic()
        while (response := await self.ask(name)).status_code != 200:
            assert response.status_code == 503 and response.headers["retry-after"] == "5", response.text
            assert response.json()["detail"]["code"] == "MODEL_LOADING"
            again = time.monotonic() + 5
            while time.monotonic() < again and not (await self.info(name))["loaded"]:
                assert time.monotonic() - begun < seconds, f"{name} is not served"
                await asyncio.sleep(0.02)
        return time.monotonic() - begun

    async def until(self, name: str, state: str, seconds: float = 10) -> dict[str, Any]:
        """What `/v1/models` says of a model, once it is in this state."""
        until = time.monotonic() + seconds
        while (found := await self.info(name))["state"] != state:
            assert time.monotonic() < until, f"{name} is {found['state']}, not {state}"
            await asyncio.sleep(0.02)
        return found

    async def info(self, name: str) -> dict[str, Any]:
        """What `/v1/models` says."""
        found: dict[str, Any] = (await self.http.get(f"/v1/models/{sie_id(name)}")).json()
        return found

    async def states(self) -> dict[str, str]:
        """The state of every model, without its profiles."""
        models = (await self.http.get("/v1/models")).json()["models"]
        return {m["name"].partition("/")[2]: m["state"] for m in models if ":" not in m["name"]}

    async def metric(self, name: str) -> float:
        """One of the frontend's gauges."""
        lines = (await self.http.get("/metrics")).text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(f"sie_frontend_{name} "))


@dataclass(frozen=True)
class World:
    """One running tritonserver. `async with world.open(...) as client` serves it by settings of the test's own."""

    server: TritonServer

    @property
    def repository(self) -> Path:
        return self.server.spec.repository

    def held(self) -> set[str]:
        """The models that tritonserver itself says are loaded or on their way in or out."""
        entries = httpx.post(f"{self.server.url}/v2/repository/index", timeout=60).json()
        states = {entry["name"]: entry.get("state") for entry in entries}
        return {name.removeprefix("acme__") for name, state in states.items() if state not in (None, "UNAVAILABLE")}

    @contextlib.asynccontextmanager
    async def open(
        self,
        *,
        urls: Sequence[str] = (),
        ailments: Ailments | None = None,
        discharge: Discharge | None = None,
        **settings: Any,
    ) -> AsyncIterator[Client]:
        """A client of an application over this Triton, or over these, once it is ready."""
        given = {"load": "on-demand", "triton_url": ",".join(urls) or self.server.url, **settings}
        memory: Callable[[], dict[str, int]] | None = None if urls else self.server.model_memory
        watched: dict[str, Any] = {"memory": memory, "ailments": ailments, "discharge": discharge}
        app = create_app(Settings(repository=self.repository, **given), **watched)
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://frontend", timeout=60) as http,
        ):
            client = Client(http, self.repository)
            for _ in range(500):
                if (await http.get("/readyz")).status_code == 200:
                    break
                await asyncio.sleep(0.02)
            else:
                raise AssertionError("not ready")
            yield client

    def reset(self) -> None:
        """Unload everything, and let every model be as it was."""
        for name in NAMES:
            behave(self.repository, name)
        for name in self.held():
            httpx.post(f"{self.server.url}/v2/repository/models/acme__{name}/unload", timeout=60)
        for _ in range(300):
            if not self.held() and not self.server.model_memory():
                return
            time.sleep(0.05)
        raise AssertionError("not empty")
