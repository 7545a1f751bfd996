"""Text -> token ids -> a padded `TokenBatch`. Fast tokenizers only; nothing here blocks on I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from tokenizers import Tokenizer

from sie_frontend.manifest import Tokenization

IdArray: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"


class TextTokenizer:
    """The tokenizer of one model, truncating on the right at the model's limit (special tokens kept).

    `encode` releases the GIL inside the Rust tokenizer and may run in any thread.
    """

    def __init__(self, spec: Tokenization, repository: Path) -> None:
        self.spec = spec
        self._tokenizer: Any = Tokenizer.from_file(str(repository / spec.path))
        self._tokenizer.no_padding()
        self._max_length = 0
        self._limit(spec.max_length)
        self._append = np.asarray(spec.append_ids, dtype=np.int64)

    def _limit(self, max_length: int) -> None:
        if max_length != self._max_length:
            self._tokenizer.enable_truncation(max_length=max(1, max_length - len(self.spec.append_ids)))
            self._max_length = max_length

    def encode(self, texts: Sequence[str]) -> list[IdArray]:
        """Token ids of each text, special tokens included, at most `max_length` long."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=True)
        rows = [np.asarray(encoding.ids, dtype=np.int64) for encoding in encodings]
        return [np.concatenate((row, self._append)) for row in rows] if self._append.size else rows

    def count(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, as `encode` would make them."""
        return [len(row) for row in self.encode(texts)]


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Rows ready for Triton: `input_ids` and `attention_mask`, both int64 `[rows, length]`, right-padded."""

    input_ids: IdArray
    attention_mask: IdArray
    lengths: tuple[int, ...]

    @property
    def padded_tokens(self) -> int:
        """Positions computed, padding included."""
        return int(self.input_ids.size)


def bucket_of(length: int, buckets: Sequence[int]) -> int:
    """The shortest bucket that holds `length` tokens. `buckets` ascend and end at the model's limit."""
    for bucket in buckets:
        if length <= bucket:
            return bucket
    raise ValueError(f"{length} tokens exceed the longest bucket, {buckets[-1]}")


def make_batch(rows: Sequence[IdArray], spec: Tokenization) -> TokenBatch:
    """Pad rows to the bucket of the longest. The mask comes from lengths: a user may write the pad token.

    A text that tokenises to nothing at all becomes one pad token that is attended to, since an empty row has no mean.
    """
    lengths = tuple(max(1, len(row)) for row in rows)
    width = bucket_of(max(lengths), spec.buckets)
    input_ids = np.full((len(rows), width), spec.pad_id, dtype=np.int64)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = row
    mask = (np.arange(width)[None, :] < np.asarray(lengths)[:, None]).astype(np.int64)
    return TokenBatch(input_ids, mask, lengths)
