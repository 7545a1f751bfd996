"""Keys for tests: an application behind them, and a clock that a test moves."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
from sie_frontend.access.keyfile import ApiKey, digest_of, make_key
from sie_frontend.access.keyring import KeyRing
from sie_frontend.http.app import create_app
from sie_frontend.http.gate import Gate
from sie_frontend.settings import Settings

from frontend.conftest import until_ready

SECRET = "sie_the-key-of-these-tests-which-stands-nowhere-else"


@dataclass
class Clock:
    """Seconds that pass when they are told to."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def key(name: str = "search", secret: str = SECRET, **options: str) -> ApiKey:
    """A key whose options are named as in the file, with `_` for `-`."""
    texts = {option.replace("_", "-"): text for option, text in options.items()}
    return make_key(name, f"sha256:{digest_of(secret.encode()).hex()}", texts)


def bearer(secret: str = SECRET) -> dict[str, str]:
    """The header of a request with this key."""
    return {"authorization": f"Bearer {secret}"}


@contextlib.asynccontextmanager
async def behind_keys(
    settings: Settings, *keys: ApiKey, clock: Clock | None = None, secret: str = SECRET
) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a key of the running application, once it is ready."""
    app = create_app(settings)
    app.state.frontend.gate = Gate(KeyRing(keys, clock or Clock()))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://frontend", headers=bearer(secret)) as client,
    ):
        await until_ready(client)
        yield client
