"""Triton's model repository API as the supervisor speaks it: on loopback, without a library, from any thread."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from sie_frontend.triton.reasons import cause_of_load

INDEX_TIMEOUT_S = 2.0
UNLOAD_TIMEOUT_S = 30.0
READY, LOADING, UNAVAILABLE = "READY", "LOADING", "UNAVAILABLE"


class ControlError(Exception):
    """Triton refused, with its own words, or did not answer in time."""


class Control:
    """Loads and unloads models of the Triton at `host:port`. `headers` go with every request."""

    def __init__(self, host: str, port: int, headers: Mapping[str, str] | None = None) -> None:
        self._host = host
        self._port = port
        self._headers = {"Content-Type": "application/json", **(headers or {})}

    def index(self) -> dict[str, str]:
        """The state of each model that was ever loaded, by name. Raises `ControlError`."""
        found: dict[str, str] = {}
        for entry in self._ask("POST", "/v2/repository/index", INDEX_TIMEOUT_S) or ():
            # A model of several versions has several entries: one that serves counts.
            if found.get(entry["name"]) != READY:
                found[entry["name"]] = entry.get("state", "")
        return found

    def reasons(self) -> dict[str, str]:
        """Why models that were to be loaded are not, by name. Raises `ControlError`."""
        entries = self._ask("POST", "/v2/repository/index", INDEX_TIMEOUT_S) or ()
        ready = {entry["name"] for entry in entries if entry.get("state") == READY}
        found = {entry["name"]: entry.get("reason", "") for entry in entries if entry.get("state") == UNAVAILABLE}
        absent = {name: reason for name, reason in found.items() if name not in ready and reason != "unloaded"}
        return {name: cause_of_load(reason) for name, reason in absent.items()}

    def load(self, model: str, timeout_s: float) -> None:
        """Load a model and return when it serves. Raises `ControlError` with Triton's reason."""
        try:
            self._ask("POST", f"/v2/repository/models/{quote(model)}/load", timeout_s)
        except ControlError as error:
            raise ControlError(cause_of_load(str(error))) from error

    def unload(self, model: str) -> None:
        """Begin to unload a model. Raises `ControlError`."""
        self._ask("POST", f"/v2/repository/models/{quote(model)}/unload", UNLOAD_TIMEOUT_S)

    def config(self, model: str) -> dict[str, Any]:
        """A loaded model's configuration. Raises `ControlError`."""
        found: dict[str, Any] = self._ask("GET", f"/v2/models/{quote(model)}/config", INDEX_TIMEOUT_S)
        return found

    def _ask(self, method: str, path: str, timeout_s: float) -> Any:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        try:
            connection.request(method, path, "{}" if method == "POST" else None, self._headers)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise ControlError(f"no answer: {error or type(error).__name__}") from error
        finally:
            connection.close()
        try:
            said = json.loads(body) if body.strip() else None
        except ValueError as error:
            raise ControlError(f"HTTP {answer.status}, and no JSON") from error
        if answer.status != http.client.OK:
            reason = said.get("error") if isinstance(said, dict) else None
            raise ControlError(str(reason or f"HTTP {answer.status}").strip().rstrip(";"))
        return said
