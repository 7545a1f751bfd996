"""What a model of texts and pictures is compared on: texts, pictures of several shapes, both, and several pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sie_frontend.contract.errors import WireError
from sie_frontend.reference import Case

from sie_triton.verify.image_cases import encoded_picture
from sie_triton.verify.public_model import PublicModel
from sie_triton.verify.reference_texts import QUERIES, UNICODE_TEXTS, reference_texts

# Width and height: scaled up, a strip, as they are, and scaled down in one direction or both.
SHAPES: Final = ((24, 60), (700, 30), (448, 480), (900, 260))
_TOGETHER: Final = ((24, 60), (40, 40))
_LONGEST: Final = 2048


def mixed_cases(model: PublicModel) -> tuple[Case, ...]:
    """Items. Those that the model refuses, such as pictures that do not fit, are left out."""
    seen = _seen()
    if not _reads_together(model):
        return _accepted(model, [Case(document) for document in (*_texts(model), *seen[:-1])])
    return _accepted(model, [Case(document) for document in (*_texts(model), *seen, *_said_and_seen())])


def mixed_pairs(model: PublicModel) -> tuple[Case, ...]:
    """Queries with documents, of every kind each."""
    queries: list[Any] = [{"text": query} for query in QUERIES]
    documents = [*_texts(model), *_seen()[:2], *_said_and_seen()[:1]]
    pairs = [Case(document, queries[number % len(queries)]) for number, document in enumerate(documents)]
    pairs.append(Case({"text": QUERIES[0]}, _seen()[0]))
    pairs.append(Case(_said_and_seen()[0], {**_seen()[0], "text": QUERIES[1]}))
    return _accepted(model, pairs)


def _texts(model: PublicModel) -> list[dict[str, Any]]:
    """Every script, and lengths around the limit where that is no long text."""
    limit = max(model.reader.widths(exact=False))
    short = reference_texts(0, 12, (12,))[: -len(UNICODE_TEXTS)]
    texts = [*short[:6], *UNICODE_TEXTS]
    if limit <= _LONGEST:
        (around,) = model.rows([Case({"text": "a"}, {"text": QUERIES[0]} if _ranks(model) else None)])
        whole = reference_texts(around.cost - 1, limit, ())
        texts += whole[len(short) : -len(UNICODE_TEXTS)]
    return [{"text": text} for text in texts]


def _reads_together(model: PublicModel) -> bool:
    """Whether several pictures of an item are one row, and a text beside them is read."""
    (count,) = model.reader.row_counts([{"images": ["", ""]}])
    return count == 1


def _ranks(model: PublicModel) -> bool:
    return any(comparable.name == "score" for comparable in model.comparables)


def _seen() -> list[dict[str, Any]]:
    one = [{"images": [encoded_picture(number, shape)]} for number, shape in enumerate(SHAPES)]
    return [*one, {"images": [encoded_picture(number, shape) for number, shape in enumerate(_TOGETHER)]}]


def _said_and_seen() -> list[dict[str, Any]]:
    return [{**seen, "text": text} for seen, text in zip(_seen(), UNICODE_TEXTS[2:], strict=False)][::3]


def _accepted(model: PublicModel, cases: Sequence[Case]) -> tuple[Case, ...]:
    found = []
    for case in cases:
        try:
            model.rows([case])
        except WireError:
            continue
        found.append(case)
    return tuple(found)
