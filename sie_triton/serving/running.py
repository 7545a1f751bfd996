"""A server that runs already: asked how it stands, and followed until it serves what was published."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final

from sie_triton.diagnostics import Diagnostic, DiagnosticError

STATUS_PATH: Final = "/admin/status"
RELOAD_PATH: Final = "/admin/reload"
_ASK_S: Final = 10.0
# A load of a large model, its trial, and another one before it.
_FOLLOW_S: Final = 1800.0
_LOOK_S: Final = 0.5


class NobodyThere(Exception):
    """Nothing listens at the address."""


class RunningServer:
    """The frontend at `url`. `key` is sent where the server asks for keys; it needs the verb `admin`."""

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url = url.rstrip("/") if "://" in url else f"http://{url.rstrip('/')}"
        self._key = key
        # To this machine, most of all, nothing goes through a proxy.
        self._direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def status(self) -> dict[str, Any]:
        """What `/admin/status` says. Raises `NobodyThere`, and `DiagnosticError` (`SIE720`) for any other failure."""
        return self._ask(STATUS_PATH, "GET", _ASK_S)

    def reload(self) -> dict[str, Any]:
        """Make it look at its repository; returns the status when it serves what lies there, or has refused it."""
        return self._ask(RELOAD_PATH, "POST", _FOLLOW_S)

    def serves(self, repository: Path) -> bool:
        """Whether a folder is the repository that it serves. Raises as `status`."""
        return os.path.realpath(str(self.status()["repository"])) == os.path.realpath(repository)

    def follow(self, ids: Collection[str], announce: Callable[[str], None]) -> None:
        """Wait until a change of some ids is served, and tell what happens. Raises `DiagnosticError` (`SIE721`) for
        one that the server refuses; it then goes on with what it served.
        """
        begun, told = time.time() - 1.0, set[str]()
        outcome: list[dict[str, Any] | Exception] = []

        def reload() -> None:
            try:
                outcome.append(self.reload())
            except Exception as error:  # raised below, in the thread that is waited in
                outcome.append(error)

        threading.Thread(target=reload, name="reload", daemon=True).start()
        while not outcome:
            time.sleep(_LOOK_S)
            working = [] if outcome else [i for i in self.status()["working"] if i not in told]
            if working:
                announce(f"{', '.join(working)}: the server loads and tries it")
            told.update(working)
        [found] = outcome
        if isinstance(found, Exception):
            raise found
        self._conclude(found, ids, begun, announce)

    def _conclude(
        self, status: dict[str, Any], ids: Collection[str], begun: float, announce: Callable[[str], None]
    ) -> None:
        if status["unreadable"]:
            raise DiagnosticError([_refused(self.url, status["unreadable"])])
        changes: dict[tuple[str, str], list[str]] = {}
        for event in status["events"]:
            if event["at"] >= begun and event["model"] in ids and event["what"] != "refused":
                changes.setdefault((event["what"], event["detail"]), []).append(event["model"])
        for (what, detail), models in changes.items():
            announce(f"{', '.join(models)}: {what} at {self.url}{f': {detail}' if detail else ''}")
        refusals = {i: m["refused"] for i, m in status["models"].items() if i in ids and m["refused"]}
        if refusals:
            raise DiagnosticError([_refused(self.url, f"`{i}`: {r['reason']}") for i, r in refusals.items()])

    def _ask(self, path: str, method: str, timeout_s: float) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        request = urllib.request.Request(f"{self.url}{path}", method=method, headers=headers)
        try:
            with self._direct.open(request, timeout=timeout_s) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise DiagnosticError([_unusable(self.url, path, error.code)]) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, ConnectionRefusedError):
                raise NobodyThere(self.url) from None
            raise DiagnosticError([Diagnostic("SIE720", f"{self.url} cannot be asked: {error.reason}")]) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            message = f"{self.url} cannot be asked: {error or type(error).__name__}"
            raise DiagnosticError([Diagnostic("SIE720", message)]) from None
        if not isinstance(found, dict):
            raise DiagnosticError([_unusable(self.url, path, http.client.OK)])
        return found


def nobody(url: str) -> DiagnosticError:
    """`SIE720` where a server was needed and none is there."""
    message, hint = f"nothing listens at {url}", "start a server with `sie-triton serve`, or name one with `--url`"
    return DiagnosticError([Diagnostic("SIE720", message, hint=hint)])


def _unusable(url: str, path: str, status: int) -> Diagnostic:
    hints = {
        401: "it asks for a key: set `SIE_API_KEY` to one of the verb `admin`",
        403: "its key needs the verb `admin`: `sie-triton keys new NAME --verb admin`",
        404: "an older release, another program, or a server whose status is on its admin port: name that with `--url`",
    }
    return Diagnostic("SIE720", f"{url}{path} answers {status}", hint=hints.get(status))


def _refused(url: str, reason: str) -> Diagnostic:
    hint = "it goes on with what it served; repair the model and build again, or `sie-triton rollback ID`"
    return Diagnostic("SIE721", f"{url} does not serve what was published: {reason}", hint=hint)
