"""What BM25 finds, against its formula written out word by word."""

from __future__ import annotations

import math
import re

from sie_triton.answers.candidates import candidates
from sie_triton.answers.corpus import documentation


def by_formula(texts: tuple[str, ...], query: int, count: int) -> list[int]:
    """Robertson and Zaragoza, 2009, equation 3.8 with k1 = 1.2 and b = 0.75; Lucene's inverse document frequency."""
    words = [re.findall(r"\w+", text.lower()) for text in texts]
    mean = sum(map(len, words)) / len(words)
    scores = []
    for place, line in enumerate(words):
        score = 0.0
        for word in set(words[query]):
            having = sum(word in other for other in words)
            often = line.count(word)
            rarity = math.log(1 + (len(words) - having + 0.5) / (having + 0.5))
            score += rarity * often * 2.2 / (often + 1.2 * (0.25 + 0.75 * len(line) / mean))
        scores.append((-score, place))
    return [place for _, place in sorted(scores) if place != query][:count]


def test_candidates_are_what_the_formula_gives() -> None:
    texts = documentation(150)
    found = candidates(texts, [0, 70, 149], 12)
    for line, query in zip(found, (0, 70, 149), strict=True):
        expected = by_formula(texts, query, 12)
        # Where scores are equal but for rounding, places may change.
        assert len(set(line) & set(expected)) >= 11
        assert list(line[:4]) == expected[:4]
        assert query not in line and len(set(line)) == 12
