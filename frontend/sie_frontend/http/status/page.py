"""The status page: static files that lie beside this module, and who gets them.

Nothing in them depends on the server, so that anybody may have them; what they show comes from `/v1/status`, which asks
for a key where keys are asked for. The headers let them run no script but their own, speak to no other origin, and
stand in nobody's frame.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_MEDIA: Final[Mapping[str, str]] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_POLICY: Final = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)

HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": "; ".join(_POLICY),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}
"""What every file of the page is answered with, beside its type and its tag."""

INDEX: Final = "index.html"


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file's bytes, and the headers of its answer."""

    content: bytes
    headers: Mapping[str, str]


class StaticPage:
    """The files by name, read once. An ASGI application for whatever is below its path; no other name finds a file."""

    def __init__(self) -> None:
        self._files: dict[str, StaticFile] = {}
        for entry in (files(__package__) / "static").iterdir():
            content = entry.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            media = _MEDIA[entry.name[entry.name.rindex(".") :]]
            self._files[entry.name] = StaticFile(content, {**HEADERS, "content-type": media, "etag": tag})

    def answer(self, request: Request, name: str = INDEX) -> Response:
        """A file, or that the browser has it already. Raises `HTTPException` (404, 405)."""
        file = self._files.get(name)
        if file is None:
            raise HTTPException(404)
        if request.method not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        if request.headers.get("if-none-match") == file.headers["etag"]:
            return Response(status_code=304, headers=dict(file.headers))
        return Response(file.content, headers=dict(file.headers))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request for a file."""
        request = Request(scope, receive)
        name = request.url.path.rpartition("/")[2] if scope["type"] == "http" else ""
        await self.answer(request, name)(scope, receive, send)


def wants_page(accept: str | None) -> bool:
    """Whether an `Accept` is a browser's: it names `text/html`, and nothing rather than it that a program reads.

    `*/*` and `text/*`, which programs send without a thought, name nothing.
    """
    html = other = 0.0
    for entry in (accept or "").split(","):
        media, *parameters = (part.strip().lower() for part in entry.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                quality = _quality(value.strip())
        if media == "text/html":
            html = max(html, quality)
        elif media in ("application/json", "application/msgpack", "application/x-msgpack"):
            other = max(other, quality)
    return html > 0 and html >= other


def _quality(text: str) -> float:
    """A quality value; what is none counts as not wanted."""
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0
