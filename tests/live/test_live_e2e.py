"""Models are added, replaced, refused, taken back and removed under steady load, on the real tritonserver."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from compiler.tiny import MODEL_ID
from embedded.started import started
from numpy.typing import NDArray
from sie_frontend.http.app import create_app
from sie_frontend.manifest import read_manifest
from sie_frontend.settings import Settings

from live.conftest import OTHER, TEXTS, Versions
from sie_triton.embedded.server import ServerSpec, TritonServer
from sie_triton.repository.changes import roll_back, take_away
from sie_triton.repository.publish import publish

pytestmark = pytest.mark.e2e


@dataclass
class Watch:
    """A served repository under load: every answer must be wholly of one version of its model."""

    http: httpx.AsyncClient
    vectors: dict[str, NDArray[np.float32]]
    seen: dict[str, int] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    async def ask(self, model_id: str = MODEL_ID, *, down: bool = False) -> str:
        """One request of three texts; which version answered all of them, or "" from a model that may be `down`."""
        answer = await self.http.post(
            f"/v1/encode/{model_id}", json={"items": [{"text": text} for text in TEXTS]}, headers=JSON
        )
        if down and answer.status_code == 503 and answer.json()["detail"]["code"] == "MODEL_LOADING":
            return ""
        assert answer.status_code == 200, answer.text
        return self._named(answer, [item["dense"]["values"] for item in answer.json()["items"]])

    async def ask_in_parts(self) -> str:
        """One request in the shape of OpenAI's, computed in six parts."""
        answer = await self.http.post("/v1/embeddings", json={"model": MODEL_ID, "input": list(TEXTS) * 6})
        assert answer.status_code == 200, answer.text
        rows = [row["embedding"] for row in answer.json()["data"]]
        return self._named(answer, rows, times=6)

    def _named(self, answer: httpx.Response, rows: list[Any], times: int = 1) -> str:
        """The version of the vectors, which is the one that the answer names, if it names one."""
        version, named = self._version(rows, times), answer.headers.get("x-sie-model-version")
        if named is not None and answer.status_code == 200:
            assert self.names.setdefault(named, version) == version, f"{named} was {self.names[named]} before"
        return version

    def _version(self, rows: list[Any], times: int = 1) -> str:
        got = np.asarray(rows, np.float32)
        near = [v for v, vectors in self.vectors.items() if np.allclose(got, np.tile(vectors, (times, 1)), atol=1e-4)]
        assert len(near) == 1, f"the vectors are of {near or 'no one version'}"
        return near[0]

    async def until(
        self, version: str | None, model_id: str = MODEL_ID, seconds: float = 40, *, down: bool = False
    ) -> None:
        """Wait until a version answers, or nobody does; callers of a model that is `down` hear that it is loading."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = await self.http.get(f"/v1/models/{model_id}")
            if version is None and found.status_code == 404:
                return
            loaded = found.status_code == 200 and found.json()["loaded"]
            if version is not None and loaded and await self.ask(model_id, down=down) == version:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{version} does not answer: {(await self.status())}")

    async def status(self) -> Any:
        return (await self.http.get("/admin/status")).json()

    async def until_settled(self, seconds: float = 40) -> Any:
        """The status once nothing is under way and nothing is let go of any more."""
        until = time.monotonic() + seconds
        while (found := await self.status())["phase"] == "working" or found["leaving"]:
            assert time.monotonic() < until, found
            await asyncio.sleep(0.05)
        return found

    async def until_refused(self, *, unreadable: bool = False) -> Any:
        """The status once what was published last is refused."""
        known = (await self.status())["events"]
        until = time.monotonic() + 40
        while (found := await self.until_settled())["events"] == known or bool(found["unreadable"]) != unreadable:
            assert time.monotonic() < until, found
            await asyncio.sleep(0.05)
        return found

    async def until_known(self, model_id: str) -> None:
        """Wait until an id is listed."""
        until = time.monotonic() + 40
        while (await self.http.get(f"/v1/models/{model_id}")).status_code == 404:
            assert time.monotonic() < until
            await asyncio.sleep(0.05)

    async def until_loaded(self, model_id: str = MODEL_ID) -> None:
        """Ask for a model until it is there, as a client that waits does."""
        until = time.monotonic() + 40
        body = {"items": [{"text": TEXTS[0]}]}
        while (await self.http.post(f"/v1/encode/{model_id}", json=body, headers=JSON)).status_code == 503:
            assert time.monotonic() < until
            await asyncio.sleep(0.1)

    @contextlib.asynccontextmanager
    async def load(self, clients: int = 2) -> AsyncIterator[None]:
        """Requests without a pause; each must be answered, by one version."""
        going = True

        async def client(number: int) -> None:
            while going:
                version = await (self.ask_in_parts() if number == 0 else self.ask())
                self.seen[version] = self.seen.get(version, 0) + 1
                await asyncio.sleep(0.04)

        tasks = [asyncio.create_task(client(number)) for number in range(clients)]
        try:
            yield
        finally:
            going = False
            await asyncio.gather(*tasks)


JSON = {"accept": "application/json"}


@contextlib.contextmanager
def tritons(repository: Path, count: int, **spec: Any) -> Iterator[list[TritonServer]]:
    with contextlib.ExitStack() as stack:
        specs = (ServerSpec(repository, repository.parent / f"triton-{n}.log", **spec) for n in range(count))
        yield [stack.enter_context(started(one)) for one in specs]


@contextlib.asynccontextmanager
async def watching(
    versions: Versions, repository: Path | str, servers: list[TritonServer], **given: Any
) -> AsyncIterator[Watch]:
    urls = ",".join(server.url.removeprefix("http://") for server in servers)
    app = create_app(Settings(repository=repository, triton_url=urls, max_items=3, **given))
    vectors = {version: versions.vectors(version) for version in "abc"}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://frontend", timeout=60) as http,
    ):
        while (await http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.04)
        yield Watch(http, vectors)


def held(server: TritonServer) -> set[str]:
    """What tritonserver itself says is loaded."""
    entries = httpx.post(f"{server.url}/v2/repository/index", timeout=60).json()
    return {entry["name"] for entry in entries if entry.get("state") not in (None, "UNAVAILABLE")}


def put(repository: Path, content: Path) -> None:
    """Publish a repository that was built elsewhere, in place of another one, as a build does."""
    staging = repository.with_name("staging")
    shutil.rmtree(staging, ignore_errors=True)
    publish(Path(shutil.copytree(content, staging)), repository)
    shutil.rmtree(staging)


def new_name(content: Path) -> str:
    """The Triton model that answers for the tiny model's id."""
    return read_manifest(content).models[MODEL_ID].triton_models[0]


