"""Keys in use: who a secret belongs to, what it may ask for, and how much it has asked for."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import time
from collections.abc import Callable, Iterable
from enum import Enum
from types import TracebackType
from typing import Final

from starlette.requests import ClientDisconnect

from sie_frontend.access.keyfile import MAX_KEY_LENGTH, ApiKey, digest_of
from sie_frontend.access.windows import Window
from sie_frontend.contract.errors import ErrorKind, WireError

_REALM: Final = 'Bearer realm="sie"'
# What subtracting times makes of a whole second.
_NOISE_S: Final = 1e-6
_SCHEME: Final = "bearer"


class Why(Enum):
    """What a call lacked."""

    NO_KEY = "no key"
    UNKNOWN_KEY = "unknown key"
    VERB = "verb not allowed"
    MODEL = "model not allowed"
    REQUESTS = "requests per minute"
    TOKENS = "tokens per minute"
    TOO_MANY_TOKENS = "more tokens than a minute allows"
    AT_ONCE = "requests at once"


class Denial(WireError):
    """A call that its key does not pay for. `key` is the key's name, None where nobody knows it."""

    def __init__(
        self,
        why: Why,
        kind: ErrorKind,
        message: str,
        *,
        key: str | None,
        retry_after: int | None = None,
        challenge: str | None = None,
    ) -> None:
        super().__init__(kind, message, retry_after=retry_after, challenge=challenge)
        self.why = why
        self.key = key


class KeyAccount:
    """What one name has used. It outlives the lines of the file that give it other limits, or another hash."""

    __slots__ = ("at_once", "key", "requests", "tokens")

    def __init__(self, key: ApiKey) -> None:
        self.at_once = 0
        self.requests: Window | None = None
        self.tokens: Window | None = None
        self.become(key)

    def become(self, key: ApiKey) -> None:
        """Have another line from now on."""
        self.key = key
        self.requests = _limited_to(key.requests_per_minute, self.requests)
        self.tokens = _limited_to(key.tokens_per_minute, self.tokens)


def _limited_to(limit: int | None, window: Window | None) -> Window | None:
    if limit is None:
        return None
    if window is None:
        return Window(limit)
    window.limit = limit
    return window


