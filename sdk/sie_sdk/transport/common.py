"""What every HTTP library is told, and what is made of its failures."""

from __future__ import annotations

import base64
import errno
import functools
import os
import re
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol, TypeAlias
from urllib.parse import unquote, urlsplit

import certifi
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from sie_sdk._protocol import Outcome, Send
from sie_sdk._settings import ClientSettings

Opened: TypeAlias = Callable[[socket.socket], None]
"""Told of every socket that is opened, so that a forked child can release its copy."""

MOST_CONNECTIONS: Final = 100
"""How many are open at once where the caller sets no limit."""

KEPT_S: Final = 5.0
"""Seconds for which a connection that nobody uses is kept: what lies between may forget it without a word."""

CLOSED: Final = "Cannot send a request, as the client has been closed."

_LEAST_S: Final = 0.001
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_VALUE = re.compile(r"[\t\x20-\x7e]*")


class Http(Protocol):
    """What `SIEClient` sends through."""

    def exchange(self, send: Send) -> Outcome:
        """Send one request and read the whole answer."""

    def close(self) -> None:
        """Close the connections."""


class AsyncHttp(Protocol):
    """What `SIEAsyncClient` sends through, in one event loop."""

    async def exchange(self, send: Send) -> Outcome:
        """Send one request and read the whole answer."""

    async def close(self) -> None:
        """Close the connections."""

    def abandon(self) -> None:
        """The event loop has ended without `close`: there is nothing to wait for, and nothing to warn of."""


def headers_of(settings: ClientSettings) -> dict[str, str]:
    """The headers that go with every request. A user and password in the base URL become basic authentication.

    Raises `ValueError` as `checked` does.
    """
    headers = dict(settings.headers)
    parts = urlsplit(settings.base_url)
    if parts.username or parts.password:
        headers["Authorization"] = basic(f"{parts.username or ''}:{parts.password or ''}")
    return dict(checked(headers))


def basic(credentials: str) -> str:
    """The value of a header for `user:password` as it stands in a URL."""
    user, _, password = credentials.partition(":")
    return f"Basic {base64.b64encode(f'{unquote(user)}:{unquote(password)}'.encode()).decode()}"


def checked(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The same headers. Raises `ValueError` for a value that no header can have: libraries would each send another."""
    for name, value in headers.items():
        if not _VALUE.fullmatch(value):
            raise ValueError(f"the value for the header {name} has a character beyond printable ASCII")
    return headers


def whole(settings: ClientSettings, url: str) -> str:
    """A `Send`'s URL, quoted, without credentials and fragment. Raises `ValueError` if the model id makes none."""
    if found := _CONTROL.search(url):
        raise ValueError(f"the model id makes no valid URL: it has the character {found[0]!r}")
    if url.startswith("/"):
        parts = urlsplit(settings.base_url)
        url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{url}"
    try:
        url.encode()
        parsed = parse_url(url)
        return parsed._replace(query=parsed.query or None, fragment=None).url
    except (LocationParseError, UnicodeError) as error:
        raise ValueError(f"the server's address and the model id make no valid URL: {error}") from error


def seconds(limit: float) -> float | None:
    """A limit as the libraries take it: None is none, and 0 is no word for that."""
    return None if limit == float("inf") else max(limit, _LEAST_S)


def certificates() -> ssl.SSLContext:
    """What every connection of this process trusts: `SSL_CERT_FILE`, `SSL_CERT_DIR`, or the package `certifi`."""
    return _certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@functools.cache
def _certificates(file: str | None, folder: str | None) -> ssl.SSLContext:
    # Reading them is most of what making a client costs (20 ms), and they are the same for all, as long as the
    # variables say the same. A forked child uses the parent's: OpenSSL locks while it reads them, and a lock that a
    # thread held during the fork stays locked.
    if file or folder:
        return ssl.create_default_context(cafile=file or None, capath=folder or None)
    return ssl.create_default_context(cafile=certifi.where())


_TRANSIENT_ERRNOS = frozenset(
    {
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EHOSTDOWN,
        socket.EAI_AGAIN,
    }
)


def is_transient(error: BaseException) -> bool:
    """Whether connecting may work later. A bad certificate or an unknown host will not fix itself."""
    if isinstance(error, ssl.SSLError | ssl.CertificateError):
        return False
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _TRANSIENT_ERRNOS
    # asyncio tries several addresses at once and reports them as a group.
    group: Sequence[BaseException] = getattr(error, "exceptions", ())
    if group:
        return any(is_transient(member) for member in group)
    cause = error.__cause__ or error.__context__
    return cause is None or is_transient(cause)
