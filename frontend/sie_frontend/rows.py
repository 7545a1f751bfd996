"""Items -> token rows: what each kind of model reads for a query, a document or a pair."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sie_frontend.causal_prompts import PROMPTS, Prompt
from sie_frontend.errors import ErrorKind, WireError, invalid_input
from sie_frontend.manifest import CausalHead, Model, MultiVectorHead, TextSide
from sie_frontend.options import ResolvedCall
from sie_frontend.prompting import prepare_texts
from sie_frontend.tokenization import IdArray, Row, TextTokenizer


class RowMaker:
    """Makes the rows of one model. Pure computation: any thread may run it."""

    def __init__(self, model: Model, repository: Path) -> None:
        self.model = model
        self.tokenizer = TextTokenizer(model.tokenization, repository)

    def text_rows(
        self, texts: Sequence[str], options: Mapping[str, Any], instruction: str | None, *, is_query: bool
    ) -> list[Row]:
        """One row per text, prompts and markers included. Raises `WireError` (400) for options that cannot be used."""
        prepared = prepare_texts(
            texts, self.model.prompting, options=options, instruction=instruction, is_query=is_query
        )
        if self.model.prompting.suffix:
            prepared = [text + self.model.prompting.suffix for text in prepared]
        head = self.model.heads.get("multivector")
        side = (head.query if is_query else head.document) if isinstance(head, MultiVectorHead) else None
        if side is not None:
            return self._side_rows(prepared, side, self._side_limit(side, options, is_query=is_query))
        limit = self._limit(options) if self.model.request_limit else self.model.tokenization.max_length
        return [Row(ids, len(ids), cut=cut) for ids, cut in self.tokenizer.encode_with_cuts(prepared, limit)]

    def reads_bare_text(self, texts: Sequence[str], call: ResolvedCall) -> bool:
        """Whether `text_rows` tokenises these texts as they are: no prompt, no marker, no other limit."""
        if self.model.prompting.suffix or "multivector" in self.model.heads or self.model.request_limit:
            return False
        prepared = prepare_texts(
            texts, self.model.prompting, options=call.options, instruction=call.instruction, is_query=call.is_query
        )
        return prepared == list(texts)

    def _limit(self, options: Mapping[str, Any]) -> int:
        ceiling = self.model.tokenization.max_length
        return min(ceiling, length_option(options, "max_seq_length") or ceiling)

    def _side_limit(self, side: TextSide, options: Mapping[str, Any], *, is_query: bool) -> int:
        asked = length_option(options, "query_max_length" if is_query else "max_seq_length")
        ceiling = min(self.model.tokenization.max_length, side.max_length)
        return min(ceiling, asked) if asked else ceiling

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
        """The id of each ASCII punctuation character on its own."""
        ids = {self.tokenizer.encode_piece(symbol)[0] for symbol in string.punctuation}
        return np.asarray(sorted(ids), dtype=np.int64)

    def special_ids(self, roles: Sequence[str]) -> IdArray:
        """The ids of special tokens by role; roles that the tokenizer lacks are left out."""
        known = self.model.tokenization.special_ids
        return np.asarray(sorted({known[role] for role in roles if role in known}), dtype=np.int64)

    def pair_rows(
        self, query: str, documents: Sequence[str], options: Mapping[str, Any], instruction: str | None
    ) -> list[Row]:
        """One row per (query, document) pair, truncated to the model's window. Raises `WireError` (400)."""
        head = self.model.heads["score"]
        if isinstance(head, CausalHead):
            return self._causal_rows(head, query, documents, options, instruction)
        text = f"{instruction} {query}" if instruction else query
        return self.tokenizer.encode_pairs([(text, document) for document in documents], self._limit(options))

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
        before, after = _prompt_ids(self.tokenizer, prompt, query, instruction)
        limit = self._limit(options)
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


@lru_cache(maxsize=64)
def _prompt_ids(tokenizer: TextTokenizer, prompt: Prompt, query: str, instruction: str) -> tuple[list[int], list[int]]:
    """The ids in front of and behind the document. The pieces are tokenised one by one, as the adapters do."""
    before = [i for piece in prompt.before(query, instruction) for i in tokenizer.encode_piece(piece)]
    return before, [i for piece in prompt.after() for i in tokenizer.encode_piece(piece)]


def length_option(options: Mapping[str, Any], name: str) -> int | None:
    """A request's token limit; raises `WireError` (400) unless it is a positive whole number or null."""
    value = options.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise invalid_input(f"'options.{name}' must be a positive integer or null, got {value!r}")
    return value
