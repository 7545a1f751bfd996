"""What one frontend process is told at its start; nothing reads the environment later."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sie_frontend.requests import MAX_BODY_BYTES, MAX_ITEMS


class SettingsError(ValueError):
    """A setting cannot be used; the message names it."""


@dataclass(frozen=True)
class Settings:
    """Where the repository and Triton are, and the limits of this process.

    `inflight_extra` runs are sent ahead of what the model's instances compute while no small requests come, so that an
    instance finds its next run waiting; it may pay where runs take few milliseconds. `pending_items` bounds what is
    admitted; beyond it a request gets 503 QUEUE_FULL.
    """

    repository: Path
    triton_url: str = "127.0.0.1:8000"
    host: str = "127.0.0.1"
    port: int = 8080
    device: str = "cpu"
    pending_items: int = 16_384
    max_items: int = MAX_ITEMS
    max_body_bytes: int = MAX_BODY_BYTES
    inflight_extra: int = 0
    triton_timeout_s: float = 120.0
    shutdown_grace_s: float = 30.0
    machine_profile: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Settings from `SIE_TRITON_*` variables and SIE's own. Raises `SettingsError`."""

        def text(name: str, default: str) -> str:
            return environment.get(name) or default

        def whole(name: str, default: int) -> int:
            value = text(name, str(default))
            if not value.isdecimal():
                raise SettingsError(f"`{name}` must be a whole number, not {value!r}")
            return int(value)

        return cls(
            repository=Path(text("SIE_TRITON_REPOSITORY", "model_repository")),
            triton_url=text("SIE_TRITON_TRITON_URL", cls.triton_url).removeprefix("http://").rstrip("/"),
            host=text("SIE_TRITON_HOST", cls.host),
            port=whole("SIE_TRITON_PORT", cls.port),
            device=text("SIE_TRITON_DEVICE", cls.device),
            pending_items=whole("SIE_TRITON_PENDING_ITEMS", cls.pending_items),
            max_body_bytes=whole("SIE_MAX_REQUEST_BODY_BYTES", cls.max_body_bytes),
            inflight_extra=whole("SIE_TRITON_INFLIGHT_EXTRA", cls.inflight_extra),
            machine_profile=environment.get("SIE_MACHINE_PROFILE") or None,
        )
