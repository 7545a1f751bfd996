"""The chapter on the frontend's settings: variable, default and meaning of each, from `Settings` itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

import sie_frontend.settings as frontend
from sie_frontend.settings import Settings, SettingsError

from sie_triton.pages.markdown import code, listed, table

# What `sie-triton-frontend` takes as an option.
_OPTIONS = ("repository", "triton_url", "host", "port", "device")
# Values of which any variable takes at least one that is not its default.
_PROBES = ("7", "cuda", "probe", "true")

_MEANS: Mapping[str, str] = {
    "repository": "The built repository.",
    "triton_url": "Triton's HTTP endpoint, `host:port`.",
    "host": "Address that the frontend listens on.",
    "port": "Port that the frontend listens on.",
    "device": "What Triton computes on, `cpu` or `cuda`; decides padding and the size of runs.",
    "pending_items": "Items admitted at a time; beyond them a request gets 503 `QUEUE_FULL`.",
    "max_body_bytes": "Larger bodies get 413.",
    "inflight_extra": "Runs sent ahead of what the model's instances compute, so that an instance finds its next one.",
    "machine_profile": "What `X-SIE-Machine-Profile` must match, where a request has that header.",
}


class _Asked(dict[str, str]):
    """An environment that notes which variables are looked up."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        super().__init__(values or {})
        self.names: dict[str, None] = {}

    def get(self, name: str, default: Any = None) -> Any:
        """As a dict's, noting the name."""
        self.names[name] = None
        return super().get(name, default)

    def __getitem__(self, name: str) -> str:
        self.names[name] = None
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.names[str(name)] = None
        return super().__contains__(name)


def settings() -> Iterator[tuple[str, str, str, str]]:
    """Variable, option of `sie-triton-frontend` (or ""), default as text and meaning of every setting."""
    if known := getattr(frontend, "known_settings", None):
        for setting in known():
            choices = f"; one of {listed(setting.choices)}" if setting.choices else ""
            yield setting.variable, setting.flag, setting.default_text, f"{setting.help}{choices}"
        return
    for name, field in variables():
        option = f"--{field.name.replace('_', '-')}" if field.name in _OPTIONS else ""
        yield name, option, _default(field), _means(field)


def chapter() -> str:
    """The table."""
    rows = [
        (code(variable), code(option), code(default) or "not set", f"{means[:1].upper()}{means[1:].rstrip('.')}.")
        for variable, option, default, means in settings()
    ]
    return table(("Variable", "Option", "Default", "Means"), rows)


def variables() -> Iterator[tuple[str, Field[Any]]]:
    """Every variable with the field that it sets, found by setting it."""
    asked = _Asked()
    plain = Settings.from_environment(asked)
    by_name = {field.name: field for field in fields(Settings)}
    for name in asked.names:
        for value in _PROBES:
            try:
                changed = Settings.from_environment(_Asked({name: value}))
            except SettingsError:
                continue
            found = [key for key in by_name if getattr(changed, key) != getattr(plain, key)]
            if found:
                yield name, by_name[found[0]]
                break


def _default(field: Field[Any]) -> str:
    value = getattr(Settings.from_environment({}), field.name) if field.default is MISSING else field.default
    return "" if value is None else str(value)


def _means(field: Field[Any]) -> str:
    means = field.metadata.get("help") or _MEANS.get(field.name)
    if not means:
        raise ValueError(f"nobody wrote what the setting `{field.name}` means")
    return str(means)
