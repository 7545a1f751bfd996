"""What one frontend process is told at its start; nothing reads the environment later.

`Settings` is the one place that knows a setting: the metadata of each field say its variable, how its text is read and
what it means. The environment, the command line and the documentation are driven by them.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from sie_frontend.contract.requests import (
    MAX_BODY_BYTES,
    MAX_IMAGE_PIXELS,
    MAX_IMAGES,
    MAX_ITEM_IMAGES,
    MAX_ITEMS,
    Limits,
)
from sie_frontend.setting_values import (
    METADATA,
    Setting,
    as_endpoints,
    as_seconds,
    as_size,
    as_switch,
    as_whole,
    is_loopback,
    setting,
)

# From here on Pillow warns of a decompression bomb, from twice that on it refuses.
_PIXELS_DECODED: Final = 89_478_485
_ORIGIN = re.compile(r"https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:\d{1,5})?", re.ASCII)


class SettingsError(ValueError):
    """A setting cannot be used; the message names it."""


@dataclass(frozen=True)
class Settings:
    """Where the repository and the Tritons are, and the limits of this process.

    Raises `SettingsError` for what cannot be used, wherever it came from.
    """

    repository: str | os.PathLike[str] = setting(  # noqa: RUF009 - it makes a dataclass field
        "SIE_TRITON_REPOSITORY",
        "model_repository",
        "the built repository: a folder, or an object store's `s3://bucket/prefix`, `gs://bucket/prefix` or any other "
        "URL that fsspec knows",
    )
    triton_url: str = setting(
        "SIE_TRITON_TRITON_URL",
        "127.0.0.1:8000",
        "Triton's HTTP endpoint as `host:port`; several, separated by commas, are replicas of each other, and so are "
        "all addresses of the name in `dns://name:port`",
    )
    host: str = setting("SIE_TRITON_HOST", "127.0.0.1", "address that the frontend listens on")
    port: int = setting("SIE_TRITON_PORT", 8080, "port that the frontend listens on", parse=as_whole)
    device: str = setting(
        "SIE_TRITON_DEVICE",
        "cpu",
        "what Triton computes on; decides padding and the size of runs",
        choices=("cpu", "cuda", "cuda-tensorrt"),
    )
    api_keys_file: str | None = setting(
        "SIE_TRITON_API_KEYS_FILE",
        None,
        "file of the keys that may ask, a line each as `sie-triton keys new` prints it, read again when it changes; "
        "without it and `SIE_TRITON_API_KEYS` no key is asked for",
    )
    api_keys: str | None = setting(
        "SIE_TRITON_API_KEYS", None, "the lines of such a file themselves, which hold hashes and no keys"
    )
    tls_certificate: str | None = setting(
        "SIE_TRITON_TLS_CERTIFICATE",
        None,
        "certificate with its chain, a file in PEM; with it and its key HTTPS is served, and both are taken again "
        "when they are renewed",
    )
    tls_key: str | None = setting("SIE_TRITON_TLS_KEY", None, "the certificate's key, a file in PEM without a password")
    cors_origins: str = setting(
        "SIE_TRITON_CORS_ORIGINS",
        "",
        "origins, separated by commas, whose pages browsers let ask, such as `https://search.example`; `*` is all of "
        "them, nothing is none",
    )
    admin_port: int | None = setting(
        "SIE_TRITON_ADMIN_PORT",
        None,
        "port of their own for `/metrics`, which is then answered there alone and without a key, and for health",
        parse=as_whole,
    )
    admin_host: str = setting("SIE_TRITON_ADMIN_HOST", "127.0.0.1", "address that this port listens on")
    ready_models: str = setting(
        "SIE_TRITON_READY_MODELS",
        "",
        "model ids, separated by commas, that must answer for `/readyz` to say ok; nothing means all",
    )
    load: str = setting(
        "SIE_TRITON_LOAD",
        "start",
        "when Triton loads models: all of them before this process serves, or each when it is first asked for; "
        "`SIE_TRITON_MEMORY_BUDGET` means the latter too",
        choices=("start", "on-demand"),
    )
    memory_budget: int | None = setting(
        "SIE_TRITON_MEMORY_BUDGET",
        None,
        "what the loaded models of one Triton may take together, such as `8GB` or `512MiB`; those that were used "
        "longest ago are unloaded when another needs room",
        parse=as_size,
    )
    preload: str = setting(
        "SIE_TRITON_PRELOAD",
        "",
        "model ids, separated by commas, that are loaded at the start where models are loaded on demand",
    )
    pin: str = setting(
        "SIE_TRITON_PIN",
        "",
        "model ids, separated by commas, that are loaded at the start and never unloaded where models are loaded on "
        "demand",
    )
    idle_evict_s: float = setting(
        "SIE_TRITON_IDLE_EVICT_S",
        0.0,
        "seconds without a request after which a model that was loaded on demand is unloaded; 0 means never",
        parse=as_seconds,
    )
    load_timeout_s: float = setting(
        "SIE_TRITON_LOAD_TIMEOUT_S",
        600.0,
        "seconds that Triton may take to load one model on demand",
        parse=as_seconds,
    )
    load_cooldown_s: float = setting(
        "SIE_TRITON_LOAD_COOLDOWN_S",
        10.0,
        "seconds for which a model that could not be loaded is not tried again; they double with each failure",
        parse=as_seconds,
    )
    pending_items: int = setting(
        "SIE_TRITON_PENDING_ITEMS",
        16_384,
        "items admitted and not answered yet; beyond it a request gets 503 QUEUE_FULL",
        parse=as_whole,
    )
    max_items: int = setting("SIE_TRITON_MAX_ITEMS", MAX_ITEMS, "items that one request may hold", parse=as_whole)
    max_body_bytes: int = setting(
        "SIE_MAX_REQUEST_BODY_BYTES", MAX_BODY_BYTES, "bytes of a request's body; larger ones get 413", parse=as_whole
    )
    body_timeout_s: float = setting(
        "SIE_TRITON_BODY_TIMEOUT_S",
        120.0,
        "seconds in which a request's body must arrive; later gets 408, 0 is no limit",
        parse=as_seconds,
    )
    request_timeout_s: float = setting(
        "SIE_TRITON_REQUEST_TIMEOUT_S",
        600.0,
        "seconds from a request's head to its answer, its body included; later gets 408, 0 is no limit",
        parse=as_seconds,
    )
    answer_timeout_s: float = setting(
        "SIE_TRITON_ANSWER_TIMEOUT_S",
        300.0,
        "seconds in which a client must have taken an answer; then its connection is closed, 0 is no limit",
        parse=as_seconds,
    )
    max_images: int = setting(
        "SIE_TRITON_MAX_IMAGES",
        MAX_IMAGES,
        "images that one request may hold, over all of its items; fewer of those that become more than 600 kilobytes",
        parse=as_whole,
    )
    max_item_images: int = setting(
        "SIE_TRITON_MAX_ITEM_IMAGES", MAX_ITEM_IMAGES, "images that one item may hold", parse=as_whole
    )
    max_image_bytes: int = setting(
        "SIE_TRITON_MAX_IMAGE_BYTES", MAX_BODY_BYTES, "bytes of one encoded image", parse=as_whole
    )
    max_image_pixels: int = setting(
        "SIE_TRITON_MAX_IMAGE_PIXELS",
        MAX_IMAGE_PIXELS,
        "pixels of one image, which its header tells before anything is decoded; decoding takes up to 16 bytes a pixel",
        parse=as_whole,
    )
    pending_images: int = setting(
        "SIE_TRITON_PENDING_IMAGES",
        2048,
        "images admitted and not answered yet, which hold 150 kilobytes each where a model takes 224 x 224 pixels; one "
        "of more pixels counts as several; beyond it a request gets 503 QUEUE_FULL",
        parse=as_whole,
    )
    image_threads: int = setting(
        "SIE_TRITON_IMAGE_THREADS",
        2,
        "images that are decoded and scaled at once; text is read by other threads",
        parse=as_whole,
    )
    inflight_extra: int = setting(
        "SIE_TRITON_INFLIGHT_EXTRA",
        1,
        "runs sent ahead of what the model's instances compute while no small requests come to any model, so that an "
        "instance finds its next run waiting",
        parse=as_whole,
    )
    keep_busy: int = setting(
        "SIE_TRITON_KEEP_BUSY",
        0,
        "Tritons that this frontend can keep busy alone; 0 means all that serve; where there are as many frontends as "
        "Tritons, 1 keeps the queues in Triton short",
        parse=as_whole,
    )
    triton_timeout_s: float = setting(
        "SIE_TRITON_TRITON_TIMEOUT_S", 120.0, "seconds after which an unanswered run is given up", parse=as_seconds
    )
    drain_delay_s: float = setting(
        "SIE_TRITON_DRAIN_DELAY_S",
        0.0,
        "seconds between SIGTERM and the closing of the listener: `/readyz` says 503 and requests are still answered, "
        "while load balancers take notice",
        parse=as_seconds,
    )
    shutdown_grace_s: float = setting(
        "SIE_TRITON_SHUTDOWN_GRACE_S",
        30.0,
        "seconds after the closing of the listener in which requests in flight may finish",
        parse=as_seconds,
    )
    log_format: str = setting(
        "SIE_TRITON_LOG_FORMAT",
        "text",
        "how log lines are written: for people, or one JSON object each",
        choices=("text", "json"),
    )
    access_log: bool = setting(
        "SIE_TRITON_ACCESS_LOG",
        False,
        "log one line for every request, with its milliseconds by stage",
        parse=as_switch,
    )
    machine_profile: str | None = setting(
        "SIE_MACHINE_PROFILE", None, "the identity that the header `X-SIE-Machine-Profile` must match"
    )

    def __post_init__(self) -> None:
        for known in known_settings():
            value = getattr(self, known.name)
            if known.choices and value not in known.choices:
                raise SettingsError(f"`{known.variable}` must be {_alternatives(known.choices)}, not {value!r}")
        for variable, port in (("SIE_TRITON_PORT", self.port), ("SIE_TRITON_ADMIN_PORT", self.admin_port or 0)):
            if not 0 <= port <= 65535:
                raise SettingsError(f"`{variable}` must be a port up to 65535, not {port}")
        for origin in self.allowed_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise SettingsError(
                    f"`SIE_TRITON_CORS_ORIGINS` must be origins such as `https://search.example`, not {origin!r}"
                )
        if not 0 < self.max_image_pixels <= _PIXELS_DECODED:
            raise SettingsError(
                f"`SIE_TRITON_MAX_IMAGE_PIXELS` must be from 1 to {_PIXELS_DECODED}, beyond which Pillow decodes "
                f"nothing, not {self.max_image_pixels}"
            )
        if not self.image_threads:
            raise SettingsError("`SIE_TRITON_IMAGE_THREADS` must be 1 or more, not 0")
        if self.api_keys_file is not None and self.api_keys is not None:
            raise SettingsError("`SIE_TRITON_API_KEYS_FILE` and `SIE_TRITON_API_KEYS` cannot both be set")
        _ = self.triton_urls

    @property
    def triton_urls(self) -> tuple[str, ...]:
        """The `host:port` or `dns://name:port` of each replica, in the order given; a path may follow.

        Raises `SettingsError`.
        """
        try:
            return as_endpoints(self.triton_url)
        except ValueError as error:
            raise SettingsError(f"`SIE_TRITON_TRITON_URL` {error}") from None

    @property
    def allowed_origins(self) -> tuple[str, ...]:
        """The origins of `cors_origins`."""
        return tuple(entry.strip() for entry in self.cors_origins.split(",") if entry.strip())

    @property
    def keyed(self) -> bool:
        """Whether a request needs a key."""
        return self.api_keys_file is not None or self.api_keys is not None

    @property
    def beyond_loopback(self) -> bool:
        """Whether other machines can reach the frontend."""
        return not is_loopback(self.host)

    @property
    def limits(self) -> Limits:
        """What readers bound a request by."""
        return Limits(
            body_bytes=self.max_body_bytes,
            images=self.max_images,
            item_images=self.max_item_images,
            image_bytes=self.max_image_bytes,
            image_pixels=self.max_image_pixels,
        )

    @property
    def ready_model_ids(self) -> tuple[str, ...]:
        """The ids of `ready_models`; empty means every model."""
        return _ids(self.ready_models)

    @property
    def on_demand(self) -> bool:
        """Whether models are loaded when they are first asked for."""
        return self.load == "on-demand" or self.memory_budget is not None

    @property
    def preload_ids(self) -> tuple[str, ...]:
        """The ids of `preload`."""
        return _ids(self.preload)

    @property
    def pinned_ids(self) -> tuple[str, ...]:
        """The ids of `pin`."""
        return _ids(self.pin)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, **given: Any) -> Settings:
        """Settings from their variables; what is `given` and not null wins over them. Raises `SettingsError`."""
        values = {name: value for name, value in given.items() if value is not None}
        for known in known_settings():
            text = environment.get(known.variable)
            if known.name not in values and (text or (text is not None and known.name in _NEVER_EMPTY)):
                values[known.name] = _parsed(known, text, known.variable)
        return cls(**values)


# Whose empty variable is a secret that was not filled in, and no wish to go without.
_NEVER_EMPTY: Final = frozenset({"api_keys", "api_keys_file", "tls_certificate", "tls_key"})


def _ids(text: str) -> tuple[str, ...]:
    return tuple(entry.strip() for entry in text.split(",") if entry.strip())


def known_settings() -> tuple[Setting, ...]:
    """Every setting, in the order of the fields."""
    return _KNOWN


_KNOWN: Final = tuple(
    Setting(known.name, variable, known.default, help, parse, choices)
    for known in fields(Settings)
    for variable, help, parse, choices in [known.metadata[METADATA]]
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` one option for each setting. An option that is not used stays null in the result."""
    for known in known_settings():
        default = f", default {known.default_text}" if known.default_text else ""
        help = f"{known.help} [{known.variable}{default}]".replace("%", "%%")
        if isinstance(known.default, bool):
            parser.add_argument(known.flag, action=argparse.BooleanOptionalAction, default=None, help=help)
        else:
            parser.add_argument(
                known.flag, type=_argument(known), choices=known.choices or None, default=None, help=help
            )


def _argument(known: Setting) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return _parsed(known, text, known.flag)
        except SettingsError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _parsed(known: Setting, text: str, where: str) -> Any:
    try:
        return known.parse(text)
    except ValueError as error:
        raise SettingsError(f"`{where}` must be {error}, not {text!r}") from None


def _alternatives(choices: tuple[str, ...]) -> str:
    return " or ".join(f"`{choice}`" for choice in choices)