class Grant:
    """One request that was let in; a context that is open for as long as it is answered.

    What it spent is given back where it ends in a failure of ours.
    """

    __slots__ = ("_account", "_clock", "_since", "spent")

    def __init__(self, account: KeyAccount, clock: Callable[[], float]) -> None:
        self._account = account
        self._clock = clock
        self.spent = 0
        self._since: float | None = None

    @property
    def name(self) -> str:
        """The key's name."""
        return self._account.key.name

    def reads(self, model_id: str) -> bool:
        """Whether the key is for this model."""
        return self._account.key.reads(model_id)

    def may(self, verb: str) -> bool:
        """Whether the key is for this verb, too."""
        return verb in self._account.key.verbs

    @property
    def counts_tokens(self) -> bool:
        """Whether tokens are limited."""
        return self._account.tokens is not None

    def check_model(self, model_id: str) -> None:
        """Raises `Denial` (403) for a model that the key is not for, whether or not there is one."""
        if not self.reads(model_id):
            raise self._denial(Why.MODEL, ErrorKind.FORBIDDEN, f"This key is not for model '{model_id}'")

    def spend(self, tokens: int) -> None:
        """Count tokens before they are computed. Raises `Denial` (429), or 400 for more than a minute ever allows."""
        window = self._account.tokens
        if window is None:
            return
        now = self._clock()
        wanted = self.spent + tokens
        if wanted > window.limit:
            message = (
                f"This request has {wanted} tokens or more, and its key may use {window.limit} a minute; "
                "send its items in several requests"
            )
            raise self._denial(Why.TOO_MANY_TOKENS, ErrorKind.INVALID_INPUT, message)
        if window.wait_s(tokens, now) > 0:
            # It starts again from its first item, and what it spent so far was computed.
            raise self._limited(Why.TOKENS, f"use {window.limit} tokens a minute", window.wait_s(wanted, now))
        window.spend(tokens, now)
        self.spent = wanted
        self._since = now if self._since is None else self._since

    def __enter__(self) -> Grant:
        """Count the request. Raises `Denial` (429) where there are too many."""
        account = self._account
        if account.key.at_once is not None and account.at_once >= account.key.at_once:
            raise self._limited(Why.AT_ONCE, f"make {account.key.at_once} requests at once", 1.0)
        if (window := account.requests) is not None:
            now = self._clock()
            if (wait := window.wait_s(1, now)) > 0:
                raise self._limited(Why.REQUESTS, f"make {window.limit} requests a minute", wait)
            window.spend(1, now)
        account.at_once += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The request is answered."""
        self._account.at_once -= 1
        # Of a client that is gone, what was computed is spent.
        failed = isinstance(error, Exception) and not isinstance(error, ClientDisconnect)
        failed = failed and not (isinstance(error, WireError) and error.status < 500)
        if failed and self._account.tokens is not None and self._since is not None:
            self._account.tokens.give_back(self.spent, self._since)

    def _limited(self, why: Why, limit: str, wait_s: float) -> Denial:
        seconds = max(1, math.ceil(wait_s - _NOISE_S))
        message = f"This key may {limit}; retry after {seconds} s"
        return self._denial(why, ErrorKind.RATE_LIMITED, message, retry_after=seconds)

    def _denial(self, why: Why, kind: ErrorKind, message: str, *, retry_after: int | None = None) -> Denial:
        challenge = f'{_REALM}, error="insufficient_scope"' if kind is ErrorKind.FORBIDDEN else None
        return Denial(why, kind, message, key=self.name, retry_after=retry_after, challenge=challenge)


class KeyRing:
    """The keys in use. `clock` gives seconds that never go back.

    Keys are found by a keyed hash of their hash. The key of it is this process's own, so that no caller can choose what
    a look-up meets, and the time that it takes tells nothing. What is found is compared in constant time.
    """

    def __init__(self, keys: Iterable[ApiKey], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._blind = secrets.token_bytes(32)
        self._accounts: dict[bytes, KeyAccount] = {}
        self.replace(keys)

    def __len__(self) -> int:
        return len(self._accounts)

    def replace(self, keys: Iterable[ApiKey]) -> None:
        """Use these keys from now on. What a name has spent stays spent; requests that were let in are finished."""
        known = {account.key.name: account for account in self._accounts.values()}
        accounts = {}
        for key in keys:
            account = known.get(key.name)
            if account is None:
                account = KeyAccount(key)
            else:
                account.become(key)
            accounts[self._place(key.sha256)] = account
        self._accounts = accounts

    def grant(self, authorization: str | None, verb: str | None) -> Grant:
        """The right to one request. `authorization` is the header; `verb` is None for what any key may ask.

        Raises `Denial`: 401 without a known key, 403 for another verb.
        """
        account = self._account(authorization)
        key = account.key
        if verb is not None and verb not in key.verbs:
            message = f"This key is not for '{verb}'"
            challenge = f'{_REALM}, error="insufficient_scope"'
            raise Denial(Why.VERB, ErrorKind.FORBIDDEN, message, key=key.name, challenge=challenge)
        return Grant(account, self._clock)

    def _account(self, authorization: str | None) -> KeyAccount:
        scheme, _, secret = (authorization or "").partition(" ")
        secret = secret.strip()
        if scheme.lower() != _SCHEME or not secret:
            message = "An API key is needed: send it as `Authorization: Bearer KEY`"
            raise Denial(Why.NO_KEY, ErrorKind.UNAUTHORIZED, message, key=None, challenge=_REALM)
        digest = digest_of(secret[: MAX_KEY_LENGTH + 1].encode("latin-1", "replace"))
        account = self._accounts.get(self._place(digest))
        if account is None or not hmac.compare_digest(account.key.sha256, digest):
            message = "The API key is not known here, or no longer"
            challenge = f'{_REALM}, error="invalid_token"'
            raise Denial(Why.UNKNOWN_KEY, ErrorKind.UNAUTHORIZED, message, key=None, challenge=challenge)
        return account

    def _place(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, digest_size=16, key=self._blind).digest()
