"""Whom we are measured against: one module each, and what all of them share.

A peer *in process* is a module with `load`, run by `worker` inside the peer's own environment: such a module imports
nothing of ours beyond this package, and its library only inside `load`. A peer *over HTTP* is a module with `server`,
which returns the `HttpServer` to start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Embed: TypeAlias = "Callable[[Sequence[str]], Any]"
"""Texts to a float32 array [texts, dim]."""


@dataclass(frozen=True)
class Files:
    """What every peer gets: the checkpoint with `onnx/model.onnx` beside its weights, its id, and the cores to use."""

    model_id: str
    checkpoint: str
    cores: int


@dataclass(frozen=True)
class HttpServer:
    """How to start a server, and how it is spoken to. `command` runs in the peer's environment."""

    command: Sequence[str]
    port: int
    path: str
    ready_path: str
    content_type: str
    request: Callable[[Sequence[str]], bytes]
    vectors: Callable[[bytes], list[list[float]]]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str | None = None


@dataclass(frozen=True)
class Peer:
    """One row of the table: its module below this package and what its environment needs.

    `python` is the minor version it demands; `variants` are the names of what the module's `load` returns.
    """

    name: str
    module: str
    requirements: tuple[str, ...] = ()
    python: str | None = None
    http: bool = False
    variant: str = ""
    in_short_mode: bool = False


# Installed exactly so, or not at all: a figure belongs to a version.
_TORCH = "torch==2.13.0"
_INFINITY = ("infinity-emb[server,torch,optimum]==0.0.78", "numpy<2", "typer==0.12.5", "click<8.2", _TORCH)
_SENTENCE_TRANSFORMERS = ("sentence-transformers[onnx]==5.7.0", _TORCH)

PEERS: tuple[Peer, ...] = (
    Peer("ours", "ours", http=True, in_short_mode=True),
    Peer("ours-ensemble", "ours", http=True),
    Peer("ours-bfloat16", "ours", http=True),
    Peer("ours-int8", "ours", http=True),
    Peer("ours-openvino-float32", "ours", http=True),
    Peer("ours-openvino-bfloat16", "ours", http=True),
    Peer("ours-openvino-int8", "ours", http=True),
    Peer("limit", "limit", in_short_mode=True),
    Peer("rung", "rungs"),
    Peer("fastembed", "fastembed", ("fastembed==0.9.1",), in_short_mode=True),
    Peer("ctranslate2", "ctranslate2", ("ctranslate2==4.8.5", "transformers==5.23.0", _TORCH)),
    Peer("openvino-genai", "openvino_genai", ("openvino-genai==2026.4.1.0", "transformers==5.23.0")),
    Peer("sentence-transformers", "sentence_transformers", _SENTENCE_TRANSFORMERS),
    Peer("infinity-torch", "infinity", _INFINITY, http=True, variant="torch"),
    Peer("infinity-onnx", "infinity", _INFINITY, http=True, variant="optimum"),
    Peer("sie-server", "sie_server", ("sie-server==0.10.1",), python="3.12", http=True),
    Peer(
        "sie-server-all-cores",
        "sie_server",
        ("sie-server==0.10.1",),
        python="3.12",
        http=True,
        variant="all-cores",
    ),
)
