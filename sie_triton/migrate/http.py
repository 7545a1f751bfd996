"""JSON over HTTP with the standard library alone."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

_TRIES = 5
_LONGEST_WAIT = 10.0


@dataclass(frozen=True)
class RefusedAnswer(Exception):
    """An answer that is no success: its status, and what it said."""

    status: int
    said: str

    def __str__(self) -> str:
        return f"{self.status}: {self.said[:300]}"


class Unreachable(Exception):
    """Nobody answered, or not in JSON."""


def ask(url: str, body: object = None, *, headers: Mapping[str, str] | None = None, timeout: float = 120) -> Any:
    """GET, or POST where there is a body; the JSON of the answer.

    Waits and asks again on 503 and 429, at most five times. Raises `RefusedAnswer` and `Unreachable`.
    """
    if not url.startswith(("http://", "https://")):
        raise Unreachable(f"`{url}` does not begin with http:// or https://")
    data = None if body is None else json.dumps(body).encode()
    kept = {"Accept": "application/json", "Content-Type": "application/json", **(headers or {})}
    for remaining in reversed(range(_TRIES)):
        try:
            with urlopen(Request(url, data, kept), timeout=timeout) as response:
                return json.loads(response.read())
        except HTTPError as error:
            with error:
                said = error.read().decode(errors="replace")
            if error.code not in (429, 503) or not remaining:
                raise RefusedAnswer(error.code, said) from None
            time.sleep(_wait(error.headers.get("Retry-After")))
        except (URLError, OSError) as error:
            raise Unreachable(str(getattr(error, "reason", error))) from error
        except ValueError as error:
            raise Unreachable(f"the answer is no JSON: {error}") from error
    raise AssertionError


def _wait(said: str | None) -> float:
    try:
        return min(float(said or 1), _LONGEST_WAIT)
    except ValueError:
        return 1.0
