"""A whole checkpoint on this machine's disk."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from sie_triton.checkpoint.files import architectures, file_digest, names_in, parts_of, read_json
from sie_triton.checkpoint.merged import merged_folder
from sie_triton.checkpoint.open_clip import is_open_clip
from sie_triton.checkpoint.published import Beyond
from sie_triton.checkpoint.request import Request
from sie_triton.checkpoint.view import plain_folder, published_layout

Source = Literal["folder", "cache", "hub", "package"]

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on this machine's disk.

    `origin` is where its files lie as they were published; nothing is ever written there. `files` are the names,
    relative to `origin` and with `/`, that decide what the model computes. `revision` is the hub's commit (40 hex
    digits) for everything that came from the hub or equals it, else what the bundle said. `adapter` is merged into the
    weights, and its other files lie over these.
    """

    origin: Path
    source: Source
    hf_id: str | None
    revision: str | None
    files: tuple[str, ...] = field(repr=False)
    adapter: Checkpoint | None = None

    @cached_property
    def folder(self) -> Path:
        """The folder that transformers and sentence-transformers load: `origin`, or a view of it in the plain layout.

        Raises `DiagnosticError`: SIE325 where there is no room for the view, SIE322 for an adapter that is not merged.
        """
        plain = plain_folder(self.origin, self.files)
        if self.adapter is None:
            return plain
        files = self.files if plain == self.origin else tuple(sorted(names_in(plain)))
        return merged_folder(plain, files, self.adapter.origin, self.adapter.files)

    def revision_of(self, hf_id: str | None) -> str | None:
        """The revision of the model, or of its adapter, that a bundle names."""
        return self.revision if self.adapter is None or self.hf_id == hf_id else self.adapter.revision

    @cached_property
    def digests(self) -> dict[str, str]:
        """The sha256 of each of `files`, computed when first asked for."""
        return {name: file_digest(self.origin / name) for name in self.files}

    @cached_property
    def identity(self) -> str:
        """A stable name for exactly these bytes: `hf:ID@COMMIT`, or `sha256:` over names and digests for a folder.

        With an adapter, both names with a `+` between them.
        """
        own = self._own_identity
        return own if self.adapter is None else f"{own}+{self.adapter.identity}"

    @property
    def _own_identity(self) -> str:
        if self.source != "folder" and self.hf_id and self.revision and _COMMIT.fullmatch(self.revision):
            return f"hf:{self.hf_id}@{self.revision}"
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(self.digests.items()))
        return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"

    @cached_property
    def remote_code_reason(self) -> str | None:
        """Why only the checkpoint's own Python can build the model; None where transformers' own classes can."""
        if is_open_clip(self.files):
            return None
        layout = published_layout(self.origin, self.files)
        if layout is not None:
            return layout.reason if isinstance(layout, Beyond) else None
        config = self.read_config()
        auto_map = config.get("auto_map")
        if not isinstance(auto_map, dict) or not any(str(key).startswith("AutoModel") for key in auto_map):
            return None
        named = architectures(config)
        try:
            import transformers  # heavy, and only asked of checkpoints with code of their own
        except ImportError:
            return "its configuration names code of its own (`auto_map`)"
        if any(hasattr(transformers, name) for name in named):
            return None
        return f"transformers {transformers.__version__} has no class of its `architectures` ({', '.join(named)})"

    @property
    def needs_remote_code(self) -> bool:
        """Whether only the checkpoint's own Python can build the model."""
        return self.remote_code_reason is not None

    def read_config(self) -> dict[str, Any]:
        """The content of the transformer's `config.json`, as published."""
        config = read_json(self.origin / f"{parts_of(self.origin).home}config.json")
        return config if isinstance(config, dict) else {}


def checkpoint_at(folder: Path, source: Source, request: Request, revision: str | None) -> Checkpoint:
    """The checkpoint of a folder that is known to be whole."""
    files = request.wanted(names_in(folder), parts_of(folder))
    return Checkpoint(folder, source, request.hf_id or None, revision, files)
