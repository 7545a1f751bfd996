"""`TritonModelConfig` -> the text of a `config.pbtxt`. Templates decide nothing; an undefined name is fatal."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from sie_triton.repository.config import TritonModelConfig


def quote_pbtxt(value: str) -> str:
    r"""A string literal of protobuf's text format. The only way a string enters a `.pbtxt`."""
    escaped = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in value.encode("utf-8")
    )
    return f'"{escaped}"'


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("sie_triton"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["pbstr"] = quote_pbtxt
    return environment


_ENVIRONMENT = _environment()


def render(config: TritonModelConfig) -> str:
    """The text of `config.pbtxt`."""
    template = "ensemble.pbtxt.jinja" if config.steps else "model.pbtxt.jinja"
    return _ENVIRONMENT.get_template(template).render(c=config)
