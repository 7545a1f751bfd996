"""Images a second: ours over HTTP, what the machine can do in process, and the peers, in turn on the same photographs.

    PYTHONPATH=tests python -m benchmarks.images
    PYTHONPATH=tests python -m benchmarks.images --rounds 3 --side ours --side limit

A CLIP of the size of ViT-B/32 with random weights; real photographs, as JPEGs. Every side has a slice of a few seconds
in every round, so that whatever else the machine does meets all of them: what counts are the medians of the rounds'
ratios, and the CPU time of an image, which other work changes little. Then a text query is asked for over and over,
with and without requests of 50 photographs beside it. Prints Markdown; at a quiet moment it takes five minutes.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks import load
from benchmarks.clip_files import MODEL, write_bfloat16, write_files
from benchmarks.environment import Environment, Unavailable, find_environment
from benchmarks.image_sides import Files
from benchmarks.load import ROOT, Plan, percentile
from benchmarks.measure import cpu_seconds
from benchmarks.peers import Peer, sie_wire
from benchmarks.photographs import as_jpegs
from sie_triton.embedded.openvino_engine import installed
from sie_triton.embedded.ports import free_port
from sie_triton.repository.processor import multiplies_bfloat16

# Its extra `vision` brings a torchvision that does not fit this torch, and is not needed for CLIP.
_INFINITY = Peer(
    "infinity",
    "infinity",
    (
        "infinity-emb[server,torch]==0.0.78",
        "numpy<2",
        "typer==0.12.5",
        "click<8.2",
        "torch==2.13.0",
        "pillow",
        "aiohttp",
    ),
    http=True,
)
_SIDES = (
    *("ours", "ours-bfloat16", "limit", "limit-bfloat16"),
    *("sentence_transformers", "sentence_transformers-bfloat16", "fastembed", "infinity"),
)
_HALVED = frozenset({"ours-bfloat16", "limit-bfloat16"})
_SHOWN = (
    "sie-triton",
    "onnxruntime",
    "openvino",
    "pillow",
    "torch",
    "transformers",
    "sentence-transformers",
    "fastembed",
)
_TEXT = "a photograph of a dog on a beach"
_PER_REQUEST, _BESIDE, _CLIENTS = 16, 50, 32
_START_S = 180.0


def say(message: str) -> None:
    """Progress goes to stderr."""
    print(f"[{time.strftime('%H:%M:%S')}] {message}", file=sys.stderr, flush=True)


class Photographs:
    """The JPEGs, as many as are wanted: no two of a request are equal, since ours would compute those once."""

    def __init__(self, files: Sequence[bytes]) -> None:
        self._files = files
        self._made = 0

    def take(self, count: int) -> list[bytes]:
        """The next ones; a decoder stops before the number at the end."""
        found = []
        for _ in range(count):
            found.append(self._files[self._made % len(self._files)] + b"%08d" % self._made)
            self._made += 1
        return found


@dataclass
class Side:
    """One row of the table: `measure` embeds for a moment and gives images and seconds; the lists are by round.

    `pid` is the root of the processes that do it.
    """

    name: str
    measure: Callable[[], tuple[int, float]]
    pid: int
    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def slice(self, *, counts: bool) -> None:
        """One moment of it."""
        before = cpu_seconds(self.pid)
        images, seconds = self.measure()
        spent = cpu_seconds(self.pid) - before
        if counts:
            self.rates.append(images / seconds)
            self.cpu_ms.append(1000 * spent / images)


class InProcess:
    """A side that runs in a process of its own."""

    def __init__(self, module: str, files: Files, count: int, seconds: float, log: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.image_sides", module, files.as_json()]
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        self._count, self._seconds = count, seconds
        self.pid = self._process.pid
        self.names: list[str] = self._answer()["sides"]
        self._last: dict[str, float] = {}

    def ask(self, name: str, repeat: int, *, vectors: bool = False) -> dict[str, Any]:
        """Embed all photographs `repeat` times."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"side": name, "repeat": repeat, "vectors": vectors}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def embed(self, name: str) -> tuple[int, float]:
        """Images and seconds of about a slice."""
        repeat = max(1, round(self._seconds / self._last.get(name, self._seconds)))
        seconds: float = self.ask(name, repeat)["seconds"]
        self._last[name] = seconds / repeat
        return repeat * self._count, seconds

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise Unavailable("its process ended; the cache has its log")
        content: dict[str, Any] = json.loads(line)
        return content

    def close(self) -> None:
        """End the process. Libraries that end slowly on a busy machine are not waited for."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Server:
    """A server, started in its own environment, and how it is asked for images and texts."""

    def __init__(self, command: Sequence[str], port: int, ready: str, log: Path, **environment: str) -> None:
        self.port = port
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*command],
                env={**os.environ, **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._process.pid
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=5):
                return
            time.sleep(0.2)
        self.close()
        raise Unavailable(f"it was not ready; `{log}` has its words")

    def close(self) -> None:
        """End it, and what it started."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(40)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@dataclass(frozen=True)
