"""The keys of a process: from where its settings say, and again whenever that file changes."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from pathlib import Path
from typing import Final

from sie_frontend.access.keyfile import MAX_FILE_BYTES, ApiKey, KeysError, parse_keys
from sie_frontend.access.keyring import KeyRing

log = logging.getLogger("sie_frontend")

POLL_S: Final = 0.5


class KeyFile:
    """A file of keys that is read again and again. A change counts once it is read twice: editors write in pieces."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._taken = b""
        self._seen: bytes | None = None

    def read(self) -> list[ApiKey]:
        """The keys that it has now. Raises `KeysError`."""
        self._taken = self._content()
        return _parsed(self._taken)

    def changed(self) -> list[ApiKey] | None:
        """The keys, if they are others than the last that were read; each content is told of once.

        Raises `KeysError`, once for each content that is broken.
        """
        try:
            content = self._content()
        except KeysError as error:
            content = f"\0{error}".encode()  # no file of keys has a zero byte
        if content == self._taken:
            self._seen = None
            return None
        if content != self._seen:
            self._seen = content
            return None
        self._taken, self._seen = content, None
        if content.startswith(b"\0"):
            raise KeysError(content[1:].decode())
        return _parsed(content)

    def exposed(self) -> str | None:
        """Who else may change it, or look at it, and what mends that; None where nobody may."""
        try:
            file, folder = self.path.stat(), self.path.resolve().parent.stat()
        except OSError:
            return None
        if file.st_mode & 0o022:
            return f"others may write it, and whoever does makes keys: `chmod 600 {self.path}`"
        if folder.st_mode & 0o002 and not folder.st_mode & stat.S_ISVTX:
            place = self.path.resolve().parent
            return f"others may put another file in its place, and whoever does makes keys: `chmod o-w {place}`"
        # A file that another user put here, as for a container, has the mode that it needs to be read at all.
        if file.st_mode & 0o004 and file.st_uid == os.geteuid():
            return f"every user here may read it, names and limits though no key: `chmod 600 {self.path}`"
        return None

    def _content(self) -> bytes:
        try:
            # A pipe would be waited for without an end, and is empty the second time: a server without keys.
            with open(self.path, "rb", opener=_opened_at_once) as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise KeysError("it is no regular file, which can be read again")
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise KeysError(f"it cannot be read: {(error.strerror or str(error)).lower()}") from None
        if len(content) > MAX_FILE_BYTES:
            raise KeysError(f"it has more than {MAX_FILE_BYTES} bytes")
        return content


def _opened_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _parsed(content: bytes) -> list[ApiKey]:
    try:
        return parse_keys(content.decode())
    except UnicodeDecodeError:
        raise KeysError("it is not UTF-8") from None


async def follow(file: KeyFile, ring: KeyRing, *, poll_s: float = POLL_S) -> None:
    """Keep `ring` as the file says, until cancelled. A broken file changes nothing, and is told of in the log."""
    while True:
        await asyncio.sleep(poll_s)
        try:
            keys = await asyncio.to_thread(file.changed)
        except KeysError as error:
            log.error(
                "the keys in %s cannot be used, and the %d keys from before stay in use: %s",
                file.path,
                len(ring),
                error,
            )
            continue
        except Exception:  # whatever it is, the next change must be seen
            log.exception("looking at %s failed; the keys from before stay in use", file.path)
            continue
        if keys is None:
            continue
        ring.replace(keys)
        if keys:
            log.warning("%d keys are in use now: %s changed", len(keys), file.path)
        else:
            log.error("no key is in use any more, every call is refused: %s holds none", file.path)
