"""Where the time of a lone query goes, from the graph behind Triton to a call of the SDK.

    python -m benchmarks.lone -r model_repository -m sentence-transformers/all-MiniLM-L6-v2 --peer fastembed

Serves a built repository once. Its ways are processes of their own and take turns in every round with short texts, one
at a time: an HTTP request to tritonserver with token ids that are ready, one to the frontend with a body that is ready
(both by a bare socket), `SIEClient`, `SIEAsyncClient`, and the peers in process. `--sdk NAME=CHECKOUT` adds the clients
of another state of this project. Prints Markdown: medians over the rounds, and of the clients the processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.triton_paths import running, texts_for

ROOT = Path(__file__).resolve().parent.parent
CLIENTS = ("SIEClient", "SIEAsyncClient")
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Asked:
    """What a way needs to know: ports, the model under its two names, its outputs, texts and their token ids."""

    way: str
    port: int
    triton: int
    model: str
    triton_model: str
    texts: Sequence[str]
    ids: Sequence[Sequence[int]]


class _Socket:
    """One connection that sends prepared bytes and reads an answer to its end."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> None:
        self._socket.sendall(request)
        found = self._socket.recv(1 << 16)
        while _HEAD_END not in found:
            found += self._socket.recv(1 << 16)
        head, _, body = found.partition(_HEAD_END)
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(found.decode(errors="replace"))
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        left = int(length.partition(b":")[2]) - len(body)
        while left > 0:
            left -= len(self._socket.recv(1 << 16))


