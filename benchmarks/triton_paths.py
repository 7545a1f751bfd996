"""What our client of Triton gains end to end: two frontends on one Triton, one of which asks it by `tritonclient`.

    python -m benchmarks.triton_paths -r model_repository -m sentence-transformers/all-MiniLM-L6-v2

Serves a built repository once and starts a frontend of each kind before it. Rounds alternate: a lone query, 32 clients
with one text each, eight with 64. Prints Markdown: the medians over the rounds, and of the rounds' own ratios the
median and the range, since both sides of a round had the same machine. `tritonclient[http]` must be installed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

SIDES = ("ours", "tritonclient")
# Clients, and texts of each request.
LOADS = {"lone query, p50 ms": (1, 1), "32 clients, texts/s": (32, 1), "8 x 64, texts/s": (8, 64)}
_READY_SECONDS = 300.0


def frontend_by_tritonclient() -> None:
    """A frontend in this process, whose runs go through `tritonclient`; all else that it asks of Triton stays ours."""
    from sie_frontend import main
    from sie_frontend.triton.client import TritonClient

    http: Any = importlib.import_module("tritonclient.http")
    aio: Any = importlib.import_module("tritonclient.http.aio")
    types = {"int64": "INT64", "int32": "INT32", "uint8": "UINT8", "float32": "FP32"}
    clients: dict[int, Any] = {}

    async def infer(
        self: Any,
        model: str,
        inputs: Mapping[str, np.ndarray[Any, Any]],
        outputs: Sequence[str],
        *,
        timeout_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, np.ndarray[Any, Any]]:
        client = clients.get(id(self))
        if client is None:
            client = clients[id(self)] = aio.InferenceServerClient(self._host, conn_limit=64)
        tensors = []
        for name, array in inputs.items():
            tensor = http.InferInput(name, list(array.shape), types[str(array.dtype)])
            tensor.set_data_from_numpy(np.ascontiguousarray(array), binary_data=True)
            tensors.append(tensor)
        wanted = [http.InferRequestedOutput(name, binary_data=True) for name in outputs]
        answer = await client.infer(model, tensors, outputs=wanted, headers=dict(headers or {}))
        return {name: answer.as_numpy(name) for name in outputs}

    setattr(TritonClient, "infer", infer)  # noqa: B010 - the types say that it is no attribute to write
    main.main()


@contextmanager
def running(command: Sequence[str], log: Path, ready: str, environment: Mapping[str, str]) -> Iterator[None]:
    """A process, once `ready` answers 200. Raises `SystemExit` with the end of its log if it never does."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment})
    begun = time.monotonic()
    try:
        while not _answers(ready):
            if process.poll() is not None or time.monotonic() - begun > _READY_SECONDS:
                raise SystemExit(log.read_text(encoding="utf-8", errors="replace")[-3000:])
            time.sleep(0.2)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def measured(port: int, model: str, texts: Sequence[str], clients: int, each: int, seconds: float) -> float:
    """Milliseconds of the median for one client, else texts a second."""
    import msgspec

    from benchmarks.load import Plan, percentile, run

    parts = [texts[start : start + each] for start in range(0, len(texts) - each + 1, each)]
    bodies = [msgspec.msgpack.encode({"items": [{"text": text} for text in part]}) for part in parts]
    path, kind = f"/v1/encode/{model}", "application/msgpack"
    result = run(Plan("127.0.0.1", port, path, kind, bodies, clients, seconds, warmup=3))
    if clients == 1:
        return percentile(result.latencies, 50) * 1e3
    return len(result.numbers) * each / result.wall_s


def texts_for(count: int) -> list[str]:
    """Short ones, as queries are."""
    from benchmarks.corpora import make_corpus

    return list(make_corpus("short", count, lambda texts: [len(text.split()) for text in texts]).texts)


def main() -> None:
    """Start all, take turns, print."""
    parser = argparse.ArgumentParser(prog="benchmarks.triton_paths", description="two frontends on one Triton")
    parser.add_argument("-r", "--repository", type=Path, required=True)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=2.0)
    given = parser.parse_args()
    # Else a timeout would leave the servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    from sie_triton.embedded.ports import free_port

    texts, triton, metrics = texts_for(256), free_port(), free_port()
    ports = {side: free_port() for side in SIDES}
    found: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        command = [sys.executable, "-m", "sie_triton.cli", "triton", "-r", str(given.repository)]
        command += ["--http-port", str(triton), "--metrics-port", str(metrics)]
        stack.enter_context(running(command, folder / "triton", f"http://127.0.0.1:{triton}/v2/health/ready", {}))
        for side, port in ports.items():
            start = "sie_frontend.main" if side == "ours" else "benchmarks.triton_paths"
            told = {
                "SIE_TRITON_TRITON_URL": f"127.0.0.1:{triton}",
                "SIE_TRITON_REPOSITORY": str(given.repository),
                "SIE_TRITON_PORT": str(port),
                _INSIDE: side,
            }
            ready = f"http://127.0.0.1:{port}/readyz"
            stack.enter_context(running([sys.executable, "-m", start], folder / side, ready, told))
        for number in range(given.rounds):
            for name, (clients, each) in LOADS.items():
                for side in SIDES if number % 2 else SIDES[::-1]:
                    rate = measured(ports[side], given.model, texts, clients, each, given.seconds)
                    found.setdefault((side, name), []).append(rate)
            print(json.dumps({f"{side}, {name}": rates[-1] for (side, name), rates in found.items()}), file=sys.stderr)
    print(f"| | {' | '.join(SIDES)} | ours / tritonclient, median (range) |\n|---|---|---|---|")
    for name in LOADS:
        ours, theirs = (found[side, name] for side in SIDES)
        ratios = sorted(one / other for one, other in zip(ours, theirs, strict=True))
        cells = [f"{statistics.median(rates):.4g}" for rates in (ours, theirs)]
        print(
            f"| {name} | {' | '.join(cells)} | {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}) |"
        )


_INSIDE = "SIE_TRITON_BENCHMARK_SIDE"

if __name__ == "__main__":
    if os.environ.get(_INSIDE) == "tritonclient":
        frontend_by_tritonclient()
    else:
        main()
