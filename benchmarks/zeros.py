"""A Triton without models, for programs that measure what stands before it: it answers at once with zeros.

The name of the one output that is asked for says its shape: `rows x 384` is `[rows, 384]`, `tokens x 128` is
`[rows, sequence, 128]`, float32.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent


class _Answerer(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        fields = dict(line.lower().split(b": ", 1) for line in bytes(self._buffer[: end - 4]).split(b"\r\n")[1:])
        if len(self._buffer) < end + int(fields[b"content-length"]):
            return
        asked = json.loads(self._buffer[end : end + int(fields[b"inference-header-content-length"])])
        self._buffer.clear()
        name = asked["outputs"][0]["name"]
        what, _, dim = name.partition(" x ")
        rows, sequence = asked["inputs"][0]["shape"]
        shape = [rows, int(dim)] if what == "rows" else [rows, sequence, int(dim)]
        size = 4 * shape[0] * int(dim) * (1 if what == "rows" else sequence)
        output = {"name": name, "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": size}}
        head = json.dumps({"outputs": [output]}).encode()
        lines = f"HTTP/1.1 200 OK\r\nInference-Header-Content-Length: {len(head)}\r\nContent-Length: {len(head) + size}"
        self._transport.writelines([lines.encode(), b"\r\n\r\n", head, bytes(size)])


@contextmanager
def answering() -> Iterator[tuple[str, int]]:
    """Start one in a process of its own; gives `host:port` and the process id."""
    command = [sys.executable, "-m", "benchmarks.zeros"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=_ROOT) as server:
        assert server.stdout
        try:
            yield f"127.0.0.1:{int(server.stdout.readline())}", server.pid
        finally:
            server.terminate()


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Answerer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
