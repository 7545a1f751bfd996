"""The models of Fastembed's lists: in what the shipped bundles differ from Fastembed, and what is not shipped, and why.

Source: fastembed 0.9.1, the lists of its four classes for text. A test compares them with the fastembed that is
installed; whoever is told of a model that is missing here adds it to `LISTS`, and a bundle or a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sie_triton.bundle import Bundle

Aspect: TypeAlias = Literal[
    "queries", "passages", "length", "tokens", "query_tokens", "expansion", "punctuation", "scores"
]


@dataclass(frozen=True)
class Difference:
    """One thing that a shipped bundle does otherwise than Fastembed: which, and the sentence without its full stop."""

    aspect: Aspect
    says: str


@dataclass(frozen=True)
class Listed:
    """A model by Fastembed's name for it. `left_out` says why it is not shipped; empty where it is.

    `tried`: whether a checkpoint that is left out may be served all the same, so that whoever names it is not refused.
    """

    name: str
    differs: tuple[Difference, ...] = ()
    left_out: str = ""
    tried: Literal["never", "with code", "always"] = "never"


_QUERIES = Difference(
    "queries", "`is_query=True` applies the bundle's `query_template`; `query_embed` adds nothing to a query"
)
_PASSAGES = Difference(
    "passages", "Texts that are not queries get the bundle's `doc_template`; `embed` and `passage_embed` add nothing"
)
_LENGTH = Difference("length", "Vectors have length 1; Fastembed's are not normalised")
_LOGITS = Difference(
    "scores", "A sigmoid follows the logit unless the checkpoint says otherwise; Fastembed gives the logit"
)
_SIGMOID = Difference("scores", "A sigmoid follows the logit; Fastembed gives the logit")
_QUERY_32 = Difference("query_tokens", "Queries are cut at 32 tokens; Fastembed cuts them where it cuts documents")
_DOCUMENT_300 = Difference(
    "tokens", "Documents are cut at 300 tokens unless a request says `max_seq_length`; Fastembed cuts them at 512"
)
_NOT_EXPANDED = Difference("expansion", "Queries are as long as they are; Fastembed fills them up to 32 with `[MASK]`")
_PUNCTUATION = Difference(
    "punctuation",
    "Which tokens of a document are punctuation is read from the vocabulary; Fastembed tokenizes each sign alone and "
    "takes the first token",
)

_JINA_BERT = "JinaBERT (ALiBi, gated feed-forward layers) needs the authors' code; transformers does not have it"
_INT8 = "int8 weights, which are refused: their vectors depend on the batch"
_JINA_CLIP = "its architecture is in its authors' own code"
_TABLE = "a table of token vectors without a transformer"
_PICKLE = "the author's repository has the weights as a pickle and as ONNX, and neither is read"

LISTS: Mapping[str, tuple[Listed, ...]] = {
    "TextEmbedding": (
        Listed("BAAI/bge-base-en"),
        Listed("BAAI/bge-base-en-v1.5", (_QUERIES,)),
        Listed("BAAI/bge-large-en-v1.5", (_QUERIES,)),
        Listed("BAAI/bge-small-en"),
        Listed("BAAI/bge-small-en-v1.5", (_QUERIES,)),
        Listed("BAAI/bge-small-zh-v1.5", (_QUERIES,)),
        Listed("mixedbread-ai/mxbai-embed-large-v1", (_QUERIES,)),
        Listed("snowflake/snowflake-arctic-embed-xs"),
        Listed("snowflake/snowflake-arctic-embed-s", (_QUERIES,)),
        Listed("snowflake/snowflake-arctic-embed-m"),
        Listed("snowflake/snowflake-arctic-embed-m-long"),
        Listed("snowflake/snowflake-arctic-embed-l"),
        Listed("jinaai/jina-clip-v1", left_out=_JINA_CLIP),
        Listed("Qdrant/constella-zero", left_out=_TABLE),
        Listed(
            "Qdrant/stella-en-400M-v5-doc-onnx",
            left_out="an ONNX export; whether `NovaSearch/stella_en_400M_v5` gives the same vectors is not known to us",
        ),
        Listed(
            "Qdrant/clip-ViT-B-32-text",
            left_out="the text side of `openai/clip-vit-base-patch32`, whose bundle is shipped; `sie_triton_fastembed` "
            "knows this name for it",
        ),
        Listed(
            "google/siglip2-base-patch16-224",
            left_out="no bundle is needed: `sie-triton up -m google/siglip2-base-patch16-224` derives one",
            tried="always",
        ),
        Listed("sentence-transformers/all-MiniLM-L6-v2"),
        Listed("jinaai/jina-embeddings-v2-base-en", left_out=_JINA_BERT, tried="with code"),
        Listed("jinaai/jina-embeddings-v2-small-en", left_out=_JINA_BERT, tried="with code"),
        Listed("jinaai/jina-embeddings-v2-base-de", left_out=_JINA_BERT, tried="with code"),
        Listed("jinaai/jina-embeddings-v2-base-code", left_out=_JINA_BERT, tried="with code"),
        Listed("jinaai/jina-embeddings-v2-base-zh", left_out=_JINA_BERT, tried="with code"),
        Listed("jinaai/jina-embeddings-v2-base-es", left_out=_JINA_BERT, tried="with code"),
        Listed("thenlper/gte-base"),
        Listed("thenlper/gte-large"),
        Listed(
            "Qdrant/constella-nano",
            left_out="joins three of its transformer's layers, for which there is no recipe",
        ),
        Listed("nomic-ai/nomic-embed-text-v1.5", (_QUERIES, _PASSAGES, _LENGTH)),
        Listed("nomic-ai/nomic-embed-text-v1.5-Q", left_out=_INT8),
        Listed("nomic-ai/nomic-embed-text-v1"),
        Listed("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"),
        Listed("sentence-transformers/paraphrase-multilingual-mpnet-base-v2"),
        Listed("intfloat/multilingual-e5-large"),
        Listed(
            "jinaai/jina-embeddings-v3",
            left_out="an adapter (LoRA) for each task, chosen with a request; a graph has one set of weights",
        ),
        Listed("google/embeddinggemma-300m"),
        Listed("ibm-granite/granite-embedding-small-english-r2", (_LENGTH,)),
        Listed("Qwen/Qwen3-Embedding-0.6B", (_QUERIES,)),
        Listed("Qwen/Qwen3-Embedding-0.6B-Q", left_out=_INT8),
        Listed("minishlab/potion-base-8M", left_out=_TABLE),
        Listed("minishlab/potion-retrieval-32M", left_out=_TABLE),
        Listed("minishlab/potion-multilingual-128M", left_out=_TABLE),
    ),
    "SparseTextEmbedding": (
        Listed("prithivida/Splade_PP_en_v1", left_out=_PICKLE),
        Listed("prithvida/Splade_PP_en_v1", left_out=_PICKLE),
        Listed(
            "Qdrant/bm42-all-minilm-l6-v2-attentions",
            left_out="weighs words by a transformer's attention, for which there is no recipe",
        ),
        Listed("Qdrant/bm25", left_out="counts words instead of running a model"),
        Listed(
            "Qdrant/minicoil-v1", left_out="turns words into vectors of their own each, for which there is no recipe"
        ),
        Listed("opensearch-project/opensearch-neural-sparse-encoding-doc-v3-gte"),
    ),
    "LateInteractionTextEmbedding": (
        Listed("colbert-ir/colbertv2.0", (_QUERY_32, _DOCUMENT_300)),
        Listed("answerdotai/answerai-colbert-small-v1", (_QUERY_32, _NOT_EXPANDED)),
        Listed("jinaai/jina-colbert-v2", (_QUERY_32, _PUNCTUATION)),
        Listed(
            "lightonai/LateOn",
            left_out="whether its repository has weights that we read is not known to us; a bundle like that of "
            "`lightonai/mLateOn` would serve them",
            tried="always",
        ),
        Listed("lightonai/mLateOn"),
    ),
    "TextCrossEncoder": (
        Listed("Xenova/ms-marco-MiniLM-L-6-v2", (_LOGITS,)),
        Listed("Xenova/ms-marco-MiniLM-L-12-v2", (_LOGITS,)),
        Listed("BAAI/bge-reranker-base", (_LOGITS,)),
        Listed("BAAI/bge-reranker-v2-m3", (_LOGITS,)),
        Listed("BAAI/bge-reranker-v2-m3-int8", left_out=_INT8),
        Listed("jinaai/jina-reranker-v1-tiny-en", left_out=_JINA_BERT, tried="with code"),
        Listed("jinaai/jina-reranker-v1-turbo-en", left_out=_JINA_BERT, tried="with code"),
        Listed("jinaai/jina-reranker-v2-base-multilingual", (_SIGMOID,)),
    ),
}
"""By the class of Fastembed that has the list, in its order."""


def listed_models() -> Iterator[Listed]:
    """Every model of the lists, in their order."""
    for models in LISTS.values():
        yield from models


def bundle_of(name: str, bundles: Iterable[Bundle]) -> Bundle | None:
    """The bundle that serves a model of the lists: Fastembed knows names whatever their case."""
    return next((bundle for bundle in bundles if bundle.sie_id.casefold() == name.casefold()), None)
