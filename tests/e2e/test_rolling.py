"""A rolling update under load loses no call: the rendered times, real servers, a balancer that follows readiness."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from compiler import tiny
from deploy.conftest import write_repository
from deploy.test_manifests import frontend_of, of_kind, render
from numpy.typing import NDArray
from sie_sdk import SIEClient
from sie_sdk.types import Item

from benchmarks.waiting import eventually
from e2e.balancer import Backend, ServiceBalancer
from e2e.conftest import TinyBuild
from e2e.processes import COMMAND, Serving
from sie_triton.deploy import DeployOptions
from sie_triton.embedded.ports import free_port

pytestmark = pytest.mark.e2e

TEXTS = [f"the cell number {number} makes energy" for number in range(16)]
# One roll in CI; more where somebody wants to be sure.
ROLLS = int(os.environ.get("SIE_TRITON_ROLLS", "1"))
# How long others take to learn that a pod is deleted.
NOTICE_S = 1.5


class Callers:
    """SDK clients that ask all the time, and check every vector."""

    def __init__(self, url: str, right: dict[str, NDArray[np.float32]]) -> None:
        self._url = url
        self._right = right
        self._over = threading.Event()
        self.answered = 0
        self.waits: list[float] = []
        self.failed: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._ask, args=(number, number % 2 == 0), name=f"caller-{number}")
            for number in range(4)
        ]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def wait_for(self, more: int) -> None:
        """Return when so many more calls were answered."""
        wanted = self.answered + more
        assert eventually(lambda: self.answered >= wanted or self.failed, 60)

    def _ask(self, number: int, retries: bool) -> None:
        def no_retry(seconds: float) -> None:
            raise AssertionError(f"it would have waited {seconds:.1f} s and tried again")

        def wait(seconds: float) -> None:
            self.waits.append(seconds)
            time.sleep(seconds)

        turn = number
        with SIEClient(self._url, _sleep=wait if retries else no_retry) as client:
            while not self._over.is_set():
                turn += 1
                text = TEXTS[turn % len(TEXTS)]
                try:
                    found = client.encode(tiny.MODEL_ID, Item(text=text), wait_for_capacity=retries)["dense"]
                    np.testing.assert_allclose(found, self._right[text], atol=1e-5)
                except BaseException as error:  # whatever it is, it is counted
                    self.failed.append(error)
                    return
                self.answered += 1
                time.sleep(0.02)


@pytest.fixture
def manifest(tmp_path: Path) -> dict[str, Any]:
    """A pod of `deploy kubernetes --load on-demand`: its frontend and Triton are one process tree, as `serve`'s are."""
    options = DeployOptions(load="on-demand", pin=(tiny.MODEL_ID,))
    return frontend_of(render("kubernetes", options, write_repository(tmp_path / "rendered")))


