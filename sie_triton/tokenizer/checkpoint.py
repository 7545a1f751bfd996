"""The tokenizer of one checkpoint, opened: its ids by name and by role, and the files that are written of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import transformers
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.facts import Framing, Spelling
from sie_triton.facts.checkpoint import TOKENIZER_SETTINGS_NAME
from sie_triton.facts.files import read_object
from sie_triton.tokenizer.document import framed, load_tokenizer, pad_id, tokenizer_json
from sie_triton.tokenizer.token_weights import first_weights, weights_by_id

SPECIAL_ROLES = ("cls", "sep", "pad", "mask", "unk", "bos", "eos")


class CheckpointTokenizer:
    """What the loaded tokenizer of a checkpoint knows. Raises `DiagnosticError` if there is none that we can serve."""

    def __init__(self, folder: Path, *, trust_remote_code: bool = False) -> None:
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        self.folder = folder
        self._tokenizer: PreTrainedTokenizerFast = load_tokenizer(folder, trust_remote_code=trust_remote_code)

    @property
    def pad_id(self) -> int:
        """The id that fills a row up to its bucket."""
        return pad_id(self._tokenizer)

    @property
    def special_ids(self) -> dict[str, int]:
        """Ids of the special tokens by role, as far as the tokenizer has them."""
        found = {role: getattr(self._tokenizer, f"{role}_token_id", None) for role in SPECIAL_ROLES}
        return {role: int(value) for role, value in found.items() if value is not None}

    @property
    def all_special_ids(self) -> tuple[int, ...]:
        """Every special id."""
        return tuple(sorted(set(self._tokenizer.all_special_ids)))

    @property
    def added_tokens(self) -> list[str]:
        """The tokens that transformers finds added to the vocabulary, special ones among them, by their ids."""
        found: dict[str, int] = self._tokenizer.get_added_vocab()
        return sorted(found, key=lambda token: found[token])

    def token(self, token_id: int) -> str | None:
        """The spelling of a token, None for an id that there is none for."""
        found: str | None = self._tokenizer.convert_ids_to_tokens(token_id)
        return found

    def token_id(self, token: str) -> int:
        """The one id of a token, as vocabulary entry or as text that is a single token."""
        known = self._tokenizer.get_vocab().get(token)
        ids = [known] if known is not None else self._tokenizer.encode(token, add_special_tokens=False)
        if len(ids) != 1:
            raise DiagnosticError(
                [
                    Diagnostic(
                        "SIE405",
                        f"`{token}` is {len(ids)} tokens for this tokenizer; a score needs it to be one",
                        Where(self.folder),
                        "name tokens of the checkpoint's vocabulary in `yes_token` and `no_token`",
                    )
                ]
            )
        return int(ids[0])

    def encode(self, text: str) -> list[int]:
        """The ids of a text as it is, with nothing around them."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def write(
        self, path: Path, *, lowercase: bool = False, spelling: Spelling | None = None, framing: Framing | None = None
    ) -> int:
        """The tokenizer as one file; returns its largest id. `tokenizer_json` says what the arguments mean."""
        settings = read_object(self.folder / TOKENIZER_SETTINGS_NAME)
        document = tokenizer_json(self.folder, self._tokenizer, settings, lowercase=lowercase, spelling=spelling)
        if framing is not None:
            document = framed(document, framing)
        path.write_bytes(document)
        vocabulary: dict[str, int] = Tokenizer.from_str(document.decode()).get_vocab(with_added_tokens=True)
        return max(vocabulary.values())

    def write_query_weights(self, path: Path, files: Sequence[str]) -> None:
        """A table of token weights as one float32 array over the vocabulary; tokens it does not name weigh nothing.

        `files` are those of OpenSearch, by token, or one file of tensors, by token id. Raises `DiagnosticError`.
        """
        if files[0].endswith(".safetensors"):
            np.save(path, weights_by_id(self.folder / files[0]), allow_pickle=False)
            return
        named = first_weights([self.folder / file for file in files])
        vocabulary = self._tokenizer.get_vocab()
        table = np.zeros(max(vocabulary.values()) + 1, dtype=np.float32)
        for token, weight in named.items():
            if token in vocabulary:
                table[vocabulary[token]] = weight
        if not (table > 0).any():
            raise DiagnosticError(
                [Diagnostic("SIE406", f"no token of {list(files)} is in the vocabulary", Where(self.folder))]
            )
        np.save(path, table, allow_pickle=False)
