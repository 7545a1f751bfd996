"""Keys, and the file that holds their hashes: a line a key.

    NAME sha256:HEX [verbs=VERB,…] [models=PATTERN,…] [requests-per-minute=N] [tokens-per-minute=N] [at-once=N]

A key is 256 random bits, so SHA-256 is the right hash for it. Slow hashes protect what people can remember, since that
can be guessed; nobody guesses one of 2^256 keys, however fast they are tried, and a slow hash would be paid for at each
request. Messages never repeat what a line holds: somebody may have put the key itself there.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Any, Final

VERBS: Final = ("encode", "score", "embeddings", "rerank", "models", "metrics", "admin")
"""What a key may be for: the routes by their names."""

USUAL_VERBS: Final = frozenset(VERBS) - {"metrics", "admin"}
"""What a key is for whose line does not say it."""

PREFIX: Final = "sie_"
"""What every key begins with that we make, so that scanners of leaked secrets know it."""

_ENTROPY_BYTES: Final = 32
# What is longer is no key: it is not even hashed.
MAX_KEY_LENGTH: Final = 512
MAX_FILE_BYTES: Final = 8 << 20
_HASH: Final = "sha256:"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_PATTERN: Final = re.compile(r"[!-~]{1,256}")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,14}")


class KeysError(ValueError):
    """A file of keys, or an option of a key, cannot be used; the message says where and why, and holds no secret."""


@dataclass(frozen=True)
class ApiKey:
    """One line. `models` are patterns of `fnmatch`, none of which means every model; a limit of None is none."""

    name: str
    sha256: bytes
    verbs: frozenset[str] = USUAL_VERBS
    models: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    at_once: int | None = None
    _models: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        joined = "|".join(map(translate, self.models))
        object.__setattr__(self, "_models", re.compile(joined) if joined else None)

    def reads(self, model_id: str) -> bool:
        """Whether the key is for this model; who may ask a model may ask its profiles, as its options do anyway."""
        if self._models is None:
            return True
        return any(map(self._models.match, {model_id, model_id.partition(":")[0]}))

    @property
    def line(self) -> str:
        """The line of the file."""
        words = [self.name, f"{_HASH}{self.sha256.hex()}"]
        if self.verbs != USUAL_VERBS:
            words.append("verbs=" + ",".join(verb for verb in VERBS if verb in self.verbs))
        if self.models:
            words.append("models=" + ",".join(self.models))
        for option, attribute in _LIMITS.items():
            if (limit := getattr(self, attribute)) is not None:
                words.append(f"{option}={limit}")
        return " ".join(words)


_LIMITS: Final[Mapping[str, str]] = {
    "requests-per-minute": "requests_per_minute",
    "tokens-per-minute": "tokens_per_minute",
    "at-once": "at_once",
}


def new_secret() -> str:
    """A new key, to be given to whoever calls."""
    return PREFIX + secrets.token_urlsafe(_ENTROPY_BYTES)


def digest_of(secret: bytes) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(secret).digest()


def make_key(name: str, sha256: str, options: Mapping[str, str]) -> ApiKey:
    """A key of the texts of a line. Raises `KeysError`."""
    if not _NAME.fullmatch(name):
        raise KeysError("a key's name has up to 64 letters, digits and `_.@-`, and begins with a letter or a digit")
    if not sha256.startswith(_HASH) or not _DIGEST.fullmatch(sha256.removeprefix(_HASH)):
        raise KeysError(
            "behind the name stands `sha256:` and 64 hexadecimal digits, never a key itself; "
            "`sie-triton keys new` makes both"
        )
    parsed: dict[str, Any] = {}
    for option, text in options.items():
        if option not in _OPTIONS:
            raise KeysError(f"an option is unknown; there are {', '.join(f'`{known}=`' for known in _OPTIONS)}")
        attribute, parse = _OPTIONS[option]
        parsed[attribute] = parse(option, text)
    return ApiKey(name, bytes.fromhex(sha256.removeprefix(_HASH)), **parsed)


def parse_keys(text: str) -> list[ApiKey]:
    """The keys of a file's text, in order. Empty lines and those that begin with `#` are left out.

    Raises `KeysError`, which names the line.
    """
    found: dict[str, ApiKey] = {}
    hashes: set[bytes] = set()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            key = _of_words(words)
            if key.name in found or key.sha256 in hashes:
                what = "name" if key.name in found else "hash"
                raise KeysError(f"its {what} stands in an earlier line already")
        except KeysError as error:
            raise KeysError(f"line {number}: {error}") from None
        found[key.name] = key
        hashes.add(key.sha256)
    return list(found.values())


def _of_words(words: list[str]) -> ApiKey:
    name, sha256, *rest = [*words, ""] if len(words) == 1 else words
    options: dict[str, str] = {}
    for word in rest:
        option, equals, value = word.partition("=")
        if not equals or option in options:
            raise KeysError("behind the hash stand options, each once, such as `verbs=encode,score`")
        options[option] = value
    return make_key(name, sha256, options)


def _verbs(option: str, text: str) -> frozenset[str]:
    verbs = frozenset(text.split(","))
    if not verbs <= frozenset(VERBS):
        raise KeysError(f"`{option}` has some of {', '.join(VERBS)}, joined by commas")
    return verbs


def _models(option: str, text: str) -> tuple[str, ...]:
    patterns = tuple(text.split(","))
    if not all(map(_PATTERN.fullmatch, patterns)):
        raise KeysError(f"`{option}` has ids of models joined by commas, where `*` stands for anything")
    return patterns


def _limit(option: str, text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise KeysError(f"`{option}` is a whole number from 1 up")
    return int(text)


_OPTIONS: Final[Mapping[str, tuple[str, Callable[[str, str], Any]]]] = {
    "verbs": ("verbs", _verbs),
    "models": ("models", _models),
    **{option: (attribute, _limit) for option, attribute in _LIMITS.items()},
}