def _request(path: str, kind: str, body: bytes, more: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\nAccept: {kind}\r\n{more}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _of_triton(ids: Sequence[int], model: str) -> bytes:
    arrays = {"input_ids": np.asarray([ids], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}
    inputs = [
        {"name": n, "datatype": "INT64", "shape": a.shape, "parameters": {"binary_data_size": a.nbytes}}
        for n, a in arrays.items()
    ]
    outputs = [{"name": "dense", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    more = f"Inference-Header-Content-Length: {len(head)}\r\n"
    body = head + b"".join(array.tobytes() for array in arrays.values())
    return _request(f"/v2/models/{model}/infer", "application/octet-stream", body, more)


def _calls(asked: Asked) -> tuple[Sequence[Any], Callable[[Any], object]]:
    """What is sent, and how one of it is."""
    if asked.way == "triton":
        return [_of_triton(ids, asked.triton_model) for ids in asked.ids], _Socket(asked.triton).ask
    if asked.way == "frontend":
        import msgpack

        kind, path = "application/msgpack", f"/v1/encode/{asked.model}"
        bodies = [msgpack.packb({"items": [{"text": text}]}) for text in asked.texts]
        return [_request(path, kind, body) for body in bodies], _Socket(asked.port).ask
    from sie_sdk import SIEAsyncClient, SIEClient
    from sie_sdk.types import Item

    items, url = [Item(text=text) for text in asked.texts], f"http://127.0.0.1:{asked.port}"
    if asked.way == "SIEClient":
        client = SIEClient(url)
        return items, lambda item: client.encode(asked.model, item)
    loop, asynchronous = asyncio.new_event_loop(), SIEAsyncClient(url)

    def call(item: Item) -> object:
        found: Awaitable[Any] = asynchronous.encode(asked.model, item)
        return loop.run_until_complete(found)

    return items, call


def work() -> None:
    """A way in this process: a line of seconds in, a line of milliseconds out."""
    asked = Asked(**json.loads(sys.stdin.readline()))
    sent, call = _calls(asked)
    number = 0
    for line in sys.stdin:
        latencies, cpu, end = [], time.process_time(), time.perf_counter() + float(line)
        while time.perf_counter() < end:
            begun = time.perf_counter()
            call(sent[number % len(sent)])
            latencies.append(time.perf_counter() - begun)
            number += 1
        spent = (time.process_time() - cpu) / len(latencies)
        print(json.dumps({"p50": statistics.median(latencies) * 1e3, "cpu": spent * 1e3}), flush=True)


class _Way:
    def __init__(self, asked: Asked, checkout: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.lone", "--work"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(checkout / "sdk")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._tell(json.dumps(asdict(asked)))

    def _tell(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def measure(self, seconds: float) -> dict[str, float]:
        self._tell(str(seconds))
        assert self._process.stdout
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)


def main() -> None:
    """Start all, take turns, print."""
    parser = argparse.ArgumentParser(prog="benchmarks.lone", description="where the time of a lone query goes")
    parser.add_argument("-r", "--repository", type=Path, required=True)
    parser.add_argument("-m", "--model", required=True, help="a dense one")
    parser.add_argument("--sdk", action="append", default=[], metavar="NAME=CHECKOUT")
    parser.add_argument("--peer", action="append", default=[], help="in process, as in benchmarks.run")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    from sie_triton.embedded.ports import free_port

    port, triton, metrics = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        command = [sys.executable, "-m", "sie_triton.cli", "triton", "-r", str(given.repository)]
        command += ["--http-port", str(triton), "--metrics-port", str(metrics)]
        stack.enter_context(running(command, folder / "triton", f"http://127.0.0.1:{triton}/v2/health/ready", {}))
        told = {
            "SIE_TRITON_TRITON_URL": f"127.0.0.1:{triton}",
            "SIE_TRITON_REPOSITORY": str(given.repository),
            "SIE_TRITON_PORT": str(port),
        }
        frontend = [sys.executable, "-m", "sie_frontend.main"]
        stack.enter_context(running(frontend, folder / "frontend", f"http://127.0.0.1:{port}/readyz", told))
        asked = _asked(given.repository, given.model, port, triton)
        ways = {way: (way, ROOT) for way in ("triton", "frontend", *CLIENTS)}
        for name, _, checkout in (side.partition("=") for side in given.sdk):
            ways |= {f"{way}, {name}": (way, Path(checkout).resolve()) for way in CLIENTS}
        measures: dict[str, Callable[[], dict[str, float]]] = {}
        for name, (way, checkout) in ways.items():
            one = _Way(replace(asked, way=way), checkout)
            stack.callback(one.close)
            measures[name] = partial(one.measure, given.seconds)
        measures |= _peers(given.peer, given.seconds, stack)
        found: dict[str, list[dict[str, float]]] = {name: [] for name in measures}
        for number in range(given.rounds + 1):
            for name in list(measures)[:: 1 if number % 2 else -1]:
                found[name].append(measures[name]())
    _print({name: rounds[1:] for name, rounds in found.items()})  # the first one warms up


def _asked(repository: Path, model: str, port: int, triton: int) -> Asked:
    from sie_frontend.storage import open_repository
    from sie_frontend.text.tokenization import TextTokenizer

    texts = texts_for(256)
    manifest = open_repository(str(repository)).manifest
    entry = manifest.models[model].inputs["text"]
    tokenizer = TextTokenizer(entry.reads.tokenization, repository)
    ids = [row.tolist() for row in tokenizer.encode(texts)]
    return Asked("", port, triton, model, entry.triton_model, texts, ids)


def _peers(names: Sequence[str], seconds: float, stack: ExitStack) -> dict[str, Callable[[], dict[str, float]]]:
    if not names:
        return {}
    from benchmarks import scenarios
    from benchmarks.contestant import start
    from benchmarks.environment import find_environment
    from benchmarks.peers import PEERS
    from benchmarks.run import make_corpora, prepare, say

    cache = ROOT / ".cache" / "benchmarks"
    files, _ = prepare(cache, None, 2, set())
    corpus = make_corpora(files, replace(scenarios.SHORT, texts={"short": 256, "mixed": 8, "long": 8}))["short"]
    measures: dict[str, Callable[[], dict[str, float]]] = {}
    for peer in (peer for peer in PEERS if peer.name in names):
        contestants = start(peer, find_environment(peer, cache, say), files, cache)
        stack.callback(contestants[0].close)
        for one in contestants:

            def measure(one: Any = one) -> dict[str, float]:
                return {"p50": statistics.median(one.online(corpus, clients=1, seconds=seconds).latencies) * 1e3}

            measures[one.name] = measure
    return measures


def _print(found: dict[str, list[dict[str, float]]]) -> None:
    base = [one["p50"] for one in found["frontend"]]
    print(
        "| | p50 ms | of the frontend's | over the frontend's, ms | processor ms of the client |\n|---|---|---|---|---|"
    )
    for name, rounds in found.items():
        p50 = [one["p50"] for one in rounds]
        ratio = statistics.median(one / other for one, other in zip(p50, base, strict=True))
        over = statistics.median(one - other for one, other in zip(p50, base, strict=True))
        cpu = f"{statistics.median(one['cpu'] for one in rounds):.2f}" if "cpu" in rounds[0] else ""
        print(f"| {name} | {statistics.median(p50):.2f} | {ratio:.2f} | {over:+.2f} | {cpu} |")


if __name__ == "__main__":
    if sys.argv[1:] == ["--work"]:
        work()
    else:
        main()
