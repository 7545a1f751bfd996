"""`python -m official.rerank_driver URL NAMES…`: rank the texts with the clients of these names, as their users would.

Prints JSON: by client, what it returned as `[[index, score], …]`, or `{"raised": kind, "message": text}`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from .calls import CROSS_ENCODER, QUERY, TEXTS

Ranking = list[tuple[int, float]]
Calls = dict[str, Callable[[], Ranking]]
MISSPELT = "tiny/cross-encoder-bert-identty"
OBJECTS = [{"title": text, "text": "unread"} for text in TEXTS]


def _module(name: str) -> Any:
    """A package that only the environment which runs this file has."""
    return importlib.import_module(name)


def _pairs(results: Any) -> Ranking:
    if results and isinstance(results[0], dict):
        return [(result["index"], result["relevance_score"]) for result in results]
    return [(result.index, result.relevance_score) for result in results]


def _cohere(url: str) -> Calls:
    cohere = _module("cohere")
    first = cohere.Client("unused", base_url=url)
    second = cohere.ClientV2("unused", base_url=url)
    asked = {"model": CROSS_ENCODER, "query": QUERY, "documents": list(TEXTS)}

    def with_documents() -> Ranking:
        results = first.rerank(**asked, top_n=2, return_documents=True).results
        assert [result.document.text for result in results] == [TEXTS[result.index] for result in results]
        return _pairs(results)

    return {
        "v1": lambda: _pairs(first.rerank(**asked).results),
        "v1 documents": with_documents,
        "v1 fields": lambda: _pairs(
            first.rerank(**{**asked, "documents": OBJECTS}, rank_fields=["title"], max_chunks_per_doc=10).results
        ),
        "v2": lambda: _pairs(second.rerank(**asked).results),
        "v2 top": lambda: _pairs(second.rerank(**asked, top_n=2, max_tokens_per_doc=4096).results),
        "v1 unknown": lambda: _pairs(first.rerank(**{**asked, "model": MISSPELT}).results),
        "v2 unknown": lambda: _pairs(second.rerank(**{**asked, "model": MISSPELT}).results),
    }


def _litellm(url: str) -> Calls:
    litellm = _module("litellm")

    def rank(provider: str, base: str, **keywords: Any) -> Ranking:
        asked = {"model": f"{provider}/{CROSS_ENCODER}", "query": QUERY, "documents": list(TEXTS), "api_base": base}
        return _pairs(litellm.rerank(**{**asked, **keywords}, api_key="unused").results)

    return {
        "cohere": lambda: rank("cohere", url),
        "cohere chunks": lambda: rank("cohere", url, max_chunks_per_doc=3),
        "cohere fields": lambda: rank("cohere", url, documents=OBJECTS, rank_fields=["title"]),
        "jina_ai": lambda: rank("jina_ai", url),
        "jina_ai top": lambda: rank("jina_ai", url, top_n=2),
        "hosted_vllm": lambda: rank("hosted_vllm", f"{url}/v1"),
        "cohere unknown": lambda: rank("cohere", url, model=f"cohere/{MISSPELT}"),
    }


def _langchain(url: str) -> Calls:
    documents = [_module("langchain_core.documents").Document(page_content=text) for text in TEXTS]
    cohere = _module("langchain_cohere").CohereRerank(
        base_url=url, cohere_api_key="unused", model=CROSS_ENCODER, top_n=len(TEXTS)
    )
    jina_module = _module("langchain_community.document_compressors.jina_rerank")
    jina_module.JINA_API_URL = f"{url}/v1/rerank"  # it has no setting for it
    jina = jina_module.JinaRerank(jina_api_key="unused", model=CROSS_ENCODER, top_n=2)

    def compressed() -> Ranking:
        found = cohere.compress_documents(documents, QUERY)
        return [(TEXTS.index(document.page_content), document.metadata["relevance_score"]) for document in found]

    return {
        "cohere": lambda: _pairs(cohere.rerank(documents, QUERY)),
        "cohere compressor": compressed,
        "jina top": lambda: _pairs(jina.rerank(documents, QUERY)),
        "jina": lambda: _pairs(jina.rerank(documents, QUERY, top_n=None)),
    }


CLIENTS: dict[str, Callable[[str], Calls]] = {"cohere": _cohere, "litellm": _litellm, "langchain": _langchain}


def _outcome(call: Callable[[], Ranking]) -> Any:
    try:
        return call()
    except Exception as error:  # the clients' errors have no common kind, and which one came is what is told
        return {"raised": type(error).__name__, "message": str(error)}


def main(url: str, names: list[str]) -> None:
    """Print the outcome of each call by client and name."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # nothing is fetched from elsewhere
    with contextlib.redirect_stdout(sys.stderr):  # LiteLLM prints advice when it raises
        outcomes = {f"{name} {call}": _outcome(run) for name in names for call, run in CLIENTS[name](url).items()}
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
