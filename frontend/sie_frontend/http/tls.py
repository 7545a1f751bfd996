"""TLS by files: checked before anything listens, and taken again when they are renewed."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Final

from sie_frontend.settings import Settings, SettingsError

log = logging.getLogger("sie_frontend")

_VARIABLES: Final = {"tls_certificate": "SIE_TRITON_TLS_CERTIFICATE", "tls_key": "SIE_TRITON_TLS_KEY"}


class TlsFiles:
    """A certificate with its chain, and its key, both in PEM."""

    def __init__(self, certificate: str, key: str) -> None:
        self.certificate = certificate
        self.key = key
        self._taken = self._content()
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    def renew(self, context: ssl.SSLContext) -> None:
        """Give a listener's context what the files have now, if that is something else. What is broken is logged."""
        wrong = None
        try:
            content = self._content()
        except SettingsError as error:
            content, wrong = str(error).encode(), error
        if content == self._taken:
            return
        self._taken = content
        try:
            if wrong is not None:
                raise wrong
            # Elsewhere first: a context that took half of a pair answers nobody.
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load(context)
        except SettingsError as error:
            log.error("the certificate from before stays in use: %s", error)
        else:
            log.warning("the certificate in %s is in use now", self.certificate)

    def _content(self) -> bytes:
        found = []
        for attribute, path in (("tls_certificate", self.certificate), ("tls_key", self.key)):
            try:
                found.append(Path(path).read_bytes())
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                raise SettingsError(f"`{_VARIABLES[attribute]}` ({path}) cannot be read: {why}") from None
        return b"\0".join(found)

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (ssl.SSLError, ValueError, OSError) as error:
            if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
                why = "the key is not the certificate's"
            elif isinstance(error, _EncryptedError):
                why = str(error)
            else:
                why = "one of them is not PEM: a certificate with its chain, and a key"
            names = f"`{_VARIABLES['tls_certificate']}` ({self.certificate}) and `{_VARIABLES['tls_key']}` ({self.key})"
            raise SettingsError(f"{names} cannot be used: {why}") from None


class _EncryptedError(ValueError):
    """A key that asks for a password."""


def _no_password() -> str:
    raise _EncryptedError("the key is encrypted; store it without a password, in a file that only the server may read")


def tls_files(settings: Settings) -> TlsFiles | None:
    """What the settings name, checked; None where they name nothing. Raises `SettingsError`."""
    if settings.tls_certificate is None and settings.tls_key is None:
        return None
    if settings.tls_certificate is None or settings.tls_key is None:
        raise SettingsError(f"{' and '.join(f'`{name}`' for name in _VARIABLES.values())} must be set together")
    return TlsFiles(settings.tls_certificate, settings.tls_key)
