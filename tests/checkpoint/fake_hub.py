"""A model hub on 127.0.0.1: a real HTTP server with the parts of the hub's protocol that `huggingface_hub` uses.

Model and tree descriptions, `resolve` with HEAD and GET, redirects of large files to a content-addressed store with
`X-Linked-*` headers, ranges, ETags, branches, and the error codes of missing, gated and limited models. Switches on a
model make it fail on purpose. Use it as a context manager, and give `environment()` to a subprocess: the client reads
its variables when it is imported.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".pt", ".onnx", ".h5", ".msgpack")


@dataclass
class FakeModel:
    """One repository at one commit, and what is to go wrong with it."""

    files: dict[str, bytes]
    commit: str
    branches: tuple[str, ...] = ("main",)
    gated: bool = False
    """Files are refused: 401 without a token, 403 with one that has not accepted the licence."""
    status: int | None = None
    """Every request is answered with this status."""
    retry_after: int | None = None
    hangs: tuple[str, ...] = ()
    """Requests whose path contains one of these are never answered."""
    cut_after: int | None = None
    """The next GET of a large file that is longer than this ends after so many bytes, once."""
    reset: bool = False
    """A cut connection is reset (RST) instead of closed."""
    announced_sizes: dict[str, int] = field(default_factory=dict)
    """Sizes that the description claims instead of the true ones."""
    corrupt: tuple[str, ...] = ()
    """Files whose first byte changes on the way."""

    def describe(self, name: str) -> tuple[int, str, str | None]:
        """Size, git's name of the content (of the pointer, for a large file), sha256 for a large file."""
        content = self.files[name]
        size = self.announced_sizes.get(name, len(content))
        if not name.endswith(LARGE):
            return size, _git_name(content), None
        digest = hashlib.sha256(content).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n"
        return size, _git_name(pointer.encode()), digest


@dataclass(frozen=True)
class SeenRequest:
    """One request as it came in."""

    method: str
    path: str
    range: str | None
    token: str | None


class FakeHub:
    """The server; `models` maps `owner/name` to what is served under it."""

    def __init__(self) -> None:
        self.models: dict[str, FakeModel] = {}
        self.requests: list[SeenRequest] = []
        self.stopping = threading.Event()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._stopped = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, hf_id: str, files: Mapping[str, bytes], **switches: Any) -> FakeModel:
        commit = switches.pop("commit", None) or hashlib.sha1(hf_id.encode()).hexdigest()
        model = self.models[hf_id] = FakeModel(dict(files), commit, **switches)
        return model

    def seen(self, hf_id: str, method: str = "GET") -> list[str]:
        """The paths of the requests for a model, without its name."""
        asked = [request.path for request in self.requests if request.method == method]
        return [path.partition(hf_id)[2] for path in asked if f"/{hf_id}/" in f"{path}/"]

    def environment(self, home: Path) -> dict[str, str]:
        """What a client process needs beside its usual environment; `home` becomes its HF_HOME."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_ETAG_TIMEOUT": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": "2",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }

    def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self.stopping.set()
            self._server.shutdown()
            self._server.server_close()

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Handler(BaseHTTPRequestHandler):
    """Routes: `/api/models/ID`, with `/revision/REV` or `/tree/REV`; `/ID/resolve/REV/FILE`; `/store/ID/SHA256`."""

    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Tests read `hub.requests` instead."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ") or None
        self.hub.requests.append(SeenRequest(self.command, path, self.headers.get("range"), token))
        parts = path.strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        owner_at = 2 if is_api else 1 if parts[0] == "store" else 0
        model = self.hub.models.get("/".join(parts[owner_at : owner_at + 2]))
        rest = parts[owner_at + 2 :]
        if model is None:
            # The hub does not say whether a model is missing or private.
            self._send(401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif any(part in path for part in model.hangs):
            self.hub.stopping.wait()
            self.close_connection = True
        elif model.status is not None:
            headers = {} if model.retry_after is None else {"Retry-After": str(model.retry_after)}
            self._send(model.status, headers)
        elif parts[0] == "store":
            name = next(name for name in model.files if model.describe(name)[2] == rest[0])
            self._send_content(model, name, {"ETag": f'"{rest[0]}"'})
        elif is_api:
            self._send_description(model, parts, rest)
        else:
            self._resolve(model, token, parts, revision=rest[1], name="/".join(rest[2:]))

    def _send_description(self, model: FakeModel, parts: list[str], rest: list[str]) -> None:
        if not self._has_revision(model, rest[1] if len(rest) > 1 else "main"):
            return
        files = []
        for name in sorted(model.files):
            size, git_name, sha256 = model.describe(name)
            entry: dict[str, Any] = {"rfilename": name, "path": name, "type": "file", "size": size}
            entry |= {"blobId": git_name, "oid": git_name}
            if sha256:
                entry["lfs"] = {"sha256": sha256, "oid": sha256, "size": size, "pointerSize": 134}
            files.append(entry)
        content: object = files
        if rest[:1] != ["tree"]:
            hf_id = "/".join(parts[2:4])
            content = {"_id": "0", "id": hf_id, "modelId": hf_id, "sha": model.commit, "private": False}
            content |= {"gated": "auto" if model.gated else False, "siblings": files, "tags": [], "downloads": 0}
        self._send(200, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def _resolve(self, model: FakeModel, token: str | None, parts: list[str], revision: str, name: str) -> None:
        if not self._has_revision(model, revision):
            return
        if model.gated:
            message = "Access to this model is restricted"
            self._send(403 if token else 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": message})
            return
        headers = {"X-Repo-Commit": model.commit, "Accept-Ranges": "bytes"}
        if name not in model.files:
            self._send(404, headers | {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
            return
        _, git_name, sha256 = model.describe(name)
        if sha256 is None:
            self._send_content(model, name, headers | {"ETag": f'"{git_name}"'})
            return
        headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(model.files[name]))}
        # Another name of this host: the real store is another host too, and the client follows only its own host's
        # redirects when it asks for headers.
        store = self.hub.url.replace("127.0.0.1", "localhost")
        self._send(302, headers | {"Location": f"{store}/store/{parts[0]}/{parts[1]}/{sha256}"})

    def _has_revision(self, model: FakeModel, revision: str) -> bool:
        known = revision == model.commit or revision in model.branches
        if not known:
            self._send(404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": f"Invalid rev id: {revision}"})
        return known

    def _send_content(self, model: FakeModel, name: str, headers: dict[str, str]) -> None:
        content = model.files[name]
        if name in model.corrupt:
            content = bytes([content[0] ^ 1]) + content[1:]
        asked = self.headers.get("range")
        if asked is None:
            status, body = 200, content
        else:
            start = int(asked.removeprefix("bytes=").partition("-")[0])
            status, body = 206, content[start:]
            headers = headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        if self.command == "GET" and model.cut_after is not None and name.endswith(LARGE):
            cut, model.cut_after = model.cut_after, None
            self._send_head(status, headers, len(body))
            self.wfile.write(body[:cut])
            self._drop(model.reset)
        else:
            self._send(status, headers, body)

    def _drop(self, reset: bool) -> None:
        if reset:
            # A zero linger makes the close an RST.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        else:
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def _send(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self._send_head(status, headers, len(body))
        if self.command == "GET":
            self.wfile.write(body)

    def _send_head(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


def _git_name(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
