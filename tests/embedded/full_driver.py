"""What happens where nothing is left of /dev/shm or of a disk; prints it as JSON.

    python -m embedded.full_driver FOLDER

Runs where /dev/shm, `FOLDER/log` and `FOLDER/disk` are small file systems of its own, which it fills to the last byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sie_frontend.triton.client import TritonClient, TritonFailure

from benchmarks.waiting import eventually
from embedded.client import SHARED_MEMORY, stub_of
from embedded.graphs import DOUBLING_CONFIG, FLOAT, INT64, add_model, doubling, graph, onnx_config
from sie_triton.diagnostics import Diagnostic, DiagnosticError
from sie_triton.embedded.healing import HealingRules
from sie_triton.embedded.server import ServerSpec
from sie_triton.embedded.supervisor import RestartPolicy, Supervisor
from sie_triton.repository.publish import publish, staged_repository
from sie_triton.serving.serve import check_places

SMALL, LARGE = 10, 600_000
STREAMS = 'parameters { key: "streams" value { string_value: "2" } }'
NUMBERS = '{ name: "y" data_type: TYPE_FP32 dims: [ -1 ] }'
ZEROS = onnx_config('{ name: "x" data_type: TYPE_INT64 dims: [ 1 ] }', NUMBERS, STREAMS, rows=0)
Y = [("y", FLOAT, ("n",))]
RULES = HealingRules(first_delay=0.3, max_delay=0.6)


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Not a byte is left there within."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (2**20, 2**12):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    try:
        yield
    finally:
        filler.unlink()


class Server:
    """A supervised server of two models and one that computes in streams, and how it answers."""

    def __init__(self, folder: Path) -> None:
        repository = folder / "repository"
        if not repository.exists():
            for name in ("one", "two"):
                add_model(repository, name, DOUBLING_CONFIG, doubling())
            add_model(repository, "zeros", ZEROS, graph([("ConstantOfShape", ["x"], ["y"])], [("x", INT64, (1,))], Y))
        self.told: list[Diagnostic] = []
        self.supervisor = Supervisor(
            ServerSpec(repository, folder / "log" / "triton.log"),
            on_trouble=self.told.append,
            policy=RestartPolicy(first_delay=0.1),
            healing=RULES,
        )
        self.supervisor.start()

    def ask(self, model: str, numbers: int = SMALL) -> str:
        """How the frontend's own client sees a request for so many numbers; "right" where they are."""
        given = np.arange(numbers, dtype=np.float32)[None]
        expected = given * 2
        if model == "zeros":
            given, expected = np.asarray([numbers]), np.zeros(numbers, np.float32)

        async def asked() -> str:
            client = TritonClient(self.supervisor.url, timeout_s=20)
            try:
                found = await client.infer(model, {"x": given}, ["y"])
            except TritonFailure as failure:
                return f"{failure.kind.name}: {failure}"
            finally:
                await client.close()
            return "right" if np.array_equal(found["y"], expected) else "wrong"

        return asyncio.run(asked())


def said(error: DiagnosticError) -> dict[str, Any]:
    """The first of its diagnostics."""
    [one, *_] = error.diagnostics
    return {"code": one.code, "message": one.message, "hint": one.hint}


def shared_memory(folder: Path) -> dict[str, Any]:
    """It is full while the server runs, while a model is loaded again, and when a server starts."""
    found: dict[str, Any] = {}
    server = Server(folder)
    try:
        server.supervisor.wait_ready(60)
        pid = server.supervisor.server.pid
        assert pid
        with filled(SHARED_MEMORY):
            found["full"] = [server.ask("one"), server.ask("two", LARGE), server.ask("two"), server.ask("one")]
            computing = stub_of(pid, "zeros")
            found["streams"] = [server.ask("zeros", numbers) for numbers in (SMALL, LARGE, LARGE, LARGE, SMALL)]
            found["the same process"] = stub_of(pid, "zeros") == computing
            os.kill(stub_of(pid, "one"), signal.SIGKILL)
            eventually(lambda: any(one.code == "SIE718" for one in server.told), 60)
            found["told"] = [one.message for one in server.told]
            found["other"] = server.ask("two")
        eventually(lambda: server.ask("one") == "right", 60)
        found["freed"] = [server.ask("one"), server.ask("two", LARGE), server.ask("zeros", LARGE)]
        with filled(folder / "log"):
            found["log is full"] = [server.ask("one"), server.ask("two", LARGE)]
        found["the same server"] = server.supervisor.server.pid == pid
    finally:
        server.supervisor.stop(2)
    with filled(SHARED_MEMORY):
        server, begun = Server(folder), time.monotonic()
        try:
            server.supervisor.wait_ready(60)
        except DiagnosticError as error:
            found["start"] = said(error)
        finally:
            server.supervisor.stop(2)
        found["start_s"] = time.monotonic() - begun
    return found


def disk(folder: Path) -> dict[str, Any]:
    """It is full when something is published, and when a server looks for a place for its log and temporary files."""
    found: dict[str, Any] = {}
    repository = folder / "disk" / "repository"
    with staged_repository(repository) as staging:
        (staging / "manifest.json").write_text("the one before")
        publish(staging, repository)
    with filled(folder / "disk"):
        try:
            with staged_repository(repository) as staging:
                (staging / "graph.onnx").write_bytes(bytes(2**20))
                publish(staging, repository)
        except DiagnosticError as error:
            found["published"] = said(error)
        found["left"] = sorted(path.name for path in (folder / "disk").iterdir())
        found["kept"] = (repository / "manifest.json").read_text()
        tempfile.tempdir = str(folder / "disk")
        try:
            check_places(folder / "log")
        except DiagnosticError as error:
            found["no temporary file"] = said(error)
        finally:
            tempfile.tempdir = None
    return found


if __name__ == "__main__":
    place = Path(sys.argv[1])
    print(json.dumps({"disk": disk(place), "shared memory": shared_memory(place)}))
