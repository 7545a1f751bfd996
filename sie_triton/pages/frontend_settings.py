"""The chapter on the frontend's settings: variable, option, default and meaning of each, from `Settings` itself."""

from __future__ import annotations

from collections.abc import Iterator

from sie_frontend.settings import known_settings

from sie_triton.pages.markdown import code, listed, table


def settings() -> Iterator[tuple[str, str, str, str]]:
    """Variable, option of `sie-triton-frontend`, default as text and meaning of every setting."""
    for setting in known_settings():
        choices = f"; one of {listed(setting.choices)}" if setting.choices else ""
        yield setting.variable, setting.flag, setting.default_text, f"{setting.help}{choices}"


def chapter() -> str:
    """The table."""
    rows = [
        (code(variable), code(option), code(default) or "not set", f"{means[:1].upper()}{means[1:].rstrip('.')}.")
        for variable, option, default, means in settings()
    ]
    return table(("Variable", "Option", "Default", "Means"), rows)