@pytest.fixture
def pod(
    manifest: dict[str, Any], tiny_build: TinyBuild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """Starts the container's command with its variables, but for places and ports; stops what is left."""
    [container] = manifest["spec"]["containers"]
    assert container["args"][0] == "serve"
    for entry in container["env"]:
        if entry["name"] not in ("SIE_TRITON_REPOSITORY", "SIE_TRITON_HOST", "SIE_TRITON_PORT"):
            monkeypatch.setenv(entry["name"], entry["value"])
    started: list[Serving] = []

    def start() -> Serving:
        serving = Serving(tiny_build.repository, tmp_path / f"pod{len(started)}")
        started.append(serving)
        serving.wait_ready()
        return serving

    yield start
    for serving in started:
        if serving.process.poll() is None:
            serving.process.kill()
            serving.process.wait()


def vectors(url: str) -> dict[str, NDArray[np.float32]]:
    with SIEClient(url) as client:
        return {text: client.encode(tiny.MODEL_ID, Item(text=text))["dense"] for text in TEXTS}


def test_a_rolling_update_loses_no_call(manifest: dict[str, Any], pod: Any) -> None:
    """Callers without any retry, and callers with the SDK's own, which never had to use one."""
    [container] = manifest["spec"]["containers"]
    probe, grace = container["readinessProbe"], manifest["spec"]["terminationGracePeriodSeconds"]
    balancer = ServiceBalancer(period_s=probe["periodSeconds"], failures=probe["failureThreshold"], notice_s=NOTICE_S)
    with balancer.serving() as url:
        old = pod()
        right = vectors(old.url)
        backend = balancer.add(old.port)
        assert eventually(lambda: backend.is_endpoint, 60)
        with Callers(url, right) as callers:
            callers.wait_for(40)
            for _ in range(ROLLS):
                old, backend = roll(balancer, callers, old, backend, pod, grace)
        assert callers.failed == []
        assert callers.waits == [], "a call was answered only because the SDK tried it again"
    assert balancer.refused == 0
    assert callers.answered >= 100
    queued = [line for line in httpx_metrics(old.url) if line.startswith("sie_frontend_queued_tokens{")]
    assert {float(line.rpartition(" ")[2]) for line in queued} == {0.0}
    assert len(queued) == 2


@pytest.mark.skipif("SIE_TRITON_ROLLS" not in os.environ, reason="a long form: SIE_TRITON_ROLLS says how many rolls")
def test_tritons_roll_under_a_frontend(tiny_build: TinyBuild, tmp_path: Path) -> None:
    """Apart from frontends: the hook's wait, SIGTERM, and a frontend that knows both addresses all the time."""
    files = render("kubernetes", DeployOptions(), write_repository(tmp_path / "rendered"))
    spec = of_kind(files, "Deployment")["sie-triton-triton"]["spec"]
    [container] = spec["template"]["spec"]["containers"]
    hook = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    ports = [free_port() for _ in range(ROLLS + 1)]
    tritons = [Triton(tiny_build.repository, tmp_path / "triton0", ports[0])]
    addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
    serving = Serving(tiny_build.repository, tmp_path / "frontend", "--triton-url", addresses)
    try:
        serving.wait_ready()
        with Callers(serving.url, vectors(serving.url)) as callers:
            for number, port in enumerate(ports[1:], 1):
                tritons.append(Triton(tiny_build.repository, tmp_path / f"triton{number}", port))
                assert eventually(tritons[-1].is_ready, 60)
                time.sleep(spec["minReadySeconds"])
                time.sleep(hook)
                assert tritons[-2].stop() == 0
                callers.wait_for(40)
        assert (callers.failed, callers.waits) == ([], [])
    finally:
        serving.stop()
        for triton in tritons:
            triton.stop()


class Triton:
    """One `sie-triton triton`."""

    def __init__(self, repository: Path, folder: Path, port: int) -> None:
        self._port = port
        folder.mkdir()
        arguments = ["triton", "-r", str(repository), "--http-port", str(port), "--metrics-port", str(free_port())]
        with (folder / "output.txt").open("wb") as output:
            self._process = subprocess.Popen(
                [*COMMAND, *arguments, "--log-dir", str(folder / "log")],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(folder)},
            )

    def is_ready(self) -> bool:
        """What Triton says."""
        try:
            return httpx.get(f"http://127.0.0.1:{self._port}/v2/health/ready", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        self._process.terminate()
        return self._process.wait(60)


def roll(
    balancer: ServiceBalancer, callers: Callers, old: Serving, leaving: Backend, pod: Any, grace: float
) -> tuple[Serving, Backend]:
    """With `maxSurge` 1 and `maxUnavailable` 0: the new pod is ready before the old one is told to end."""
    new = pod()
    backend = balancer.add(new.port)
    assert eventually(lambda: backend.is_endpoint, 60)
    balancer.delete(leaving)
    assert old.stop(seconds=grace) == 0
    before = leaving.connections
    callers.wait_for(40)
    assert leaving.connections == before
    assert backend.connections > 0
    return new, backend


def httpx_metrics(url: str) -> list[str]:
    return httpx.get(f"{url}/metrics", timeout=10).text.splitlines()
