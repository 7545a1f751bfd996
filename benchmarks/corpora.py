"""English texts of three length profiles, made deterministically from the prose that ships with CPython.

The source is `pydoc_data.topics`, the language reference as plain text: it is on every machine, offline. Texts differ
between Python versions; `Corpus.sha256` says whether two runs saw the same ones.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

MAX_TOKENS = 256

# Words of this prose to WordPiece tokens, the two special ones not counted.
_TOKENS_PER_WORD = 1.41
_SENTENCE_END = re.compile(r"[.!?]$")

CountTokens = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True)
class Corpus:
    """Texts, all different, with the tokens of each (special ones included); none is longer than `MAX_TOKENS`."""

    name: str
    texts: tuple[str, ...]
    lengths: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Real tokens in total: what speeds are counted in."""
        return sum(self.lengths)

    @property
    def sha256(self) -> str:
        """The identity of the texts and their order."""
        return hashlib.sha256("\0".join(self.texts).encode()).hexdigest()

    def part(self, count: int) -> Corpus:
        """The first `count` texts."""
        return Corpus(self.name, self.texts[:count], self.lengths[:count])


def _short(rng: random.Random) -> float:
    return rng.triangular(8, 42, 17)


def _mixed(rng: random.Random) -> float:
    return rng.lognormvariate(4.17, 0.76)


def _long(rng: random.Random) -> float:
    return rng.uniform(190, 250)


PROFILES: dict[str, Callable[[random.Random], float]] = {"short": _short, "mixed": _mixed, "long": _long}


def make_corpus(name: str, count: int, count_tokens: CountTokens, *, seed: int = 1) -> Corpus:
    """`count` different texts of profile `name`: `short` (mean about 23 tokens), `mixed` (79), `long` (220).

    Every text begins at the beginning of a sentence and has a length drawn from the profile.
    """
    rng = random.Random(f"{name} {seed}")
    words, starts = _prose()
    texts: dict[str, int] = {}
    while len(texts) < count:
        wanted = []
        for _ in range(count - len(texts)):
            length = max(1, round((PROFILES[name](rng) - 2) / _TOKENS_PER_WORD))
            start = min(rng.choice(starts), len(words) - length)
            wanted.append(" ".join(words[start : start + length]))
        for text, length in zip(wanted, count_tokens(wanted), strict=True):
            if length <= MAX_TOKENS:
                texts.setdefault(text, length)
    return Corpus(name, tuple(texts), tuple(texts.values()))


@lru_cache(maxsize=1)
def _prose() -> tuple[list[str], list[int]]:
    """All words of the reference's prose and where its sentences begin."""
    from pydoc_data.topics import topics

    words: list[str] = []
    starts: list[int] = []
    for key in sorted(topics):
        for paragraph in re.split(r"\n\s*\n", topics[key]):
            found = paragraph.split()
            letters = sum(character.isalpha() for character in "".join(found))
            # Grammar rules, tables and programs are not English.
            if len(found) < 12 or letters < 0.85 * len("".join(found)) or ">>>" in paragraph:
                continue
            begins = True
            for word in found:
                if begins:
                    starts.append(len(words))
                words.append(word)
                begins = bool(_SENTENCE_END.search(word))
    return words, starts
