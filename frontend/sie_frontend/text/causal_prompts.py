"""The published prompts of rerankers that are language models: what stands before and behind a document.

Pieces are tokenised one by one and their ids joined; no beginning-of-sequence token is added.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sie_frontend.contract.errors import invalid_input

ASSISTANT = "<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True)
class Prompt:
    """One prompt. `truncates` says whether a document that does not fit is cut, or refused."""

    before: Callable[[str, str], tuple[str, ...]]
    document: Callable[[str], str]
    after: Callable[[], tuple[str, ...]]
    check: Callable[[str, Sequence[str], Mapping[str, Any], str | None], None]
    default_instruction: str = ""
    truncates: bool = True


def _not_blank(query: str, documents: Sequence[str], options: Mapping[str, Any], instruction: str | None) -> None:
    if not query.strip():
        raise invalid_input("the query must not be blank")
    for index, document in enumerate(documents):
        if not document.strip():
            raise invalid_input(f"the document `items[{index}]` must not be blank")


def check_nothing_but_pairs(options: Mapping[str, Any], instruction: str | None) -> None:
    """What a prompt has no place for. Raises `WireError` (400)."""
    if instruction is not None:
        raise invalid_input("this model takes no instruction")
    unknown = sorted(set(options) - {"max_seq_length"})
    if unknown:
        raise invalid_input(f"this model takes no option but `max_seq_length`, got {unknown}")


def _nothing_but_pairs(
    query: str, documents: Sequence[str], options: Mapping[str, Any], instruction: str | None
) -> None:
    check_nothing_but_pairs(options, instruction)


# mixedbread-ai/mxbai-rerank-*-v2, as its library writes it; instructions are ignored.
_MXBAI = Prompt(
    before=lambda query, _: (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n",
        f"query: {query}",
        "\n",
    ),
    document=lambda document: f"document: {document}",
    after=lambda: (
        "\n",
        "You are a search relevance expert who evaluates how well documents match search queries. For each "
        "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
        "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:",
        ASSISTANT,
    ),
    check=_not_blank,
)

# Qwen/Qwen3-Reranker-*, as the model card writes it.
_QWEN3 = Prompt(
    before=lambda query, instruction: (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n',
        f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: ",
    ),
    document=lambda document: document,
    after=lambda: (f"{ASSISTANT}<think>\n\n</think>\n\n",),
    check=_not_blank,
    default_instruction="Given a web search query, retrieve relevant passages that answer the query",
)

# zeroentropy/zerank-2: the checkpoint's chat template with the query as system and the document as user.
_ZERANK = Prompt(
    before=lambda query, _: (f"<|im_start|>system\n{query}<|im_end|>\n<|im_start|>user\n",),
    document=lambda document: document,
    after=lambda: (ASSISTANT,),
    check=_nothing_but_pairs,
    truncates=False,
)

PROMPTS: dict[str, Prompt] = {"mxbai": _MXBAI, "qwen3": _QWEN3, "zerank": _ZERANK}
