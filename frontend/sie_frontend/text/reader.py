"""Items -> token rows: what each kind of model reads for a query, a document or a pair."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sie_frontend.contract.errors import ErrorKind, WireError, invalid_input
from sie_frontend.contract.requests import MAX_ITEM_TEXT_BYTES, MAX_ITEMS, Item, Limits, utf8_size
from sie_frontend.rows import Call, stack
from sie_frontend.text.causal_prompts import PROMPTS, Prompt, check_nothing_but_pairs
from sie_frontend.text.cleaning import check_ftfy
from sie_frontend.text.entry import CausalPrompt, TextInput, TextSide
from sie_frontend.text.lengths import coerced_length, length_option
from sie_frontend.text.prompting import SizeLimits, check_sizes, prepare_texts
from sie_frontend.text.tokenization import (
    ATTENTION_MASK,
    INPUT_IDS,
    TOKEN_TYPE_IDS,
    IdArray,
    TextRow,
    TextTokenizer,
)

# Prompts of short queries are kept: the same query often comes with many documents, cut into requests.
_SHORT_QUERY = 2_000
# Cleaning takes every line by itself, each about as long as so many characters are tokenised.
_LINE_WORK = 100


class TextReader:
    """Makes the rows of one model's text input. Pure computation: any thread may run it.

    `profiles` are the model's runtime options, which may put texts of their own around an item's. The bytes of a body
    that `limits` names bound the UTF-8 text of one request, with everything that is put around it.
    """

    def __init__(
        self,
        entry: TextInput,
        repository: Path,
        *,
        profiles: Mapping[str, Mapping[str, Any]],
        limits: Limits | None = None,
    ) -> None:
        if entry.prompting.clean:
            check_ftfy()
        self.entry = entry
        self.spec = entry.tokenization
        self.profiles = profiles
        self.tokenizer = TextTokenizer(self.spec, repository)
        # What the bundle or the checkpoint puts around a text does not count against the item that it is put around.
        own = sum(utf8_size(text) for text in _own_texts(entry, profiles))
        self._limits = SizeLimits(MAX_ITEM_TEXT_BYTES + own, (limits or Limits()).body_bytes + own * MAX_ITEMS)
        # Nobody attends to padding, but it is looked up: a pad token beyond the embedding would fail the whole run.
        known = self.spec.vocabulary is None or self.spec.pad_id < self.spec.vocabulary
        fills = {INPUT_IDS: self.spec.pad_id if known else 0, ATTENTION_MASK: 0, TOKEN_TYPE_IDS: 0}
        self._fills = {name: fills[name] for name in self.spec.inputs}

    # The reader of a modality

    @property
    def recounts(self) -> bool:
        """Whether `billed` reads the items again."""
        return self.entry.usage != "processed"

    @property
    def apart(self) -> bool:
        """Texts are read together, which is quicker."""
        return False

    def given(self, items: Sequence[Item]) -> list[str]:
        """Every item's text; raises `WireError` (400) where there is none."""
        texts = []
        for item in items:
            if item.text is None:
                raise invalid_input(self.entry.requires_text)
            texts.append(item.text)
        return texts

    def work(self, given: Sequence[str]) -> int:
        """Characters; where texts are cleaned, much for each line."""
        lines = _LINE_WORK * sum(text.count("\n") for text in given) if self.entry.prompting.clean else 0
        return sum(map(len, given)) + lines

    def row_counts(self, given: Sequence[str]) -> list[int]:
        """One each."""
        return [1] * len(given)

    def check_together(self, given: Sequence[str], call: Call, places: Sequence[str]) -> None:
        """Nothing: they are read together, and measured there."""

    def rows(self, given: Sequence[str], call: Call, *, is_query: bool, places: Sequence[str] = ()) -> list[TextRow]:
        """One row per text, prompts and markers included. Raises `WireError` (400) for options that cannot be used.

        `places` names the texts in messages: `items[0]` and so on where it is empty.
        """
        prepared = self._prepared(given, call, is_query=is_query, places=places)
        if sides := self.entry.prompting.sides:
            side = sides.query if is_query else sides.document
            return self._side_rows(prepared, side, self._side_limit(side, call.options, is_query=is_query))
        if is_query and (bare := self.entry.prompting.bare_queries):
            encoded = self.tokenizer.encode_bare(prepared, bare.max_length)
            return [TextRow(ids, len(ids), self._types(ids), cut, blank=not len(ids)) for ids, cut in encoded]
        limit = self.spec.max_length
        if self.entry.request_limit:
            limit = min(limit, coerced_length(call.options, "max_seq_length") or limit)
            self._check_room(limit, "max_seq_length")
        encoded = self.tokenizer.encode_with_cuts(prepared, limit)
        return [
            TextRow(ids, len(ids), self._types(ids), cut, blank=not text.strip())
            for text, (ids, cut) in zip(given, encoded, strict=True)
        ]

    def pairs(self, query: str, given: Sequence[str], call: Call) -> list[TextRow]:
        """One row per (query, document) pair, truncated to the model's window. Raises `WireError` (400)."""
        text = f"{call.instruction} {query}" if call.instruction else query
        asked = utf8_size(text)
        check_sizes([asked], ("query",), self._limits)
        if causal := self.entry.prompting.causal:
            return self._causal_rows(causal, query, given, call)
        # Every pair has the query once more.
        sizes = [asked + utf8_size(document) for document in given]
        check_sizes(sizes, (), replace(self._limits, item=self._limits.item + asked))
        return self.tokenizer.encode_pairs([(text, document) for document in given], self._pair_limit(call.options))

    def check(self, rows: Sequence[TextRow], places: Sequence[str]) -> None:
        """Refuse ids that the checkpoint's embedding has no row for. Raises `WireError` (400) that names the text.

        In a run, such an id would fail the rows of everybody else.
        """
        known = self.spec.vocabulary
        if known is None:
            return
        for place, row in zip(places, rows, strict=True):
            if (largest := int(row.ids.max(initial=0))) >= known:
                raise invalid_input(
                    f"`{place}` holds the token {self.tokenizer.token(largest)!r}, whose id is {largest}; the model "
                    f"knows ids below {known}: leave that token out of the text"
                )

    def billed(self, given: Sequence[str], rows: Sequence[TextRow], call: Call, *, is_query: bool) -> list[int]:
        """The ids that were processed, or, for adapters that do so, those of the bare text."""
        if self.entry.usage == "bare":
            return [len(ids) for ids, _ in self.tokenizer.encode_bare(given, None)]
        if not self.recounts or self._reads_bare_text(given, call, is_query=is_query):
            return [len(row) for row in rows]
        return self.tokenizer.count(given)

    @property
    def counts_unread(self) -> bool:
        """Whether a text has tokens where it was not read: SIE has no tokenizer at hand for what it cleans itself."""
        return self.entry.prompting.clean is None

    def unread(self, texts: Sequence[str]) -> list[int]:
        """The tokens of texts whose items are read by their pictures: never padded, and cut where the model cuts."""
        if self.entry.usage == "bare":
            return [len(ids) for ids, _ in self.tokenizer.encode_bare(texts, None)]
        whole = [f"{self.entry.prompting.default_prompt or ''}{text}" for text in texts]
        return [min(count, self.spec.max_length) for count in self.tokenizer.count_whole(whole)]

    def probe(self, cost: int) -> TextRow:
        """A row of so many pad tokens, or of as many as the model reads."""
        length = min(cost, self.spec.max_length)
        ids = np.full(length, self.spec.pad_id, dtype=np.int64)
        return TextRow(ids, length, self._types(ids))

    def widths(self, *, exact: bool) -> Sequence[int]:
        """Every length up to the model's limit, or its buckets. Where padding counts, there is one length."""
        return range(1, self.spec.max_length + 1) if exact and not self.spec.pads else self.spec.buckets

    def batch(self, rows: Sequence[TextRow], width: int) -> dict[str, NDArray[Any]]:
        """Named int64 arrays of shape `[rows, width]`, right-padded."""
        return stack(rows, width, self._fills)

    # What goes into a row

    def _prepared(self, texts: Sequence[str], call: Call, *, is_query: bool, places: Sequence[str] = ()) -> list[str]:
        return prepare_texts(
            texts,
            self.entry.prompting,
            options=call.options,
            instruction=call.instruction,
            is_query=is_query,
            places=places,
            limits=self._limits,
        )

    def _reads_bare_text(self, texts: Sequence[str], call: Call, *, is_query: bool) -> bool:
        """Whether `rows` tokenises these texts as they are: no prompt, no marker, no other limit."""
        bare = is_query and self.entry.prompting.bare_queries is not None
        if self.entry.prompting.sides or self.entry.request_limit or bare:
            return False
        return self._prepared(texts, call, is_query=is_query) == list(texts)

    def _types(self, ids: IdArray) -> IdArray | None:
        """The types of a single text, for models that tell the texts of a pair apart."""
        return np.zeros_like(ids) if TOKEN_TYPE_IDS in self.spec.inputs else None

    def _check_room(self, limit: int, name: str, *, more: int = 0, pair: bool = False) -> None:
        """A limit below the special tokens would not be a limit: the tokenizer would cut nothing."""
        least = self.tokenizer.special_count(pair=pair) + more
        if limit < min(least, self.spec.max_length):
            raise invalid_input(
                f"'options.{name}' is {limit}, and the special tokens alone take {least}: ask for {least} or more"
            )

    # Late interaction

    def _side_limit(self, side: TextSide, options: Mapping[str, Any], *, is_query: bool) -> int:
        name = "query_max_length" if is_query else "max_seq_length"
        ceiling = min(self.spec.max_length, side.max_length)
        limit = min(ceiling, coerced_length(options, name) or ceiling)
        self._check_room(limit, name, more=0 if self.marker_id(side) is None else 1)
        return limit

    def _side_rows(self, texts: Sequence[str], side: TextSide, limit: int) -> list[TextRow]:
        marker = self.marker_id(side)
        if marker is None:
            texts = [side.marker + text for text in texts]
            encoded = self.tokenizer.encode_with_cuts(texts, limit)
        else:
            encoded = [
                (np.concatenate((ids[:1], [marker], ids[1:])), cut)
                for ids, cut in self.tokenizer.encode_with_cuts(texts, max(1, limit - 1))
            ]
        return [self._side_row(ids, side, limit, cut=cut) for ids, cut in encoded]

    def _side_row(self, ids: IdArray, side: TextSide, limit: int, *, cut: bool) -> TextRow:
        attended = len(ids)
        mask = self.spec.special_ids.get("mask")
        if side.expand and mask is not None and attended < limit:
            ids = np.concatenate((ids, np.full(limit - attended, mask, dtype=np.int64)))
            attended = limit if side.attend_expansion else attended
        kept = ~np.isin(ids, self.special_ids(side.drop))
        if side.drop_punctuation:
            kept &= ~np.isin(ids, self.punctuation_ids)
        return TextRow(ids, attended, self._types(ids), cut, kept=kept)

    def marker_id(self, side: TextSide) -> int | None:
        """The marker as one token: spelled exactly, else without the blanks around it. None: it is plain text."""
        if not side.marker_is_token or not side.marker.strip():
            return None
        exact = self.tokenizer.token_id(side.marker)
        return exact if exact is not None else self.tokenizer.token_id(side.marker.strip())

    @cached_property
    def punctuation_ids(self) -> IdArray:
        """The ids of the vocabulary's entries that are one ASCII punctuation character, spelled exactly so.

        A character without an entry is no unknown token: that one stands for other text as well.
        """
        found = (self.tokenizer.token_id(symbol) for symbol in string.punctuation)
        unknown = self.spec.special_ids.get("unk")
        return np.asarray(sorted({i for i in found if i is not None and i != unknown}), dtype=np.int64)

    def special_ids(self, roles: Sequence[str]) -> IdArray:
        """The ids of special tokens by role; roles that the tokenizer lacks are left out."""
        known = self.spec.special_ids
        return np.asarray(sorted({known[role] for role in roles if role in known}), dtype=np.int64)

    # Pairs

    def _pair_limit(self, options: Mapping[str, Any]) -> int:
        ceiling = self.spec.max_length
        if not self.entry.request_limit:
            return ceiling
        limit = min(ceiling, length_option(options, "max_seq_length") or ceiling)
        if self.entry.prompting.causal is None:
            self._check_room(limit, "max_seq_length", pair=True)
        return limit

    def _causal_rows(self, causal: CausalPrompt, query: str, documents: Sequence[str], call: Call) -> list[TextRow]:
        if causal.parts is not None:
            return self._template_rows(causal.parts, query, documents, call)
        prompt = PROMPTS[causal.name]
        prompt.check(query, documents, call.options, call.instruction)
        instruction = call.instruction or causal.default_instruction or prompt.default_instruction
        check_sizes([utf8_size(query) + utf8_size(instruction)], ("query",), self._limits)
        prompt_ids = _kept_prompt_ids if len(query) + len(instruction) <= _SHORT_QUERY else _prompt_ids
        before, after = prompt_ids(self.tokenizer, prompt, query, instruction)
        limit = self._pair_limit(call.options)
        room = limit - len(before) - len(after)
        if room <= 0:
            raise invalid_input(
                f"the query and its prompt take {len(before) + len(after)} tokens of the {limit} that the model reads"
            )
        rows = []
        for document in documents:
            ids = self.tokenizer.encode_piece(prompt.document(document))
            cut = len(ids) > room
            if cut:
                if not prompt.truncates:
                    raise WireError(
                        ErrorKind.INPUT_TOO_LONG,
                        f"a pair of {len(ids) + len(before) + len(after)} tokens exceeds the limit of {limit}",
                    )
                ids = ids[:room]
            whole = np.asarray([*before, *ids, *after], dtype=np.int64)
            rows.append(TextRow(whole, len(whole), self._types(whole), cut))
        return rows

    def _template_rows(
        self, parts: tuple[str, str, str], query: str, documents: Sequence[str], call: Call
    ) -> list[TextRow]:
        """Prompts that the checkpoint's own template writes; none is cut."""
        check_nothing_but_pairs(call.options, call.instruction)
        limit = self._pair_limit(call.options)
        before, between, after = parts
        around = utf8_size(query) + sum(map(utf8_size, parts))
        sizes = [around + utf8_size(document) for document in documents]
        check_sizes(sizes, (), replace(self._limits, item=self._limits.item + around))
        rows = []
        for document in documents:
            ids = self.tokenizer.encode_piece(f"{before}{query}{between}{document}{after}")
            if len(ids) > limit:
                raise WireError(ErrorKind.INPUT_TOO_LONG, f"a pair of {len(ids)} tokens exceeds the limit of {limit}")
            whole = np.asarray(ids, dtype=np.int64)
            rows.append(TextRow(whole, len(whole), self._types(whole)))
        return rows


def _prompt_ids(tokenizer: TextTokenizer, prompt: Prompt, query: str, instruction: str) -> tuple[list[int], list[int]]:
    """The ids in front of and behind the document. The pieces are tokenised one by one, as the adapters do."""
    before = [i for piece in prompt.before(query, instruction) for i in tokenizer.encode_piece(piece)]
    return before, [i for piece in prompt.after() for i in tokenizer.encode_piece(piece)]


_kept_prompt_ids = lru_cache(maxsize=64)(_prompt_ids)


def _own_texts(entry: TextInput, profiles: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What the bundle and the checkpoint may put around a text, once each."""
    prompting = entry.prompting
    yield from (text for text in (prompting.query_template, prompting.doc_template, prompting.default_prompt) if text)
    yield prompting.suffix
    yield from prompting.prompts.values()
    for runtime in profiles.values():
        for name in ("query_template", "doc_template", "default_instruction", "instruction"):
            if isinstance(text := runtime.get(name), str):
                yield text
