"""Where a cluster's pods find the repository: a persistent volume claim or an object store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

_URI = re.compile(r"(?P<scheme>pvc|s3|gs)://(?P<host>[^/]*)(?:/(?P<path>.*))?", re.DOTALL)
_CLAIM = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
# What Triton's own pattern for object stores allows in a bucket and in the path behind it.
_BUCKET = re.compile(r"[0-9a-zA-Z][0-9a-zA-Z.-]*")
_SEGMENT = re.compile(r"[0-9a-zA-Z._-]+")


@dataclass(frozen=True, slots=True)
class Source:
    """`host` is the claim or the bucket, `path` the folder in it, without slashes at its ends; "" is its root."""

    scheme: Literal["pvc", "s3", "gs"]
    host: str
    path: str

    @property
    def is_claim(self) -> bool:
        """Whether it is mounted, rather than fetched."""
        return self.scheme == "pvc"

    @property
    def uri(self) -> str:
        """The URI in its shortest form."""
        return f"{self.scheme}://{self.host}" + (f"/{self.path}" if self.path else "")


def parse_source(uri: str) -> Source:
    """Read a URI; raises `ValueError` that names the cause."""
    match = _URI.fullmatch(uri)
    if match is None:
        raise ValueError(f"`{uri}` is not where a repository can be; write `pvc://CLAIM/FOLDER`, `s3://…` or `gs://…`")
    scheme, host, path = match["scheme"], match["host"], (match["path"] or "").strip("/")
    if not (_CLAIM if scheme == "pvc" else _BUCKET).fullmatch(host):
        what = "claim" if scheme == "pvc" else "bucket"
        raise ValueError(f"`{host}` in `{uri}` is not the name of a {what}")
    for segment in path.split("/") if path else ():
        if segment in (".", "..") or not _SEGMENT.fullmatch(segment):
            raise ValueError(f"`{segment}` in `{uri}` cannot be part of the path; use letters, digits, `.`, `_`, `-`")
    return Source(scheme, host, path)  # type: ignore[arg-type]