@pytest.mark.asyncio
async def test_two_tritons_add_replace_take_back_and_remove_under_load(
    versions: Versions, repository: Path, replaced: Path, joined: Path
) -> None:
    with tritons(repository, 2) as servers:
        async with watching(versions, repository, servers) as watch, watch.load():
            await watch.until("a")
            put(repository, replaced)
            await watch.until("b")
            status = await watch.until_settled()
            assert status["phase"] == "current"
            [event] = [e for e in status["events"] if (e["what"], e["model"]) == ("replaced", MODEL_ID)]
            assert "reference items" in event["detail"] and "moved to a cosine" in event["detail"]
            assert [held(server) for server in servers] == [{new_name(replaced)}] * 2, "the old one is still loaded"
            put(repository, joined)
            await watch.until("c", OTHER)
            roll_back(repository, MODEL_ID)
            await watch.until("a")
            take_away(repository, OTHER)
            await watch.until(None, OTHER)
            status = await watch.until_settled()
            assert [held(server) for server in servers] == [{"acme__tiny"}] * 2
            assert set(watch.seen) == {"a", "b"}
            assert watch.names == {"acme__tiny": "a", new_name(replaced): "b"}
            assert status["models"][MODEL_ID]["previous"]["triton_models"] == [new_name(replaced)]
            assert status["removed"] == [OTHER, f"{OTHER}:raw"]
            text = (await watch.http.get("/metrics")).text
            assert f'sie_frontend_model_changes_total{{change="replaced",model="{MODEL_ID}"}} 2.0' in text
            assert "sie_frontend_repository_current 1.0" in text


@pytest.mark.asyncio
async def test_a_replacement_that_is_broken_fails_no_call_and_is_told(
    versions: Versions, repository: Path, replaced: Path, joined: Path, tmp_path: Path
) -> None:
    """Copied in part, wrong when it is tried, unreadable: the old version answers all along."""
    graph = f"{new_name(replaced)}/1/model.onnx"
    content = Path(shutil.copytree(replaced, tmp_path / "content"))
    whole = (content / graph).read_bytes()
    document = (content / "manifest.json").read_bytes()
    with tritons(repository, 1) as servers:
        async with watching(versions, repository, servers) as watch, watch.load():
            for reason, damage in (
                ("model.onnx", lambda: (content / graph).write_bytes(whole[: len(whole) // 2])),
                ("model.onnx", (content / graph).unlink),
                # Another checkpoint's graph: it loads, its answers look as they should, and are another model's.
                (
                    "misses its reference: worst cosine",
                    lambda: (content / graph).write_bytes((joined / "acme__other" / "1" / "model.onnx").read_bytes()),
                ),
            ):
                damage()
                put(repository, content)
                status = await watch.until_refused()
                refused = status["models"][MODEL_ID]["refused"]
                assert refused["change"] == "replaced" and reason in refused["reason"], refused
                assert await watch.ask() == "a" and held(servers[0]) == {"acme__tiny"}
            (content / "manifest.json").write_bytes(document[: len(document) // 2])
            put(repository, content)
            assert "is not a valid manifest" in (await watch.until_refused(unreadable=True))["unreadable"]
            assert await watch.ask() == "a"
            text = (await watch.http.get("/metrics")).text
            assert f'sie_frontend_model_changes_total{{change="refused",model="{MODEL_ID}"}} 3.0' in text
            assert "sie_frontend_repository_current 0.0" in text
            assert (await watch.http.get("/readyz")).status_code == 200
            assert set(watch.seen) == {"a"}
            # Repaired in place, a look is enough.
            (repository / graph).write_bytes(whole)
            (repository / "manifest.json").write_bytes(document)
            status = (await watch.http.post("/admin/reload")).json()
            assert status["phase"] == "current" and await watch.ask() == "b"


@pytest.mark.asyncio
async def test_on_demand_a_loaded_model_is_exchanged_and_an_added_one_waits(
    versions: Versions, repository: Path, replaced: Path, joined: Path
) -> None:
    with tritons(repository, 1, on_demand=True) as servers:
        async with watching(versions, repository, servers, load="on-demand") as watch:
            await watch.until_loaded()
            async with watch.load():
                put(repository, replaced)
                await watch.until("b")
                await watch.until_settled()
                assert held(servers[0]) == {new_name(replaced)}
                put(repository, joined)
                await watch.until_known(OTHER)
                assert held(servers[0]) == {new_name(replaced)}, "nobody asked for it"
                await watch.until_loaded(OTHER)
                assert await watch.ask(OTHER) == "c"
                take_away(repository, OTHER)
                await watch.until(None, OTHER)
                roll_back(repository, MODEL_ID)
                await watch.until("a")
                await watch.until_settled()
                assert held(servers[0]) == {"acme__tiny"}
            assert set(watch.seen) == {"a", "b"}
