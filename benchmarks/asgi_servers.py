"""What an ASGI server costs for a small POST, with an answer of one vector (6 KB) and of a bulk request (300 KB).

    python -m benchmarks.asgi_servers [--seconds 3] [--rounds 3]

The same Starlette application in every server, one worker each, in rounds that alternate. Prints a Markdown table of
requests per second and CPU milliseconds of the server a request; servers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks import load
from benchmarks.load import ROOT, Plan
from benchmarks.measure import cpu_seconds

SIZES = (6_000, 300_000)
_BODY = b"x" * 200
_ANSWERS = {size: b"x" * size for size in SIZES}
_APP = "benchmarks.asgi_servers:app"
_START_SECONDS = 20.0


async def _answer(request: Request) -> Response:
    await request.body()
    return Response(_ANSWERS[request.path_params["size"]], media_type="application/msgpack")


app = Starlette(routes=[Route("/{size:int}", _answer, methods=["POST"])])


def commands(port: int) -> dict[str, tuple[tuple[str, ...], list[str]]]:
    """Name -> the packages that it needs, and its command line."""
    uvicorn = ["uvicorn", _APP, "--port", str(port), "--log-level", "warning", "--no-access-log"]
    bind = f"127.0.0.1:{port}"
    return {
        "uvicorn, httptools, uvloop": (("uvicorn", "httptools", "uvloop"), [*uvicorn, "--loop", "uvloop"]),
        "uvicorn, h11, asyncio": (("uvicorn", "h11"), [*uvicorn, "--http", "h11", "--loop", "asyncio"]),
        "granian": (("granian",), ["granian", "--interface", "asgi", "--port", str(port), "--no-log", _APP]),
        "hypercorn, uvloop": (("hypercorn", "uvloop"), ["hypercorn", "--bind", bind, "-k", "uvloop", _APP]),
    }


@dataclass
class Server:
    """One running server and what was measured of it, by (size, clients)."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    rates: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    costs: dict[tuple[int, int], list[float]] = field(default_factory=dict)

    def measure(self, size: int, clients: int, seconds: float) -> None:
        """One round of one cell."""
        cpu = cpu_seconds(self.process.pid)
        plan = Plan("127.0.0.1", self.port, f"/{size}", "application/msgpack", [_BODY], clients, seconds)
        result = load.run(plan)
        count = len(result.numbers)
        self.rates.setdefault((size, clients), []).append(count / result.wall_s)
        spent = cpu_seconds(self.process.pid) - cpu
        self.costs.setdefault((size, clients), []).append(spent / count * 1e3)

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(timeout=20)


def start_all(stack: ExitStack) -> list[Server]:
    """Every server that is installed, answering."""
    servers = []
    for name in commands(0):
        port = _free_port()
        needs, command = commands(port)[name]
        if missing := [package for package in needs if importlib.util.find_spec(package) is None]:
            print(f"{name} is left out: {', '.join(missing)} not installed", file=sys.stderr)
            continue
        process = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        server = Server(name, port, process)
        stack.callback(server.close)
        _wait(server)
        servers.append(server)
    return servers


def _wait(server: Server) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"{server.name} did not start")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def table(servers: Sequence[Server], cells: Sequence[tuple[int, int]]) -> str:
    """Markdown: requests per second, and in brackets CPU milliseconds of the server a request."""
    header = " | ".join(f"{size // 1000} KB, {clients} clients" for size, clients in cells)
    lines = [f"| requests/s (CPU ms each) | {header} |", "|---|" + "---|" * len(cells)]
    for server in servers:
        shown = [
            f"{statistics.median(server.rates[cell]):.0f} ({statistics.median(server.costs[cell]):.2f})"
            for cell in cells
        ]
        lines.append(f"| {server.name} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.asgi_servers")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    cells = [(size, clients) for size in SIZES for clients in (1, 32)]
    with ExitStack() as stack:
        servers = start_all(stack)
        for _ in range(options.rounds):
            for size, clients in cells:
                for server in servers:
                    server.measure(size, clients, options.seconds)
    print(table(servers, cells))


if __name__ == "__main__":
    main()
