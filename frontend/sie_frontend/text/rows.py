"""Items -> token rows: what each kind of model reads for a query, a document or a pair."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sie_frontend.contract.errors import ErrorKind, WireError, invalid_input
from sie_frontend.contract.options import ResolvedCall
from sie_frontend.contract.requests import MAX_BODY_BYTES, MAX_ITEM_TEXT_BYTES, MAX_ITEMS, utf8_size
from sie_frontend.manifest import CausalHead, Model, MultiVectorHead, TextSide
from sie_frontend.text.causal_prompts import PROMPTS, Prompt
from sie_frontend.text.prompting import SizeLimits, check_sizes, prepare_texts
from sie_frontend.text.tokenization import IdArray, Row, TextTokenizer

# Prompts of short queries are kept: the same query often comes with many documents, cut into requests.
_SHORT_QUERY = 2_000


class RowMaker:
    """Makes the rows of one model. Pure computation: any thread may run it.

    `request_bytes` bounds the UTF-8 text of one request, with everything that is put around it.
    """

    def __init__(self, model: Model, repository: Path, *, request_bytes: int = MAX_BODY_BYTES) -> None:
        self.model = model
        self.tokenizer = TextTokenizer(model.tokenization, repository)
        # What the bundle or the checkpoint puts around a text does not count against the item that it is put around.
        own = sum(utf8_size(text) for text in _own_texts(model))
        self._limits = SizeLimits(MAX_ITEM_TEXT_BYTES + own, request_bytes + own * MAX_ITEMS)

    def text_rows(
        self,
        texts: Sequence[str],
        options: Mapping[str, Any],
        instruction: str | None,
        *,
        is_query: bool,
        places: Sequence[str] = (),
    ) -> list[Row]:
        """One row per text, prompts and markers included. Raises `WireError` (400) for options that cannot be used.

        `places` names the texts in messages: `items[0]` and so on where it is empty.
        """
        prepared = self._prepared(texts, options, instruction, is_query=is_query, places=places)
        head = self.model.heads.get("multivector")
        side = (head.query if is_query else head.document) if isinstance(head, MultiVectorHead) else None
        if side is not None:
            return self._side_rows(prepared, side, self._side_limit(side, options, is_query=is_query))
        limit = self.model.tokenization.max_length
        if self.model.request_limit:
            limit = min(limit, coerced_length(options, "max_seq_length") or limit)
            self._check_room(limit, "max_seq_length")
        return [Row(ids, len(ids), cut=cut) for ids, cut in self.tokenizer.encode_with_cuts(prepared, limit)]

    def _prepared(
        self,
        texts: Sequence[str],
        options: Mapping[str, Any],
        instruction: str | None,
        *,
        is_query: bool,
        places: Sequence[str] = (),
    ) -> list[str]:
        return prepare_texts(
            texts,
            self.model.prompting,
            options=options,
            instruction=instruction,
            is_query=is_query,
            places=places,
            limits=self._limits,
        )

    def reads_bare_text(self, texts: Sequence[str], call: ResolvedCall) -> bool:
        """Whether `text_rows` tokenises these texts as they are: no prompt, no marker, no other limit."""
        if "multivector" in self.model.heads or self.model.request_limit:
            return False
        return self._prepared(texts, call.options, call.instruction, is_query=call.is_query) == list(texts)

    def check_vocabulary(self, rows: Sequence[Row], places: Sequence[str]) -> None:
        """Refuse ids that the checkpoint's embedding has no row for. Raises `WireError` (400) that names the text.

        In a run, such an id would fail the rows of everybody else.
        """
        known = self.model.tokenization.vocabulary
        if known is None:
            return
        for place, row in zip(places, rows, strict=True):
            if (largest := int(row.ids.max(initial=0))) >= known:
                raise invalid_input(
                    f"`{place}` holds the token {self.tokenizer.token(largest)!r}, whose id is {largest}; the model "
                    f"knows ids below {known}: leave that token out of the text"
                )

    def _side_limit(self, side: TextSide, options: Mapping[str, Any], *, is_query: bool) -> int:
        name = "query_max_length" if is_query else "max_seq_length"
        ceiling = min(self.model.tokenization.max_length, side.max_length)
        limit = min(ceiling, coerced_length(options, name) or ceiling)
        self._check_room(limit, name, more=0 if self.marker_id(side) is None else 1)
        return limit

    def _check_room(self, limit: int, name: str, *, more: int = 0, pair: bool = False) -> None:
        """A limit below the special tokens would not be a limit: the tokenizer would cut nothing."""
        least = self.tokenizer.special_count(pair=pair) + more
        if limit < min(least, self.model.tokenization.max_length):
            raise invalid_input(
                f"'options.{name}' is {limit}, and the special tokens alone take {least}: ask for {least} or more"
            )

    def _side_rows(self, texts: Sequence[str], side: TextSide, limit: int) -> list[Row]:
        marker = self.marker_id(side)
        if marker is None:
            texts = [side.marker + text for text in texts]
            encoded = self.tokenizer.encode_with_cuts(texts, limit)
        else:
            encoded = [
                (np.concatenate((ids[:1], [marker], ids[1:])), cut)
                for ids, cut in self.tokenizer.encode_with_cuts(texts, max(1, limit - 1))
            ]
        return [self._expanded(ids, side, limit, cut=cut) for ids, cut in encoded]

    def marker_id(self, side: TextSide) -> int | None:
        """The marker as one token: spelled exactly, else without the blanks around it. None: it is plain text."""
        if not side.marker_is_token or not side.marker.strip():
            return None
        exact = self.tokenizer.token_id(side.marker)
        return exact if exact is not None else self.tokenizer.token_id(side.marker.strip())

    def _expanded(self, ids: IdArray, side: TextSide, limit: int, *, cut: bool) -> Row:
        mask = self.model.tokenization.special_ids.get("mask")
        if not side.expand or mask is None or len(ids) >= limit:
            return Row(ids, len(ids), cut=cut)
        padded = np.concatenate((ids, np.full(limit - len(ids), mask, dtype=np.int64)))
        return Row(padded, limit if side.attend_expansion else len(ids))

    @cached_property
    def punctuation_ids(self) -> IdArray:
        """The ids of the vocabulary's entries that are one ASCII punctuation character, spelled exactly so.

        A character without an entry is no unknown token: that one stands for other text as well.
        """
        found = (self.tokenizer.token_id(symbol) for symbol in string.punctuation)
        unknown = self.model.tokenization.special_ids.get("unk")
        return np.asarray(sorted({i for i in found if i is not None and i != unknown}), dtype=np.int64)

    def special_ids(self, roles: Sequence[str]) -> IdArray:
        """The ids of special tokens by role; roles that the tokenizer lacks are left out."""
        known = self.model.tokenization.special_ids
        return np.asarray(sorted({known[role] for role in roles if role in known}), dtype=np.int64)

    def pair_rows(
        self, query: str, documents: Sequence[str], options: Mapping[str, Any], instruction: str | None
    ) -> list[Row]:
        """One row per (query, document) pair, truncated to the model's window. Raises `WireError` (400)."""
        head = self.model.heads["score"]
        text = f"{instruction} {query}" if instruction else query
        asked = utf8_size(text)
        check_sizes([asked], ("query",), self._limits)
        if isinstance(head, CausalHead):
            return self._causal_rows(head, query, documents, options, instruction)
        # Every pair has the query once more.
        sizes = [asked + utf8_size(document) for document in documents]
        check_sizes(sizes, (), replace(self._limits, item=self._limits.item + asked))
        limit = self._pair_limit(options)
        return self.tokenizer.encode_pairs([(text, document) for document in documents], limit)

    def _pair_limit(self, options: Mapping[str, Any]) -> int:
        ceiling = self.model.tokenization.max_length
        if not self.model.request_limit:
            return ceiling
        limit = min(ceiling, length_option(options, "max_seq_length") or ceiling)
        if not isinstance(self.model.heads["score"], CausalHead):
            self._check_room(limit, "max_seq_length", pair=True)
        return limit

    def _causal_rows(
        self,
        head: CausalHead,
        query: str,
        documents: Sequence[str],
        options: Mapping[str, Any],
        instruction: str | None,
    ) -> list[Row]:
        prompt = PROMPTS[head.prompt]
        prompt.check(query, documents, options, instruction)
        instruction = instruction or head.default_instruction or prompt.default_instruction
        check_sizes([utf8_size(query) + utf8_size(instruction)], ("query",), self._limits)
        prompt_ids = _kept_prompt_ids if len(query) + len(instruction) <= _SHORT_QUERY else _prompt_ids
        before, after = prompt_ids(self.tokenizer, prompt, query, instruction)
        limit = self._pair_limit(options)
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
            rows.append(Row(whole, len(whole), cut=cut))
        return rows