class Protocol:
    """How one server is spoken to."""

    path: str
    content_type: str
    images: Callable[[Sequence[bytes]], bytes]


def _sie_images(pictures: Sequence[bytes]) -> bytes:
    return msgspec.msgpack.encode({"items": [{"images": [{"data": data}]} for data in pictures]})


def _infinity_images(pictures: Sequence[bytes]) -> bytes:
    urls = ["data:image/jpeg;base64," + base64.b64encode(data).decode() for data in pictures]
    return msgspec.json.encode({"model": "model", "input": urls, "modality": "image"})


OURS = Protocol(f"/v1/encode/{MODEL}", sie_wire.CONTENT_TYPE, _sie_images)
INFINITY = Protocol("/embeddings", "application/json", _infinity_images)


def served(server: Server, protocol: Protocol, pictures: Photographs, seconds: float) -> Iterator[tuple[str, Any]]:
    """The two ways to ask a server: one client with much in a request, and many with one image each."""

    def embed(clients: int, size: int) -> tuple[int, float]:
        bodies = [protocol.images(pictures.take(size)) for _ in range(64 // size)]
        result = load.run(_plan(server, protocol, bodies, clients, seconds))
        return size * len(result.latencies), result.wall_s

    yield f"1 client, {_PER_REQUEST} images a request", lambda: embed(1, _PER_REQUEST)
    yield f"{_CLIENTS} clients, 1 image a request", lambda: embed(_CLIENTS, 1)


def _plan(server: Server, protocol: Protocol, bodies: list[bytes], clients: int, seconds: float) -> Plan:
    return Plan("127.0.0.1", server.port, protocol.path, protocol.content_type, bodies, clients, seconds, keep=1)


def start_ours(name: str, repository: Path, cache: Path) -> Server:
    """`sie-triton serve`."""
    port = free_port()
    command = [sys.executable, "-m", "sie_triton.cli", "serve", "-r", str(repository), "--port", str(port)]
    return Server([*command, "--log-dir", str(cache / f"log-{name}")], port, "/readyz", cache / f"images-{name}.log")


def start_infinity(checkpoint: str, cores: int, cache: Path) -> Server:
    """infinity with torch, which is the only engine that it has for CLIP."""
    environment: Environment = find_environment(_INFINITY, cache, say)
    port = free_port()
    command = [
        str(environment.scripts / "infinity_emb"),
        "v2",
        "--model-id",
        checkpoint,
        "--served-model-name",
        "model",
    ]
    command += ["--engine", "torch", "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--no-bettertransformer", "--dtype", "float32"]
    told = {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(cores), "PYTHONPATH": ""}
    return Server(command, port, "/health", cache / "images-infinity.log", **told)


def cosines(ours: dict[str, Server], others: dict[str, InProcess], files: Sequence[bytes]) -> dict[str, float]:
    """The smallest cosine between the vectors of our first server and those of each other side that makes some."""
    made = {}
    for name, server in ours.items():
        plan = _plan(server, OURS, [OURS.images(files)], 1, 0.01)
        made[name] = np.array(sie_wire.vectors(load.run(plan).kept[0]))
    first, *rest = made
    found = made[first]
    smallest = {name: float((made[name] * found).sum(axis=1).min()) for name in rest}
    for worker in others.values():
        for name in worker.names:
            if "vectors" in name or name.startswith(("Pillow", "graph")):
                continue
            theirs = np.array(worker.ask(name, 1, vectors=True)["vectors"])
            theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
            smallest[name] = float((theirs * found).sum(axis=1).min())
    return smallest


def beside(ours: Server, pictures: Photographs, rounds: int, seconds: float) -> list[tuple[float, float]]:
    """The 95th percentile of a text query alone, and while one client sends 50 photographs a request; in turn."""
    text = sie_wire.request([_TEXT])
    asking = _plan(ours, OURS, [text], 1, seconds)
    found = []
    for _ in range(rounds):
        alone = percentile(load.run(asking).latencies, 95)
        bodies = [OURS.images(pictures.take(_BESIDE)) for _ in range(2)]
        sending = load.start(_plan(ours, OURS, bodies, 1, seconds + 1))
        time.sleep(1)
        found.append((alone, percentile(load.run(asking).latencies, 95)))
        load.finish(sending)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.images", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.5, help="of one slice")
    parser.add_argument("--side", action="append", choices=_SIDES, help="measure only these; repeatable")
    parser.add_argument("--repository", type=Path, help="serve this one, of the same checkpoint")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "benchmarks", help="what is kept")
    options = parser.parse_args()
    # Ended from outside, it must not leave servers behind either.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    cache: Path = options.cache.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    wanted = options.side or _SIDES
    with ExitStack() as stack:
        _measure(options, cache, wanted, stack)


def _measure(options: argparse.Namespace, cache: Path, wanted: Sequence[str], stack: ExitStack) -> None:
    jpegs = as_jpegs(cache)
    folder = write_files(cache)
    files = _files(cache, folder, jpegs)
    pictures = Photographs(jpegs)
    sides: list[Side] = []
    workers: dict[str, InProcess] = {}
    skipped: dict[str, str] = {}
    ours: dict[str, Server] = {}
    for name in wanted:
        say(f"starting {name}")
        try:
            if name in _HALVED:
                _check_bfloat16()
            if name in ("ours", "ours-bfloat16", "infinity"):
                if name == "infinity":
                    server, protocol = start_infinity(files.checkpoint, files.cores, cache), INFINITY
                else:
                    built = write_bfloat16(folder) if name in _HALVED else folder / "repository"
                    server, protocol = start_ours(name, (options.repository or built).resolve(), cache), OURS
                    ours[name] = server
                stack.callback(server.close)
                sides += [
                    Side(f"{name}, {how}", run, server.pid)
                    for how, run in served(server, protocol, pictures, options.seconds)
                ]
            else:
                worker = InProcess(name, files, len(jpegs), options.seconds, cache / f"images-{name}.log")
                stack.callback(worker.close)
                workers[name] = worker
                sides += [Side(side, lambda w=worker, s=side: w.embed(s), worker.pid) for side in worker.names]  # type: ignore[misc]
        except (Unavailable, load.LoadError) as reason:
            skipped[name] = str(reason)
            say(f"{name} is skipped: {reason}")
    for number in range(options.rounds + 1):  # the first one warms up
        for side in sides:
            side.slice(counts=number > 0)
        say(f"round {number} of {options.rounds}")
    same = cosines(ours, workers, jpegs) if ours else {}
    waits = beside(next(iter(ours.values())), pictures, options.rounds, options.seconds) if ours else []
    _tell(sides, same, waits, skipped, jpegs)


def _check_bfloat16() -> None:
    """Raises `Unavailable` where there is nothing that computes it."""
    if not (installed() and multiplies_bfloat16()):
        raise Unavailable("it needs `openvino`, and a processor that multiplies bfloat16")


def _files(cache: Path, folder: Path, jpegs: Sequence[bytes]) -> Files:
    place = cache / "jpegs"
    place.mkdir(exist_ok=True)
    for number, data in enumerate(jpegs):
        (place / f"{number:02}.jpg").write_bytes(data)
    (graph,) = (folder / "repository").glob("*.image/1/model.onnx")
    return Files(str(folder / "checkpoint"), str(graph), str(folder / "onnx"), str(place), len(os.sched_getaffinity(0)))


def _tell(
    sides: Sequence[Side],
    same: dict[str, float],
    waits: Sequence[tuple[float, float]],
    skipped: dict[str, str],
    jpegs: Sequence[bytes],
) -> None:
    models = [
        line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    print(f"{models[0] if models else platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python", end=" ")
    print(f"{platform.python_version()}; load average {os.getloadavg()[0]:.1f}; {len(jpegs)} JPEGs, ", end="")
    print(f"{sum(map(len, jpegs)) // len(jpegs) // 1000} KB each in the mean; ", end="")
    print(", ".join(_versions()), end="\n\n")
    limits = [[s for s in sides if s.name.startswith(called)] for called in ("limit,", "limit in bfloat16,")]
    best = [max(some, key=lambda s: statistics.median(s.rates)) for some in limits if some]
    ours = [side for side in sides if side.name.startswith("ours")]
    print(
        "| side | images/s, median | best | CPU ms an image | "
        + "".join(f"{o.name} / this | " for o in ours)
        + "min cosine |"
    )
    print("|---|---|---|---|" + "---|" * (len(ours) + 1))
    for side in sides:
        ratios = "".join(f"{_ratio(one, side):.2f} | " for one in ours)
        called = side.name.partition(", ")[0]
        cosine = next((f"{same[name]:.6f}" for name in (side.name, called) if name in same), "")
        mark = " (the limit)" if any(side is one for one in best) else ""
        median = statistics.median(side.rates)
        told = f"{median:.1f} | {max(side.rates):.1f} | {statistics.median(side.cpu_ms):.0f}"
        print(f"| {side.name}{mark} | {told} | {ratios}{cosine} |")
    if waits:
        alone, loaded = (statistics.median(column) for column in zip(*waits, strict=True))
        ratio = statistics.median(two / one for one, two in waits)
        print(
            f"\nA text query: p95 {1000 * alone:.0f} ms alone, {1000 * loaded:.0f} ms beside requests of {_BESIDE} ",
            end="",
        )
        print(f"photographs, {ratio:.1f} times (median of {len(waits)} rounds)")
    for name, reason in skipped.items():
        print(f"\n{name} was skipped: {reason}")


def _versions() -> Iterator[str]:
    for name in _SHOWN:
        with suppress(PackageNotFoundError):
            yield f"{name} {version(name)}"


def _ratio(ours: Side, other: Side) -> float:
    return statistics.median(one / two for one, two in zip(ours.rates, other.rates, strict=True))


if __name__ == "__main__":
    main()
