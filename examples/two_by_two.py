"""Two Tritons and two frontends under load, while each of them is stopped, or killed, and started again.

    python examples/two_by_two.py --repository model_repository

Four processes on loopback: two `sie-triton triton`, and two `sie-triton-frontend`, each of which knows both Tritons.
Threads encode through `sie_sdk` as it comes, with its default retries, and compare every vector with one that was
computed before anything happened. Meanwhile a Triton is stopped with SIGTERM and started again, then a frontend, then
one of each is killed with SIGKILL. At most one process is away at a time: that is what two of each can bear.

A client of SIE's knows one address, so that something has to spread connections over the frontends. `Balancer` is the
least that does: it forwards bytes to the frontends in turn and passes over one that refuses the connection. It asks
nobody's health, repeats nothing, and what was under way on a connection that breaks is the client's to repeat. A real
load balancer looks at `/readyz` besides, for which a frontend's drain delay leaves it time.

Prints the calls, the failures and the wrong vectors, which must both be 0, and the longest call. The exit code is 1 if
they are not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sie_frontend.manifest import ManifestError, read_manifest
from sie_sdk import SIEClient
from sie_sdk.types import Item

TOLERANCE = 1e-5
TEXTS = [
    f"{subject} {verb} the {thing} {number} times."
    for number, subject in enumerate(("The cell", "A mitochondrion", "The river", "Nobody", "Every engineer"))
    for verb in ("builds", "finds", "follows")
    for thing in ("power house", "long and winding road to the sea", "answer")
]


class Process:
    """One server: how it is started, and the URL that answers 200 once it is ready. Requests go to its first port."""

    def __init__(self, name: str, ports: Sequence[int], ready: str, command: Sequence[str], folder: Path) -> None:
        self.name = name
        self.port, *_ = self._ports = ports
        self._ready = f"http://127.0.0.1:{self.port}{ready}"
        self._command = [sys.executable, "-m", *command]
        self._log = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, once the ports of its predecessor are free."""
        wait_until(lambda: not any(map(_listening, self._ports)), f"one of the ports {self._ports} is still taken")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, start_new_session=True)

    def wait_ready(self) -> None:
        """Return when it is ready."""
        wait_until(self._is_ready, f"{self.name} does not become ready")

    def end(self, number: signal.Signals) -> None:
        """Send a signal and wait for the end."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)

    def _is_ready(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            # The log is in a temporary folder, which will be gone when this is read.
            said = self._log.read_text(encoding="utf-8", errors="replace").strip()[-2000:]
            raise SystemExit(f"error: {self.name} ended; it said:\n{said or 'nothing'}")
        try:
            with urllib.request.urlopen(self._ready, timeout=5) as response:
                return int(response.status) == 200
        except (urllib.error.URLError, OSError):
            return False


class Balancer:
    """Forwards TCP connections to `ports` of loopback in turn; passes over those that refuse. Runs in a thread."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.port = _free_ports(1)[0]
        self._ports = list(ports)
        self._turn = 0
        self._started = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), name="balancer", daemon=True).start()
        self._started.wait(10)

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self._started.set()
        async with server:
            await server.serve_forever()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._turn += 1
        with contextlib.closing(writer):
            for number in range(len(self._ports)):
                port = self._ports[(self._turn + number) % len(self._ports)]
                try:
                    there, away = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    continue
                with contextlib.closing(away):
                    directions = [asyncio.create_task(_copy(reader, away)), asyncio.create_task(_copy(there, writer))]
                    await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
                    for direction in directions:
                        direction.cancel()
                return


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()


