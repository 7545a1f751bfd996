"""Keys before requests: who is let in, to what, and a line in the log for whoever is not.

Without keys there is no gate, and nothing is done for a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.requests import Request

from sie_frontend.access.following import KeyFile, follow
from sie_frontend.access.keyfile import VERBS, KeysError, parse_keys
from sie_frontend.access.keyring import Denial, Grant, KeyRing
from sie_frontend.settings import Settings, SettingsError
from sie_frontend.watch.observation import Exchange

log = logging.getLogger("sie_frontend")
audit = logging.getLogger("sie_frontend.audit")

NO_GATE: Final[contextlib.nullcontext[None]] = contextlib.nullcontext()


class Gate:
    """The keys of one process, asked for each request."""

    def __init__(self, ring: KeyRing, file: KeyFile | None = None) -> None:
        self.ring = ring
        self._file = file

    def enter(self, request: Request, verb: str, model_id: str = "") -> Grant:
        """The right to this request, a context to answer it in. Raises `Denial` before its body is read."""
        # Several headers are one that nobody knows: a proxy in front may have looked at another than we would.
        said = ", ".join(request.headers.getlist("authorization"))
        grant = self.ring.grant(said, verb if verb in VERBS else None)
        if model_id:
            grant.check_model(model_id)
        return grant

    def let_in(self, request: Request, exchange: Exchange) -> Grant:
        """The same for a request that is watched; its handler finds the right in the exchange."""
        exchange.grant = self.enter(request, exchange.route, exchange.model_id)
        return exchange.grant

    @contextlib.asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Keep the keys as their file says while this is open."""
        if self._file is None:
            yield
            return
        following = asyncio.create_task(follow(self._file, self.ring), name="follow-keys")
        try:
            yield
        finally:
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following


def make_gate(settings: Settings) -> Gate | None:
    """The gate that the settings ask for. Raises `SettingsError`."""
    file = None
    try:
        if settings.api_keys_file is not None:
            file = KeyFile(settings.api_keys_file)
            keys = file.read()
            if found := file.exposed():
                log.warning("the keys in %s: %s", file.path, found)
        elif settings.api_keys is not None:
            keys = parse_keys(settings.api_keys)
        else:
            return None
        if not keys:
            raise KeysError("it holds no key; `sie-triton keys new` makes one")
    except KeysError as error:
        where = f"`SIE_TRITON_API_KEYS_FILE` ({file.path})" if file else "`SIE_TRITON_API_KEYS`"
        raise SettingsError(f"{where} cannot be used: {error}") from None
    return Gate(KeyRing(keys), file)


def tell_of(denial: Denial, request: Request, verb: str, model_id: str) -> None:
    """One line for a call that was denied: whose key, what it asked for, why not, and from where. Never the key."""
    peer = request.client
    fields: dict[str, Any] = {
        "key": denial.key or "-",
        "verb": verb,
        "model": model_id[:256] or "-",
        "why": denial.why.value.replace(" ", "_"),
        "peer": f"{peer.host}:{peer.port}" if peer else "-",
    }
    audit.warning("denied", extra={"fields": fields})
