"""What `usage` tells of a request whose items have pictures beside their texts.

SIE counts the texts that its adapter reports. Where that reports none, it tokenises the bare text of every item,
whether or not it was read, and gives up if one item has none. `tests/sie_adapters` compares with its own code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sie_frontend.contract.requests import Item
from sie_frontend.rows import Reader
from sie_frontend.text.reader import TextReader


@dataclass(frozen=True, slots=True)
class UnreadTexts:
    """The texts of the items whose pictures are read in their place, None for an item without one.

    `reader` counts their tokens, `work` says how much that is, in characters. `all_or_none`: texts that are read do not
    count by themselves.
    """

    reader: TextReader | None = None
    texts: Sequence[str | None] = ()
    all_or_none: bool = False
    others: bool = False

    @property
    def counted(self) -> list[str]:
        """The texts whose tokens count: all, or none of them."""
        known = [text for text in self.texts if text is not None]
        whole = len(known) == len(self.texts) and (self.all_or_none or not self.others)
        return known if whole and self.reader is not None and self.reader.counts_unread else []

    @property
    def work(self) -> int:
        """How much there is to count, in characters."""
        return sum(map(len, self.counted))

    def count(self) -> int:
        """The tokens of the texts that count. Pure computation: any thread may run it."""
        assert self.reader is not None
        return sum(self.reader.unread(self.counted))

    def total(self, read: int | None, unread: int) -> int | None:
        """The tokens of the request, of which `read` were read, None if no item is a text; None where none are known.

        `unread` is what `count` gave, 0 where nothing counts.
        """
        if self.all_or_none:
            return None if None in self.texts else (read or 0) + unread
        if read is not None or not self.texts:
            return read
        return unread if self.counted else (0 if any(self.texts) else None)


def unread_texts(
    readers: Mapping[str, Reader], groups: Mapping[str, Sequence[int]], items: Sequence[Item]
) -> UnreadTexts:
    """What is billed of the items whose pictures are read; `groups` has the numbers of those that each input reads."""
    reader = readers.get("text")
    if "image" not in readers or not isinstance(reader, TextReader):
        return UnreadTexts()
    texts = [items[number].text for number in groups.get("image", ())]
    return UnreadTexts(reader, texts, reader.entry.usage == "bare", others="text" in groups)
