"""Where texts were cut before they were embedded: told by which ones differ, and proved by cutting them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sie_triton.migrate.check.measure import cosines
from sie_triton.migrate.check.server import EncodingServer
from sie_triton.migrate.stores import Stored

USUAL = (128, 256, 512, 384, 64, 77, 75, 192, 300, 510, 1024, 2048, 4096, 8192)
"""Limits of widespread models and libraries, in tokens with the special ones: the commonest first."""
_STRAYS = 0.02
_PROVED = 0.99
_MOST_CUT = 6
_MOST_LIMITS = 6


@dataclass(frozen=True)
class Cut:
    """A finding: texts of more than `limit` tokens differ (None: where the limit lies is not known).

    `proved`: cutting the texts there gave their stored vectors. `earlier`: the index cut before the server does;
    otherwise the server does before the index did.
    """

    limit: int | None
    proved: bool
    earlier: bool


def find_cut(
    server: EncodingServer, entries: Sequence[Stored], same: npt.NDArray[np.bool_], tokens: npt.NDArray[np.int64]
) -> Cut | None:
    """The cut that explains which texts differ; None if length does not tell them apart.

    `same` says of each entry whether its vector is the server's, `tokens` how many it has.
    """
    if same.all() or not len(entries):
        return None
    longest_same = int(np.quantile(tokens[same], 1 - _STRAYS)) if same.any() else 0
    differing = tokens[~same]
    shortest = int(np.quantile(differing, _STRAYS))
    beyond = server.limit is not None and longest_same <= server.limit <= shortest
    if same.any() and shortest <= longest_same and not beyond:
        return None
    proved = _prove(server, entries, np.flatnonzero(~same), tokens, longest_same, shortest)
    if proved is not None:
        return Cut(proved, proved=True, earlier=True)
    if not same.any():
        return None
    if beyond:
        return Cut(server.limit, proved=False, earlier=False)
    between = [limit for limit in USUAL if longest_same <= limit < shortest]
    return Cut(between[0] if len(between) == 1 else None, proved=False, earlier=True)


def _prove(
    server: EncodingServer,
    entries: Sequence[Stored],
    differing: npt.NDArray[np.int64],
    tokens: npt.NDArray[np.int64],
    least: int,
    most: int,
) -> int | None:
    """The limit at which cutting gives the stored vectors of some texts that differ."""
    some = differing[np.argsort(tokens[differing], kind="stable")][-_MOST_CUT:]
    stored = np.stack([entries[place].vector for place in some])
    medians: dict[int, float] = {}
    cuts = [_Cuts(server, entries[place].text) for place in some]
    for limit in [limit for limit in USUAL if least <= limit < most][:_MOST_LIMITS]:
        texts = [one.at(limit) for one in cuts]
        medians[limit] = float(np.median(cosines(stored, server.encode(texts))))
    closest = max(medians, key=lambda limit: medians[limit], default=None)
    return closest if closest is not None and medians[closest] >= _PROVED else None


class _Cuts:
    """The beginnings of a text that have so many tokens. What found one limit narrows the search for the next."""

    def __init__(self, server: EncodingServer, text: str) -> None:
        self._server = server
        self._text = text
        self._known = {0: 0}

    def at(self, limit: int) -> str:
        """The longest beginning that has at most `limit` tokens, as the server counts them."""
        low = max(length for length, tokens in self._known.items() if tokens <= limit)
        high = (
            min((length for length, tokens in self._known.items() if tokens > limit), default=len(self._text) + 1) - 1
        )
        while low < high:
            middle = (low + high + 1) // 2
            self._known[middle] = self._server.tokens(self._text[:middle])
            if self._known[middle] <= limit:
                low = middle
            else:
                high = middle - 1
        return self._text[:low]


def count_tokens(server: EncodingServer, entries: Sequence[Stored]) -> npt.NDArray[np.int64]:
    """How many tokens each text has, one request each."""
    return np.array([server.tokens(entry.text) for entry in entries], np.int64)
