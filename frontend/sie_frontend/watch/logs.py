"""Log lines for people or for programs, each with the id of the request that it was written for."""

from __future__ import annotations

import logging
import re
import secrets
import sys
import time
from contextvars import ContextVar
from typing import Any, Final, TextIO

import orjson

REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""The id of the request that this task works for."""

# Control characters would let whoever names a model write lines of their own.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SANE = re.compile(r"[\x21-\x7e]{1,128}")


def sane_request_id(given: str | None) -> str | None:
    """A caller's request id if it can be used everywhere: up to 128 visible characters of ASCII."""
    return given if given is not None and _SANE.fullmatch(given) else None


def new_request_id() -> str:
    """32 hexadecimal digits."""
    return secrets.token_hex(16)


def configure(log_format: str, *, level: int = logging.INFO, stream: TextIO | None = None) -> None:
    """Send every log line of this process to `stream` (by default stderr) as `text` or `json`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a line was given as `extra={"fields": {...}}`."""
    found = getattr(record, "fields", None)
    return found if isinstance(found, dict) else {}


class TextFormatter(logging.Formatter):
    """`TIME LEVEL LOGGER: MESSAGE key=value … [REQUEST ID]`, and tracebacks below it."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line itself; what would end it early is written as its escape."""
        line = super().formatMessage(record)
        for key, value in fields_of(record).items():
            if key != "request_id":
                line += f" {key}={value:.1f}" if isinstance(value, float) else f" {key}={value}"
        request_id = fields_of(record).get("request_id") or REQUEST_ID.get()
        line = line if request_id is None else f"{line} [{request_id}]"
        return _CONTROL.sub(lambda match: repr(match[0])[1:-1], line)


class JsonFormatter(logging.Formatter):
    """One object a line: `time` (UTC), `level`, `logger`, `message`, `request_id`, the line's fields, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        """The object, on one line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        content: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (request_id := REQUEST_ID.get()) is not None:
            content["request_id"] = request_id
        content |= fields_of(record)
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        text = {
            key: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
            for key, value in content.items()
        }
        return orjson.dumps(text, default=str).decode()
