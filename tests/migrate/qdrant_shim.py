"""Qdrant's REST API over qdrant-client's local mode: its own models read our requests and write the answers.

Runs in an environment with qdrant-client, not in the tests' own. The server's binary is in no package registry.
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from qdrant_client import QdrantClient
from qdrant_client.http import models


class Handler(BaseHTTPRequestHandler):
    """The four calls that a check makes. `log` keeps every exchange."""

    client: QdrantClient
    log: list[dict[str, Any]]

    def do_GET(self) -> None:
        parts = self.path.strip("/").split("/")
        if parts == ["collections"]:
            self._answer(self.client.get_collections())
        elif self.client.collection_exists(parts[1]):
            self._answer(self.client.get_collection(parts[1]))
        else:
            self._send(404, {"status": {"error": f"Not found: Collection `{parts[1]}` doesn't exist!"}, "time": 0.0})

    def do_POST(self) -> None:
        self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _, collection, *rest = self.path.strip("/").split("/")
        if rest == ["points", "scroll"]:
            asked = models.ScrollRequest(**self.body)
            points, following = self.client.scroll(
                collection,
                limit=asked.limit or 10,
                offset=asked.offset,
                with_payload=asked.with_payload or False,
                with_vectors=asked.with_vector or False,
            )
            self._answer(models.ScrollResult(points=points, next_page_offset=following))
        else:
            assert rest == ["points"]
            wanted = models.PointRequest(**self.body)
            vectors = wanted.with_vector if wanted.with_vector is not None else False
            found = self.client.retrieve(collection, wanted.ids, with_payload=True, with_vectors=vectors)
            self._answer(found)

    def _answer(self, result: Any) -> None:
        plain = [entry.model_dump(mode="json") for entry in result] if isinstance(result, list) else None
        self._send(200, {"result": plain or result.model_dump(mode="json"), "status": "ok", "time": 0.0})

    def _send(self, status: int, content: dict[str, Any]) -> None:
        body = getattr(self, "body", None)
        self.log.append({"path": self.path, "body": body, "status": status, "answer": content})
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve(client: QdrantClient) -> tuple[ThreadingHTTPServer, str, list[dict[str, Any]]]:
    """A server of the client's collections, its address, and the log of its exchanges."""
    log: list[dict[str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"client": client, "log": log}))
    Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}", log
