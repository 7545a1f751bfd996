"""The checkpoint's fast tokenizer as one `tokenizer.json`, without truncation and padding of its own."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.facts import Framing, Spelling

# Settings of BERT's normaliser, by their name in `tokenizer_config.json`.
NORMALIZER_SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}

# What SentencePiece writes for a blank.
_BLANK = "\u2581"


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


def tokenizer_json(
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
    settings: Mapping[str, Any],
    *,
    lowercase: bool = False,
    spelling: Spelling | None = None,
) -> bytes:
    """The tokenizer's document. The checkpoint's own file wins: it is what other servers tokenise with.

    What stands beside the file counts too: added tokens that it lacks, and the normaliser's settings in
    `tokenizer_config.json` (`settings`). With `lowercase`, text is lowercased first, as sentence-transformers does for
    `do_lower_case`; with a `spelling`, what that says is done first. Truncation and padding are removed: a file that
    silently caps at 128 tokens is a known trap, and the limit is the bundle's to set. Raises `DiagnosticError` for
    added tokens that cannot be brought in.
    """
    own = folder / "tokenizer.json"
    backend = tokenizer.backend_tokenizer
    text = own.read_text(encoding="utf-8") if own.is_file() else backend.to_str()
    text = _with_added_tokens(text, backend, Where(own))
    document: dict[str, Any] = json.loads(text)
    document["truncation"] = None
    document["padding"] = None
    lowers = spelling is not None and spelling.lowercase and not spelling.canonical
    document["normalizer"] = _normalizer(document.get("normalizer"), settings, lowercase=lowercase or lowers)
    if spelling is not None and spelling.canonical:
        _spell_canonically(document, spelling)
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _with_added_tokens(text: str, loaded: Tokenizer, where: Where) -> str:
    """The document with the tokens that stand only beside it, as transformers adds them."""
    own = Tokenizer.from_str(text)
    theirs: Mapping[int, AddedToken] = loaded.get_added_tokens_decoder()
    ours: Mapping[int, AddedToken] = own.get_added_tokens_decoder()
    beside = [(number, theirs[number]) for number in sorted(theirs) if ours.get(number) != theirs[number]]
    if not beside:
        return text
    for _, token in beside:
        (own.add_special_tokens if token.special else own.add_tokens)([token])
    wrong = [token.content for number, token in beside if own.token_to_id(token.content) != number]
    if wrong:
        raise DiagnosticError(
            [
                Diagnostic(
                    "SIE336",
                    f"the tokens {wrong} stand beside `tokenizer.json` with ids that they cannot be given in it",
                    where,
                    "save the tokenizer again with `save_pretrained`",
                )
            ]
        )
    written: str = own.to_str()
    return written


def _normalizer(normalizer: Any, settings: Mapping[str, Any], *, lowercase: bool) -> Any:
    """The normaliser with the settings beside the file, and with lowercasing in front where that is asked for."""
    if isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer":
        said = {there: settings[here] for here, there in NORMALIZER_SETTINGS.items() if here in settings}
        normalizer = {**normalizer, **said}
    if not lowercase:
        return normalizer
    first = {"type": "Lowercase"}
    if normalizer is None:
        return first
    rest = normalizer["normalizers"] if normalizer.get("type") == "Sequence" else [normalizer]
    return normalizer if first in rest else {"type": "Sequence", "normalizers": [first, *rest]}


def _spell_canonically(document: dict[str, Any], spelling: Spelling) -> None:
    """Texts that begin with `spelling.start` are read as SigLIP's own class reads them, before the file's normaliser.

    Punctuation goes and white space becomes single blanks, on either side of special tokens by itself; a word begins at
    the start and behind blanks, and not behind a special token.
    """
    steps: list[dict[str, Any]] = []
    if spelling.lowercase:
        # The library lowers letter by letter, and the last sigma of a word is another one than those before it.
        steps += [_replace(r"(?<=\p{L})Σ(?!\p{L})", "ς"), {"type": "Lowercase"}]
    steps += [
        _replace(f"[{re.escape(string.punctuation)}]", ""),
        _replace(rf"[\s{_BLANK}]+", " "),
        {"type": "Strip", "strip_left": True, "strip_right": True},
        _replace(f"^{spelling.start} ?$", ""),
        _replace(f"^{spelling.start} ?", _BLANK),
    ]
    own = document.get("normalizer")
    rest = own["normalizers"] if own and own.get("type") == "Sequence" else [own] if own else []
    document["normalizer"] = {"type": "Sequence", "normalizers": [*steps, *rest]}
    # Older files split at blanks first, and would lose the one that begins a text.
    document["pre_tokenizer"] = {"type": "Metaspace", "replacement": _BLANK, "prepend_scheme": "never", "split": True}


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def framed(document: bytes, framing: Framing) -> bytes:
    """The document with the tokens of these texts around every text, as special ones: truncation leaves them alone.

    They take the place of what the file itself puts around a text.
    """
    tokenizer = Tokenizer.from_str(document.decode())
    sides = {"before": framing.before, "after": framing.after}
    ids = {name: tokenizer.encode(text, add_special_tokens=False).ids for name, text in sides.items() if text}
    pieces = [{"SpecialToken": {"id": name, "type_id": 0}} for name in ids]
    pieces.insert(int("before" in ids), {"Sequence": {"id": "A", "type_id": 0}})
    written: dict[str, Any] = json.loads(document)
    written["post_processor"] = {
        "type": "TemplateProcessing",
        "single": pieces,
        "pair": [{"Sequence": {"id": side, "type_id": 0}} for side in "AB"],
        "special_tokens": {
            name: {"id": name, "ids": found, "tokens": [tokenizer.id_to_token(number) for number in found]}
            for name, found in ids.items()
        },
    }
    return json.dumps(written, ensure_ascii=False, separators=(",", ":")).encode()


def pad_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """The id that fills a row up to its bucket; masked out, so any id is right where the tokenizer names none."""
    for value in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if value is not None:
            return int(value)
    return 0
