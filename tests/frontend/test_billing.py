"""`usage` of items with pictures beside their texts: what SIE 0.10.1's own pipeline told of the same requests.

Recorded with `tests/sie_adapters` of its CLIP adapter, which counts what it reads, and of its ColPali adapter, whose
texts are counted beside it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from sie_frontend.contract.requests import Image, Item
from sie_frontend.manifest import read_manifest
from sie_frontend.serving.billing import unread_texts
from sie_frontend.text.reader import TextReader

PICTURE = [Image(b"...")]
READ, UNREAD = "the cell", "search engines rank"
SEEN, TEXT = Item(images=PICTURE), Item(text=READ)
BOTH, BLANK = Item(text=UNREAD, images=PICTURE), Item(text="", images=PICTURE)


@pytest.fixture(scope="module", params=["processed", "bare"])
def reader(request: pytest.FixtureRequest, repository: Path) -> TextReader:
    model = next(iter(read_manifest(repository).models.values()))
    return TextReader(msgspec.structs.replace(model.text, usage=request.param), repository, profiles={})


@pytest.mark.parametrize(
    ("items", "processed", "bare"),
    [
        ([TEXT, TEXT], (READ, READ), (READ, READ)),
        ([SEEN, SEEN], None, None),
        ([SEEN, TEXT], (READ,), None),
        ([BOTH], (UNREAD,), (UNREAD,)),
        ([BOTH, BOTH], (UNREAD, UNREAD), (UNREAD, UNREAD)),
        ([BOTH, TEXT], (READ,), (UNREAD, READ)),
        ([BOTH, SEEN], (), None),
        ([BLANK, SEEN], None, None),
        ([BOTH, SEEN, TEXT], (READ,), None),
    ],
)
def test_usage_is_what_sie_tells(
    reader: TextReader, items: list[Item], processed: tuple[str, ...] | None, bare: tuple[str, ...] | None
) -> None:
    """The expected texts are those whose tokens were counted, None where there was no usage."""
    readers: dict[str, Any] = {"text": reader, "image": object()}
    groups: dict[str, list[int]] = {}
    for number, item in enumerate(items):
        groups.setdefault("image" if item.images else "text", []).append(number)
    texts = [str(items[number].text) for number in groups.get("text", ())]
    count = reader.tokenizer.count if reader.entry.usage == "processed" else reader.unread
    unread = unread_texts(readers, groups, items)
    told = unread.total(sum(count(texts)) if texts else None, unread.count() if unread.counted else 0)
    wanted = bare if reader.entry.usage == "bare" else processed
    assert told == (None if wanted is None else sum(count(list(wanted))))


def test_models_of_texts_alone_are_told_as_before(reader: TextReader) -> None:
    unread = unread_texts({"text": reader}, {"text": [0]}, [TEXT])
    assert (unread.counted, unread.total(7, 0), unread.total(None, 0)) == ([], 7, None)
