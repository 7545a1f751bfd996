"""Text -> token ids -> rows. Fast tokenizers only; nothing here blocks on I/O."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from sie_frontend.text.entry import Tokenization

T = TypeVar("T")
IdArray: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"

INPUT_IDS = "input_ids"
ATTENTION_MASK = "attention_mask"
TOKEN_TYPE_IDS = "token_type_ids"

# Each limit that requests ask for has a tokenizer of its own; more limits than this share by replacing the oldest.
MAX_LIMITS = 8
# The tokenizer library takes about 60 bytes for each byte of a text, until the ids are taken out: so much at a time.
SLICE_CHARACTERS = 256 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class TextRow:
    """The tokens of one item or pair. Positions from `attended` on are computed, but nobody attends to them.

    `type_ids` tell the two texts of a pair apart, for models that want it. `cut`: the text had more tokens than fit.
    `kept` says which positions leave as token vectors; None: all.
    """

    ids: IdArray
    attended: int
    type_ids: IdArray | None = None
    cut: bool = False
    blank: bool = False
    kept: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def cost(self) -> int:
        """Its tokens."""
        return len(self.ids)

    @property
    def shape_key(self) -> None:
        """Padding makes all texts alike."""

    @property
    def nbytes(self) -> int:
        """Those of its ids."""
        return self.ids.nbytes

    @property
    def arrays(self) -> Mapping[str, IdArray]:
        """`input_ids`, the mask, and `token_type_ids` where the model tells texts apart, `[tokens]` each.

        The mask comes from the length, never from the pad token: a user may write that.
        """
        mask = np.ones(len(self.ids), dtype=np.int64)
        mask[self.attended :] = 0
        arrays = {INPUT_IDS: self.ids, ATTENTION_MASK: mask}
        return arrays if self.type_ids is None else {**arrays, TOKEN_TYPE_IDS: self.type_ids}


class TextTokenizer:
    """The tokenizer of one model, truncating on the model's side (special tokens kept). Any thread may use it.

    The Rust tokenizer releases the GIL while it works.
    """

    def __init__(self, spec: Tokenization, repository: Path) -> None:
        self.spec = spec
        self._document = (repository / spec.path).read_text(encoding="utf-8")
        self._limited: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._blank = np.asarray([spec.pad_id], dtype=np.int64)
        self._plain: Any = Tokenizer.from_str(self._document)
        self._plain.no_padding()
        self._plain.no_truncation()
        self._tokenizer(spec.max_length)

    def _tokenizer(self, max_length: int) -> Any:
        """A tokenizer truncates by its own state, so each limit has an instance; changing one would race."""
        with self._lock:
            if max_length not in self._limited:
                if len(self._limited) == MAX_LIMITS:
                    del self._limited[next(iter(self._limited))]
                tokenizer: Any = Tokenizer.from_str(self._document)
                tokenizer.no_padding()
                tokenizer.enable_truncation(max_length=max_length, direction=self.spec.truncation_side)
                if self.spec.pads:
                    tokenizer.enable_padding(direction=self.spec.pads, pad_id=self.spec.pad_id, length=max_length)
                self._limited[max_length] = tokenizer
            return self._limited[max_length]

    def encode(self, texts: Sequence[str], max_length: int | None = None) -> list[IdArray]:
        """Token ids of each text, special tokens included, at most `max_length` long (default: the model's limit).

        A text that tokenises to nothing becomes one pad token that is attended to: an empty row has no mean.
        """
        return [ids for ids, _ in self.encode_with_cuts(texts, max_length)]

    def encode_with_cuts(self, texts: Sequence[str], max_length: int | None = None) -> list[tuple[IdArray, bool]]:
        """What `encode` gives, and for each text whether tokens of it were left out."""
        limit = max_length or self.spec.max_length
        tokenizer = self._tokenizer(limit)
        rows: list[tuple[IdArray, bool]] = []
        for part in _slices(texts, [len(text) for text in texts]):
            for encoding in tokenizer.encode_batch_fast(part, add_special_tokens=True):
                ids = np.asarray(encoding.ids, dtype=np.int64)
                rows.append((ids if ids.size else self._blank, _was_cut(encoding, limit)))
        return rows

    def encode_bare(self, texts: Sequence[str], max_length: int | None) -> list[tuple[IdArray, bool]]:
        """Token ids of each text without special tokens, `[0 to max_length]`, and whether tokens were left out."""
        tokenizer = self._plain if max_length is None else self._tokenizer(max_length)
        rows: list[tuple[IdArray, bool]] = []
        for part in _slices(texts, [len(text) for text in texts]):
            for encoding in tokenizer.encode_batch_fast(part, add_special_tokens=False):
                cut = max_length is not None and _was_cut(encoding, max_length)
                rows.append((np.asarray(encoding.ids, dtype=np.int64), cut))
        return rows

    def encode_pairs(self, pairs: Sequence[tuple[str, str]], max_length: int | None = None) -> list[TextRow]:
        """Pairs with the tokenizer's own separators, the longer text truncated first."""
        limit = max_length or self.spec.max_length
        rows = []
        tokenizer = self._tokenizer(limit)
        for part in _slices(pairs, [len(first) + len(second) for first, second in pairs]):
            for encoding in tokenizer.encode_batch_fast(part, add_special_tokens=True):
                ids = np.asarray(encoding.ids, dtype=np.int64)
                types = np.asarray(encoding.type_ids, dtype=np.int64)
                rows.append(TextRow(ids, len(ids), types, cut=_was_cut(encoding, limit)))
        return rows

    def special_count(self, *, pair: bool = False) -> int:
        """How many special tokens stand around a text or a pair: what a limit must leave room for."""
        count: int = self._plain.num_special_tokens_to_add(pair)
        return count

    def encode_piece(self, text: str) -> list[int]:
        """Ids of a piece of a prompt: no special tokens added, nothing truncated."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def encode_with_ends(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """What `encode_piece` gives, and where in the text each token begins and ends."""
        encoding = self._plain.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def token(self, token_id: int) -> str | None:
        """The spelling of a token, None for an id that is not in the vocabulary."""
        found: str | None = self._plain.id_to_token(token_id)
        return found

    def cut_text(self, text: str, tokens: int) -> str:
        """The text up to the end of its first `tokens` tokens, special ones not counted."""
        encoding = self._plain.encode(text, add_special_tokens=False)
        return text if len(encoding) <= tokens else text[: encoding.offsets[tokens - 1][1]]

    def token_id(self, token: str) -> int | None:
        """The id of a token by its exact spelling, None if it is not in the vocabulary."""
        found: int | None = self._plain.token_to_id(token)
        return found

    def count(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, as `encode` would make them."""
        return [len(row) for row in self.encode(texts)]

    def count_whole(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, special ones included, neither cut nor padded."""
        encode = self._plain.encode_batch_fast
        return [
            len(one) for part in _slices(texts, list(map(len, texts))) for one in encode(part, add_special_tokens=True)
        ]


def _slices(items: Sequence[T], sizes: Sequence[int]) -> Iterator[list[T]]:
    """`items` in order, cut so that each part but the largest single ones has at most `SLICE_CHARACTERS`."""
    part: list[T] = []
    room = SLICE_CHARACTERS
    for item, size in zip(items, sizes, strict=True):
        if part and size > room:
            yield part
            part, room = [], SLICE_CHARACTERS
        part.append(item)
        room -= size
    if part:
        yield part


def _was_cut(encoding: Any, limit: int) -> bool:
    """Whether truncation took tokens away. `overflowing` copies them, so it is asked only of a full row."""
    return len(encoding) >= limit and bool(encoding.overflowing)
