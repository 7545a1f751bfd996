"""Rerankers that are language models, as sentence-transformers itself saves them: prompts, answers, functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from recipes.made import made
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules import LogitScore

# The layout in which such rerankers are published: an instruction as the system message, then the pair.
TEMPLATE = """<|im_start|>system
Judge whether the Document answers the Query.<|im_end|>
<|im_start|>user
<Instruct>: {{ messages | selectattr("role", "eq", "system") | map(attribute="content") | first | default("Find it.") }}
<Query>: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}
<Document>: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}<|im_end|>
{% if add_generation_prompt %}
<|im_start|>assistant
<think>

</think>

{% endif %}"""
# Each message's content is a list of parts; the document's role is looked for in a loop.
STRUCTURED = """{% for message in messages %}{% if message['role'] == 'query' -%}
query: {{ message.content[0].text }}{{ eos_token }}
{% elif message['role'] == 'document' -%}
document: {{ message.content[0].text }}
{% endif %}{% endfor %}Relevance:"""
_BEGIN = {"chat_template": {"add_generation_prompt": True}}


def save(
    folder: Path,
    template: str | None = TEMPLATE,
    *,
    family: str = "causal_qwen3",
    answers: tuple[str, ...] = ("yes", "no"),
    processing: Mapping[str, Any] = _BEGIN,
    transformer: Mapping[str, Any] | None = None,
    score: Mapping[str, Any] | None = None,
    limit: int = 512,
    **options: Any,
) -> None:
    """`answers` are one token or two; `transformer`, `score` and `options` go to the three classes.

    A pair has at most `limit` tokens: at twice as many, a build compares four times as long.
    """
    processor = {} if template is None else {"processor_kwargs": {"chat_template": template}}
    source = str(made(family).folder)
    body = Transformer(
        source,
        transformer_task="text-generation",
        processing_kwargs=dict(processing),
        **processor,
        **(transformer or {}),
    )
    body.tokenizer.model_max_length = limit
    ids = [int(body.tokenizer.convert_tokens_to_ids(token)) for token in answers]
    modules = [body, LogitScore(*ids, **(score or {}))]
    CrossEncoder(modules=modules, device="cpu", **options).save_pretrained(str(folder))


def probability(folder: Path) -> None:
    save(folder, activation_fn=torch.nn.Sigmoid())


def difference(folder: Path, limit: int = 512) -> None:
    """Other answers, an instruction of the checkpoint's own, and a limit of its own."""
    prompts = {"web": "Given a search query, find passages.", "code": "Find code."}
    save(
        folder,
        answers=("1", "0"),
        activation_fn=torch.nn.Identity(),
        prompts=prompts,
        default_prompt_name="web",
        limit=limit,
    )


def one_logit(folder: Path) -> None:
    save(folder, answers=("yes",), activation_fn=torch.nn.Identity(), family="causal_qwen2_tied", processing={})


def structured(folder: Path) -> None:
    save(folder, STRUCTURED, family="causal_qwen2_untied", answers=("1", "0"), activation_fn=torch.nn.Identity())


SAVED: Mapping[str, Callable[[Path], None]] = {
    "probability": probability,
    "difference": difference,
    "one-logit": one_logit,
    "structured": structured,
}
