"""What `serve --triton-url`, and a frontend alone, say of an address where no Triton answers, or another program.

The others are the standard library's servers and plain sockets.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sie_frontend.triton import reach
from sie_frontend.triton.reach import obstacle

from frontend.process import FrontendProcess


@contextmanager
def http_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@contextmanager
def listener(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """A port whose first caller is answered by `answer`."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


class Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


def triton(index: object) -> type[BaseHTTPRequestHandler]:
    """What Triton answers to the two questions, as its protocol has it."""

    class Answers(Files):
        def do_GET(self) -> None:
            self.answer({"name": "triton", "version": "2.60.0"})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.answer(index)

        def answer(self, document: object) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Answers


def test_a_closed_port_and_a_name_that_nobody_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    said = obstacle(f"http://{address}", ["m"])
    assert f"nothing listens at {address}" in said and "HTTP port is 8000" in said
    assert "the name in no.such.host.invalid:8000 is not known" in obstacle("no.such.host.invalid:8000", ["m"])


def test_another_program() -> None:
    with http_server(Files) as address:
        assert f"what answers at {address} is no Triton (HTTP 404 for /v2)" in obstacle(address, ["m"])
    # As a gRPC port greets.
    with listener(lambda connection: connection.sendall(b"\0\0\x18\x04\0\0\0\0\0\0\x04\0\x3f\xff\xff\n")) as address:
        assert "does not speak Triton's HTTP" in obstacle(address, ["m"])


def test_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_ASK_S", 0.2)
    over = threading.Event()
    with listener(lambda _: over.wait(10)) as address:
        assert "what firewalls let through" in obstacle(address, ["m"])
        over.set()


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ([], "its repository has no `a`, `b`, `c` and 1 more; start it on a copy of this repository"),
        ([{"name": name, "version": "1", "state": "READY"} for name in "abcd"], "it starts"),
        (
            [{"name": "a", "version": "1", "state": "UNAVAILABLE", "reason": "no memory"}]
            + [{"name": name, "version": "1", "state": "READY"} for name in "bcd"],
            "has not loaded `a` (`a`: no memory)",
        ),
        ([{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "d"}], "`a`: not loaded"),
        ({"error": "no such route"}, "does not speak Triton's HTTP"),
    ],
)
def test_a_triton_with_other_models(index: object, said: str) -> None:
    with http_server(triton(index)) as address:
        assert said in obstacle(f"{address},elsewhere:8000", [*"abcd"])


def test_a_frontend_alone_says_why_it_is_not_ready(repository: Path, tmp_path: Path) -> None:
    with http_server(Files) as address:
        arguments = ("--repository", repository, "--triton-url", address)
        with FrontendProcess(tmp_path / "log", *arguments) as frontend:
            said = frontend.wait_for(r"waiting for Triton at .*")[0]
    assert f"what answers at {address} is no Triton (HTTP 404 for /v2)" in said
