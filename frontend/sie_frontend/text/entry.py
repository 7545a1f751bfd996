"""The manifest's entry of a text input: how an item's text becomes token ids."""

from __future__ import annotations

from typing import Literal

import msgspec

PromptStyle = Literal[
    "plain",
    "template",
    "sentence_transformer",
    "sentence_transformer_sparse",
    "pytorch_embedding",
    "instruction_prefix",
    "colbert",
    "cross_encoder",
    "causal_cross_encoder",
    "native_causal_cross_encoder",
]
Usage = Literal["processed", "raw", "bare"]
Queries = Literal["like_items", "text_first", "text_only"]
CausalPromptName = Literal["mxbai", "qwen3", "zerank", "template"]


class Tokenization(msgspec.Struct, frozen=True):
    """How text becomes token ids, right-padded with `pad_id` to a bucket length.

    `path` is relative to the repository. `max_length` counts special tokens. `inputs` are the tensors that the
    Triton model takes, in order; `attention_mask` is derived from lengths, never from `ids != pad_id`.
    `special_ids` maps roles (`cls`, `sep`, `pad`, `mask`, `unk`, `bos`, `eos`) to ids; `all_special_ids` lists every
    special id, roles or not. `truncation_side` is where a text that is too long loses tokens. `vocabulary` is the
    number of rows of the checkpoint's embedding, where the compiler said it: a tokenizer may give ids beyond. `pads`:
    every text is padded to `max_length` on this side, and the padding is tokens like any; None: it never counts.
    """

    path: str
    max_length: int
    pad_id: int
    inputs: tuple[str, ...]
    buckets: tuple[int, ...]
    special_ids: dict[str, int] = {}
    all_special_ids: tuple[int, ...] = ()
    truncation_side: Literal["left", "right"] = "right"
    vocabulary: int | None = None
    pads: Literal["left", "right"] | None = None


class TextSide(msgspec.Struct, frozen=True):
    """How a late-interaction model reads queries, or documents.

    `marker` goes in front of the text; as one token behind the first if `marker_is_token`. `expand` pads with the mask
    token to `max_length`; `attend_expansion` says whether the model attends to that padding. Tokens of the roles
    `drop`, and punctuation if `drop_punctuation`, have no vector in the answer.
    """

    max_length: int
    marker: str = ""
    marker_is_token: bool = False
    expand: bool = False
    attend_expansion: bool = False
    drop: tuple[str, ...] = ()
    drop_punctuation: bool = False


class Sides(msgspec.Struct, frozen=True):
    """Queries and documents that a late-interaction model reads each in its own way."""

    query: TextSide
    document: TextSide


class BareQueries(msgspec.Struct, frozen=True):
    """Queries are read without special tokens, and cut at `max_length` of their own (None: never)."""

    max_length: int | None = None


class CausalPrompt(msgspec.Struct, frozen=True):
    """The published prompt that a causal reranker was trained on, and its instruction where a call has none.

    Of a `template`, `parts` stand in front of the query, between it and the document, and behind the document; the
    whole is tokenised at once.
    """

    name: CausalPromptName
    default_instruction: str | None = None
    parts: tuple[str, str, str] | None = None


class Prompting(msgspec.Struct, frozen=True):
    """Which rule turns an item's text into the text that is tokenised, and what the rule falls back on.

    `plain` puts `default_prompt` in front of every text, whatever a call asks for.
    `suffix` follows every text: an end-of-sequence token that the tokenizer does not add by itself. `sides` is set for
    late interaction, `causal` where a pair is written into a prompt instead of being joined by the tokenizer,
    `bare_queries` where queries never reach the model.
    """

    style: PromptStyle
    query_template: str | None = None
    doc_template: str | None = None
    prompts: dict[str, str] = {}
    default_prompt: str | None = None
    suffix: str = ""
    sides: Sides | None = None
    causal: CausalPrompt | None = None
    bare_queries: BareQueries | None = None


class TextInput(msgspec.Struct, frozen=True):
    """Everything that turns items into token rows.

    `requires_text` is the message for an item without text. `request_limit`: whether a request's
    `options.max_seq_length` may lower the truncation length. `usage`: whether the tokens that are billed are those
    processed, those of the bare text, or those without the special tokens around it. `queries`: what a query is read
    by that may have images beside its text; `like_items`: images win, as everywhere; `text_first`: its text, if it has
    one; `text_only`: its text, which it must have.
    """

    tokenization: Tokenization
    prompting: Prompting
    requires_text: str
    request_limit: bool = False
    usage: Usage = "processed"
    queries: Queries = "like_items"
