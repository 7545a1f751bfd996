"""Items with texts and pictures to rows. Pure computation: any thread may run it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from msgspec import UNSET

from sie_frontend.contract.errors import invalid_input
from sie_frontend.contract.requests import MAX_ITEM_TEXT_BYTES, MAX_ITEMS, Item, Limits, utf8_size
from sie_frontend.images.opening import Opener
from sie_frontend.images.options import view_of
from sie_frontend.images.reader import LARGE
from sie_frontend.mixed.entry import MixedInput
from sie_frontend.mixed.groups import group_cost
from sie_frontend.mixed.patches import Patches, cut_into_patches
from sie_frontend.mixed.prompts import embedding_prompt, ended, reranker_prompt
from sie_frontend.mixed.rows import MixedRow, expanded, fills
from sie_frontend.rows import Array, Call, stack
from sie_frontend.text.lengths import length_option
from sie_frontend.text.prompting import SizeLimits, check_sizes
from sie_frontend.text.tokenization import TextTokenizer

Given: TypeAlias = "tuple[str | None, tuple[bytes, ...]]"
"""An item's text, if it has one, and its encoded pictures."""

_USUAL_PIXELS = 224 * 224
# A picture takes about as long to read as so many characters.
_PICTURE_WORK = 1 << 20


class MixedReader:
    """Makes the rows of one model's input of texts and pictures: one for each item, whatever it has."""

    recounts = True
    apart = True

    def __init__(
        self,
        entry: MixedInput,
        repository: Path,
        *,
        profiles: Mapping[str, Mapping[str, Any]],
        limits: Limits | None = None,
    ) -> None:
        self.entry = entry
        self.spec = entry.tokenization
        self.tokenizer = TextTokenizer(self.spec, repository)
        self._limits = limits or Limits()
        talk = entry.conversation
        own = sum(
            map(utf8_size, (talk.before, talk.between, talk.picture, talk.after, entry.system, entry.instruction))
        )
        self._sizes = SizeLimits(MAX_ITEM_TEXT_BYTES + own, self._limits.body_bytes + own * MAX_ITEMS)

    @property
    def counts_images(self) -> bool:
        """Whether `usage` tells how many images were read: not of pages, whose queries are read by their text."""
        return self.entry.style != "page"

    @property
    def room(self) -> int:
        """How many pictures of 224 x 224 pixels would lie where the largest of this model does."""
        return max(1, self.entry.patching.max_pixels // _USUAL_PIXELS)

    def given(self, items: Sequence[Item]) -> list[Given]:
        """What each item has. Raises `WireError` (400) where that is nothing, or too many pictures in all."""
        found: list[Given] = []
        for item in items:
            self._check_senses(item)
            pictures = tuple(b"" if image.data is UNSET else image.data for image in item.images or ())
            if item.text is None and not pictures:
                raise invalid_input(self.entry.requires)
            found.append((item.text, pictures))
        # All rows of a request are held at once, and a picture of one pixel may become many patches.
        most = max(1, min(self._limits.images, self._limits.images * LARGE // self.room))
        if (count := sum(len(pictures) for _, pictures in found)) > most:
            raise invalid_input(
                f"Request has {count} images but at most {most} images are read per request; split the request"
            )
        return found

    def _check_senses(self, item: Item) -> None:
        """What is read by nobody may not be passed over: the vector would be another's."""
        if self.entry.style == "rerank" and any((item.audio, item.video, item.document)):
            raise invalid_input("Qwen3VLRerankerAdapter accepts only text and image inputs")
        if item.video is not None:
            raise invalid_input("videos are not read here: send the frames that count as images")

    def work(self, given: Sequence[Given]) -> int:
        """Characters, and much for each picture."""
        return sum(len(text or "") + _PICTURE_WORK * len(pictures) for text, pictures in map(_as_given, given))

    def row_counts(self, given: Sequence[Given]) -> list[int]:
        """One each; a page has one for each of its pictures."""
        if self.entry.style != "page":
            return [1] * len(given)
        return [max(1, len(pictures)) for _, pictures in map(_as_given, given)]

    def check_together(self, given: Sequence[Given], call: Call, places: Sequence[str]) -> None:
        """Refuse texts that are too long, each or in all, with what stands around them."""
        around = 0 if self.entry.style == "page" else utf8_size(self._instruction(call))
        check_sizes([around + utf8_size(text or "") for text, _ in map(_as_given, given)], places, self._sizes)

    def _instruction(self, call: Call) -> str:
        # What is blank says nothing, and the model's own instruction stands in.
        return ended(call.instruction or "") or ended(self.entry.instruction)

    def rows(self, given: Sequence[Given], call: Call, *, is_query: bool, places: Sequence[str] = ()) -> list[MixedRow]:
        """One row for each. Raises `WireError` (400) that names the item that cannot be read."""
        if self.entry.style == "page":
            self.check_together(given, call, places)
            return self._pages([_as_given(one) for one in given], self._opener(call), places)
        self.check_together(given, call, places)
        instruction = self._instruction(call)
        talk, opener, rows = self.entry.conversation, self._opener(call), []
        given = [_as_given(one) for one in given]
        for number, (text, _) in enumerate(given):
            self._check_words(text or "", instruction, places[number] if places else f"items[{number}]")
        for number, (text, encoded) in enumerate(given):
            place = places[number] if places else f"items[{number}]"
            pictures = self._pictures(encoded, opener, place)
            self._check_patches(pictures, place)
            prompt = embedding_prompt(talk, instruction, len(pictures), text)
            ids = self._ids(self.tokenizer.encode_piece(prompt), pictures, place)
            limit = self.spec.max_length
            if len(ids) > limit and (ids[limit:] == self.entry.picture_id).any():
                raise invalid_input(
                    f"`{place}` has {len(ids)} tokens, and its pictures end behind the {limit} that the model reads"
                )
            rows.append(self._row(ids[:limit], pictures, cut=len(ids) > limit))
        return rows

    def _opener(self, call: Call) -> Opener:
        return Opener(self._limits, view_of(call.options))

    def _check_patches(self, pictures: Sequence[Patches], place: str) -> None:
        """The tower looks from every patch of a picture at every other: what it holds grows with their squares.

        Builds from before patches came in groups hold the square of an item's.
        """
        if len(pictures) < 2:
            return
        patching = self.entry.patching
        most = 4 * (patching.max_pixels // patching.patch_size**2) ** 2
        grids = [picture.grid for picture in pictures]
        held = group_cost(grids) if patching.grouped else sum(high * wide for high, wide in grids) ** 2
        if held > most:
            count = sum(high * wide for high, wide in grids)
            raise invalid_input(
                f"`{place}` has images of {count} patches in all, more than are read of one item, such as of "
                f"{4 if patching.grouped else 2} of the largest: send smaller ones, or each in an item of its own"
            )

    def _pages(self, given: Sequence[Given], opener: Opener, places: Sequence[str]) -> list[MixedRow]:
        """Pictures win over a text; of a text that is too long the end goes, and what stands behind it stays."""
        talk, rows = self.entry.conversation, []
        behind = self.tokenizer.encode_piece(talk.after)
        for number, (text, encoded) in enumerate(given):
            place = places[number] if places else f"items[{number}]"
            if encoded:
                shown = self.tokenizer.encode_piece(talk.picture)
                pictures = self._pictures(encoded, opener, place)
                rows += [self._row(self._ids(shown, [one], place), (one,), cut=False) for one in pictures]
                continue
            self._check_words(text or "", "", place)
            ids = self.tokenizer.encode_piece(text or "")
            room = max(0, self.spec.max_length - len(behind))
            rows.append(self._row(self._ids([*ids[:room], *behind], (), place), (), cut=len(ids) > room))
        return rows

    def pairs(self, query: Given, given: Sequence[Given], call: Call) -> list[MixedRow]:
        """One row for the query with each. Raises `WireError` (400); a document's text is cut where a pair is long."""
        instruction = call.instruction or self.entry.instruction
        asked, rows = _as_given(query), []
        given = [_as_given(one) for one in given]
        around = utf8_size(asked[0] or "") + utf8_size(instruction)
        check_sizes([around + utf8_size(text or "") for text, _ in given], (), self._sizes)
        limit = min(length_option(call.options, "max_seq_length") or self.spec.max_length, self.spec.max_length)
        opener = self._opener(call)
        shown = self._side(asked, opener, "query", instruction)
        for number, one in enumerate(given):
            place = f"items[{number}]"
            seen = self._side(one, opener, place, instruction)
            parts = reranker_prompt(
                self.entry.conversation,
                self.entry.system,
                instruction,
                (len(shown), asked[0] or ""),
                (len(seen), one[0] or ""),
            )
            rows.append(self._pair(parts, (*shown, *seen), limit, place))
        return rows

    def _side(self, given: Given, opener: Opener, place: str, instruction: str) -> tuple[Patches, ...]:
        """The pictures of one side of a pair, which must have one, or a text."""
        text, encoded = given
        if len(encoded) > 1:
            raise invalid_input(f"{len(encoded)} images, and one is read of a query or an item - at `$.{place}.images`")
        if not (text or "").strip() and not encoded:
            raise invalid_input(self.entry.requires)
        self._check_words(text or "", instruction, place)
        return self._pictures(encoded, opener, place)

    def _check_words(self, text: str, instruction: str, place: str) -> None:
        """Refuse tokens that would be taken for what they stand for."""
        for word in self.entry.forbidden:
            if word in text or word in instruction:
                raise invalid_input(f"`{place}` and the instruction must not hold the model's own token {word!r}")

    def _pair(self, parts: tuple[str, str, str], pictures: tuple[Patches, ...], limit: int, place: str) -> MixedRow:
        before, text, after = parts
        ids, ends = self.tokenizer.encode_with_ends(f"{before}{text}{after}")
        extra = sum(self._squares(picture) for picture in pictures) - len(pictures)
        begin, end = len(before), len(before) + len(text)
        own = [number for number, (low, high) in enumerate(ends) if begin <= low < high <= end]
        over = len(ids) + extra - limit
        if over > len(own):
            raise invalid_input(
                f"'options.max_seq_length' is {limit}, and `{place}` takes {len(ids) + extra - len(own)} tokens "
                "without the text of its document"
            )
        gone = set(own[len(own) - over :]) if over > 0 else set()
        kept = [one for number, one in enumerate(ids) if number not in gone]
        return self._row(self._ids(kept, pictures, place), pictures, cut=over > 0)

    def _pictures(self, encoded: Sequence[bytes], opener: Opener, place: str) -> tuple[Patches, ...]:
        return tuple(opener.opened(encoded, place, lambda picture: cut_into_patches(picture, self.entry.patching)))

    def _squares(self, picture: Patches) -> int:
        return len(picture.levels) // self.entry.patching.merge_size**2

    def _ids(self, ids: Sequence[int], pictures: Sequence[Patches], place: str) -> Array:
        """With each picture's token as often as it has squares: nobody may write that token."""
        if ids.count(self.entry.picture_id) != len(pictures):
            token = self.tokenizer.token(self.entry.picture_id)
            raise invalid_input(f"`{place}` holds the token {token!r}, which stands for pictures: leave it out")
        return expanded(ids, self.entry.picture_id, list(map(self._squares, pictures)))

    def _row(self, ids: Array, pictures: tuple[Patches, ...], *, cut: bool) -> MixedRow:
        return MixedRow(ids, pictures, self.entry.patching, self.entry.picture_id, cut)

    def check(self, rows: Sequence[MixedRow], places: Sequence[str]) -> None:
        """Refuse ids that the checkpoint's embedding has no row for. Raises `WireError` (400) that names the item."""
        known = self.spec.vocabulary
        for place, row in zip(places, rows, strict=True):
            if known is not None and (largest := int(row.ids.max(initial=0))) >= known:
                raise invalid_input(
                    f"`{place}` holds the token {self.tokenizer.token(largest)!r}, whose id is {largest}; the model "
                    f"knows ids below {known}: leave that token out of the text"
                )

    def billed(
        self, given: Sequence[Given], rows: Sequence[MixedRow], call: Call, *, is_query: bool
    ) -> list[int] | None:
        """The tokens of the bare texts, read or not; pictures are counted by themselves.

        Of pages, SIE counts all items' texts or, where one has none, nothing at all.
        """
        texts = [text or "" for text, _ in map(_as_given, given)]
        counts = [len(ids) for ids, _ in self.tokenizer.encode_bare(texts, None)]
        if self.entry.style != "page":
            return [min(count, self.spec.max_length) for count in counts]
        return None if any(text is None for text, _ in map(_as_given, given)) else counts

    def probe(self, cost: int) -> MixedRow:
        """A row of so many pad tokens, or of as many as the model reads."""
        ids = np.full(min(cost, self.spec.max_length), self.spec.pad_id, dtype=np.int64)
        return self._row(ids, (), cut=False)

    def widths(self, *, exact: bool) -> Sequence[int]:
        """Every length up to the model's limit, or its buckets."""
        return range(1, self.spec.max_length + 1) if exact else self.spec.buckets

    def batch(self, rows: Sequence[MixedRow], width: int) -> dict[str, Array]:
        """The inputs of the graph, `[rows, …]`, with tokens padded on the right."""
        return stack(rows, width, fills(self.spec.pad_id, self.entry.patching))


def _as_given(one: Any) -> Given:
    """What a reader is given: as items have it, or as JSON can say it, with pictures in base64."""
    if isinstance(one, Mapping):
        return one.get("text"), tuple(base64.b64decode(data) for data in one.get("images", ()))
    return one  # type: ignore[no-any-return]
