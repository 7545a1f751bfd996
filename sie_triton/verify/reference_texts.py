"""The texts on which a build is compared with its reference: every length that matters, and scripts of all kinds."""

from __future__ import annotations

from collections.abc import Sequence

# Scripts, directions, combining marks, emoji, control characters and what tokenizers are known to trip over.
UNICODE_TEXTS = (
    "",
    " ",
    "The mitochondrion is the powerhouse of the cell.",
    "Ünïcödé, naïve café — “quotes”… and ﬁne ligatures",
    "Zoe\u0308 vs Zo\u00eb: combining and composed",
    "深度学习模型将文本转换为向量。",
    "ひらがなとカタカナ、そして漢字",
    "한국어 문장도 있습니다",
    "Текст на русском языке с ё и й",
    "العربية تُكتب من اليمين إلى اليسار",
    "हिन्दी में एक वाक्य",
    "👩‍👩‍👧‍👦 family, 🇪🇺 flag, 👍🏽 skin tone",
    "tabs\tand\nnewlines\r\nand\u00a0no-break\u200bzero-width",
    "[PAD] [MASK] [CLS] <pad> </s> <|endoftext|> as plain text",
    "[Mask] <Mask> [Q] [unused0] <mask> [D]x [SEP]y",
    "a" * 300,
    "supercalifragilisticexpialidocious-" * 8,
    "x = {y: 1}; // {text} %s {0} $HOME <b>html</b> & more",
    "\ud7ff\ufffd\U0001f600\U0010fffd",
)
SENTENCE = (
    "retrieval systems embed passages and queries into one space where near neighbours answer the question that was "
    "asked while sparse signals keep the rare words exact and late interaction compares every token with every other"
)
QUERIES = (
    "what is the powerhouse of the cell?",
    "ünïcödé",
    "which systems embed passages and keep the rare words exact",
)
# Beyond this many tokens the edges of single buckets are left to the maximum: each text there costs seconds.
LONG = 512
# How many of a checkpoint's added tokens are put into texts: some vocabularies have thousands.
ADDED_TOKENS = 16
ADDED_TOKENS_A_TEXT = 4


def reference_texts(specials: int, max_length: int, buckets: Sequence[int]) -> tuple[str, ...]:
    """Texts whose token counts run from one word to beyond the maximum, with every bucket's edge and the truncation
    boundary on both sides, then the unicode cases. `specials` is how many special tokens surround a text."""
    lengths = {1, 2, 3, 4, 5, 8, 11}
    edges = [bucket for bucket in buckets if bucket <= LONG] + ([1024] if max_length > 1024 else [])
    for edge in edges:
        lengths.update(n - specials for n in (edge - 1, edge, edge + 1) if n > specials)
    if max_length <= 4 * LONG:
        lengths.update(n - specials for n in (max_length - 1, max_length, max_length + 1, max_length + 40))
    return (*(_words(n) for n in sorted(lengths) if n > 0), *UNICODE_TEXTS)


def added_token_texts(tokens: Sequence[str]) -> tuple[str, ...]:
    """Texts with each of the checkpoint's own added tokens, beside words and within them; of many, the last ones."""
    shown = tokens[-ADDED_TOKENS:]
    return tuple(
        " ".join(f"near {token} the x{token}y" for token in shown[start : start + ADDED_TOKENS_A_TEXT])
        for start in range(0, len(shown), ADDED_TOKENS_A_TEXT)
    )


def reference_pairs(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(query, document) pairs over the same texts; blank ones are left out, as rerankers refuse them."""
    written = [text for text in texts if text.strip()]
    return tuple((QUERIES[index % len(QUERIES)], text) for index, text in enumerate(written))


def _words(count: int) -> str:
    words = SENTENCE.split()
    return " ".join(words[(i * 7 + count) % len(words)] for i in range(count))
