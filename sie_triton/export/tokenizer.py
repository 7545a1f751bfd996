"""The checkpoint's fast tokenizer as one `tokenizer.json`, without truncation and padding of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedTokenizerFast:
    """The checkpoint's tokenizer; raises `DiagnosticError` if it has no fast form.

    A `tokenizer.json` is read as it is. transformers 5's own classes rebuild some tokenizers from the vocabulary alone
    and lose normalisers on the way (XLM-R's, for one), so that a blank text and `ﬁ` would tokenise differently.
    """
    loader = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    try:
        tokenizer = loader.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises whatever its many loaders raise
        raise DiagnosticError(
            [Diagnostic("SIE332", f"transformers cannot load the tokenizer: {error}", Where(folder))]
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise DiagnosticError(
            [
                Diagnostic(
                    "SIE333",
                    "the tokenizer has no fast form; the frontend reads `tokenizer.json` only",
                    Where(folder),
                    "use a checkpoint that ships `tokenizer.json`",
                )
            ]
        )
    return tokenizer


def tokenizer_json(folder: Path, tokenizer: PreTrainedTokenizerFast) -> bytes:
    """The tokenizer's document. The checkpoint's own file wins: it is what other servers tokenise with.

    Truncation and padding are removed: a file that silently caps at 128 tokens is a known trap, and the limit is the
    bundle's to set.
    """
    own = folder / "tokenizer.json"
    document: dict[str, Any] = json.loads(
        own.read_text(encoding="utf-8") if own.is_file() else tokenizer.backend_tokenizer.to_str()
    )
    document["truncation"] = None
    document["padding"] = None
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def pad_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """The id that fills a row up to its bucket; masked out, so any id is right where the tokenizer names none."""
    for value in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if value is not None:
            return int(value)
    return 0