@dataclass
class Load:
    """Threads that encode until they are told to stop, and what came of it."""

    url: str
    model: str
    calls: int = 0
    wrong: int = 0
    longest_s: float = 0.0
    slow: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    _vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self, threads: int) -> Iterator[None]:
        """Compute the expected vectors, then keep `threads` threads busy within."""
        client = SIEClient(self.url)
        self._vectors = {text: self._encode(client, text) for text in TEXTS}
        workers = [threading.Thread(target=self._work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            self._over.set()
            for worker in workers:
                worker.join()

    def _encode(self, client: SIEClient, text: str) -> NDArray[np.float32]:
        vector: NDArray[np.float32] = np.asarray(client.encode(self.model, Item(text=text))["dense"])
        return vector

    def _work(self, number: int) -> None:
        client = SIEClient(self.url)
        while not self._over.is_set():
            number += 1
            text = TEXTS[number % len(TEXTS)]
            begun = time.monotonic()
            problem = None
            wrong = False
            try:
                wrong = bool(np.abs(self._encode(client, text) - self._vectors[text]).max() > TOLERANCE)
            except Exception as error:  # whatever a caller would have seen is what is counted here
                problem = f"{type(error).__name__}: {error}"
            seconds = time.monotonic() - begun
            with self._lock:
                self.calls += 1
                self.wrong += wrong
                self.longest_s = max(self.longest_s, seconds)
                self.slow += seconds > 1
                if problem is not None:
                    self.failures[problem] += 1


def wait_until(condition: Callable[[], bool], problem: str, seconds: float = 120) -> None:
    """Return when `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"error: {problem}")
        time.sleep(0.05)


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def exercise(repository: Path, model: str, *, threads: int, seconds: float, folder: Path) -> dict[str, Any]:
    """Run it; `seconds` is how long it takes at least, spread over the four times that a process goes."""
    ports = _free_ports(6)
    tritons = [
        Process(
            f"triton-{number}",
            (http, metrics),
            "/v2/health/ready",
            [
                *("sie_triton.cli", "triton", "--repository", str(repository)),
                *(
                    "--http-port",
                    str(http),
                    "--metrics-port",
                    str(metrics),
                    "--log-dir",
                    str(folder / f"triton-{number}"),
                ),
            ],
            folder,
        )
        for number, (http, metrics) in enumerate([(ports[0], ports[1]), (ports[2], ports[3])])
    ]
    urls = ",".join(f"127.0.0.1:{triton.port}" for triton in tritons)
    frontends = [
        Process(
            f"frontend-{number}",
            (port,),
            "/readyz",
            [
                *("sie_frontend.main", "--repository", str(repository), "--triton-url", urls),
                *("--port", str(port), "--drain-delay-s", "1", "--keep-busy", "1"),
            ],
            folder,
        )
        for number, port in enumerate(ports[4:])
    ]
    everything = [*tritons, *frontends]
    pause = seconds / 8
    try:
        for process in everything:
            process.start()
        for process in everything:
            process.wait_ready()
        load = Load(f"http://127.0.0.1:{Balancer([frontend.port for frontend in frontends]).port}", model)
        with load.running(threads):
            for process, number in (
                (tritons[0], signal.SIGTERM),
                (frontends[0], signal.SIGTERM),
                (tritons[1], signal.SIGKILL),
                (frontends[1], signal.SIGKILL),
            ):
                time.sleep(pause)
                print(f"{number.name} to {process.name} after {load.calls} calls", file=sys.stderr, flush=True)
                process.end(number)
                time.sleep(pause)
                process.start()
                process.wait_ready()
    finally:
        for process in reversed(everything):
            process.end(signal.SIGTERM)
    return {
        "calls": load.calls,
        "failures": sum(load.failures.values()),
        "wrong_vectors": load.wrong,
        "longest_call_s": round(load.longest_s, 2),
        "calls_over_1_s": load.slow,
        "kinds_of_failures": dict(load.failures.most_common(5)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="a built repository")
    parser.add_argument("--model", help="the id to ask for; default: the repository's first with dense vectors")
    parser.add_argument("--threads", type=int, default=4, help="callers at a time")
    parser.add_argument("--seconds", type=float, default=40, help="how long the exercise takes at least")
    arguments = parser.parse_args()
    try:
        models = read_manifest(arguments.repository).models
    except ManifestError as error:
        sys.exit(f"error: {error}")
    dense = [model_id for model_id, entry in models.items() if "dense" in entry.outputs]
    model = arguments.model or next(iter(dense), None)
    if model not in dense:
        sys.exit(f"error: the repository has no dense vectors of {model or 'any model'}; it has them of {dense}")
    with tempfile.TemporaryDirectory(prefix="two-by-two-") as folder:
        result = exercise(
            arguments.repository.resolve(),
            model,
            threads=arguments.threads,
            seconds=arguments.seconds,
            folder=Path(folder),
        )
        if result["failures"] or result["wrong_vectors"]:
            for log in sorted(Path(folder).glob("*.log")):
                sys.stderr.write(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}\n")
    print(json.dumps(result, indent=2))
    return 1 if result["failures"] or result["wrong_vectors"] else 0


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