def _prompt_ids(tokenizer: TextTokenizer, prompt: Prompt, query: str, instruction: str) -> tuple[list[int], list[int]]:
    """The ids in front of and behind the document. The pieces are tokenised one by one, as the adapters do."""
    before = [i for piece in prompt.before(query, instruction) for i in tokenizer.encode_piece(piece)]
    return before, [i for piece in prompt.after() for i in tokenizer.encode_piece(piece)]


_kept_prompt_ids = lru_cache(maxsize=64)(_prompt_ids)


def length_option(options: Mapping[str, Any], name: str) -> int | None:
    """A request's token limit; raises `WireError` (400) unless it is a positive whole number or null."""
    value = options.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise invalid_input(f"'options.{name}' must be a positive integer or null, got {value!r}")
    return value


def coerced_length(options: Mapping[str, Any], name: str) -> int | None:
    """A request's token limit for the adapters that take it as Python's `int` does: "12", 12.5 and true are limits.

    None, which leaves the model's own limit, for null and for what is not positive. Raises `WireError` (400) for what
    is no number.
    """
    value = options.get(name)
    if value is None:
        return None
    try:
        if not isinstance(value, str | int | float):
            raise TypeError
        length = int(value)
    except (TypeError, ValueError, OverflowError):
        raise invalid_input(f"'options.{name}' must be a positive integer or null, got {value!r}") from None
    return length if length > 0 else None


def _own_texts(model: Model) -> Iterator[str]:
    """What the bundle and the checkpoint may put around a text, once each."""
    prompting = model.prompting
    yield from (text for text in (prompting.query_template, prompting.doc_template, prompting.default_prompt) if text)
    yield prompting.suffix
    yield from prompting.prompts.values()
    for runtime in model.profiles.values():
        for name in ("query_template", "doc_template", "default_instruction", "instruction"):
            if isinstance(text := runtime.get(name), str):
                yield text
