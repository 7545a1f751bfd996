"""Code that both clients share, without input and output."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sie_sdk._reply import version_skew
from sie_sdk._retry import BUDGET_S, Waiting

logger = logging.getLogger("sie_sdk")
Client = TypeVar("Client")


class VersionCheck:
    """Warns once per client if the server's contract version is too far from the client's."""

    def __init__(self) -> None:
        self._warned = False

    def see(self, headers: Mapping[str, str]) -> None:
        """Check the version headers of one response, and log a warning the first time they do not match."""
        warning = None if self._warned else version_skew(headers.get("x-sie-server-version"))
        if warning:
            self._warned = True
            logger.warning(warning)


def waiting_for(
    gpu: str | None, wait_for_capacity: bool, provision_timeout_s: float | None, max_oom_retries: int
) -> Waiting:
    """The caller's choices for one call, with defaults for those that are None."""
    budget_s = BUDGET_S if provision_timeout_s is None else provision_timeout_s
    return Waiting(gpu, wait_for_capacity, budget_s, max_oom_retries)


def given_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's arguments from which an equal client can be made elsewhere."""
    return {name: value for name, value in arguments.items() if name != "self" and not name.startswith("_")}


def reduced(kind: Callable[..., Client], given: Mapping[str, Any]) -> tuple[Any, ...]:
    """How a client is pickled and copied: as its arguments. The copy opens its own connections.

    Defaults from the environment are read again where the copy is made. Raises `TypeError` for a client with an
    `http_client` of the caller's.
    """
    if given.get("http_client") is not None:
        raise TypeError(
            f"a {getattr(kind, '__name__', 'client')} with an http_client of yours cannot be pickled or copied: "
            "connections do not travel; make the client in the process that uses it"
        )
    return _made, (kind, dict(given))


def _made(kind: Callable[..., Client], given: Mapping[str, Any]) -> Client:
    return kind(**given)
