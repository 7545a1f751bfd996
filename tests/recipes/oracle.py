"""What SIE answers for a bundle: its options read and resolved here, then `references` for the arithmetic.

Only the `default` profile is read. Sources: `wire-contract.md` sections 3.3, 3.4, 5 and 7.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import references
from .bodies import read_json
from .references import ColbertOptions, Sparse, Vector

_FLASH = {
    "BertFlashAdapter": "mean",
    "XLMRobertaFlashAdapter": "mean",
    "ModernBERTFlashAdapter": "cls",
    "NomicFlashAdapter": "mean",
    "RoPEFlashAdapter": "cls",
}
"""Dense adapters that know `cls` and take every other pooling for the mean, with their defaults."""
_LAST = {"last": "last", "last_token": "last", "cls": "cls", "mean": "mean"}
_COLBERT = ("ColBERTAdapter", "ColBERTModernBERTFlashAdapter", "ColBERTRotaryFlashAdapter")


@dataclass(frozen=True)
class Expected:
    """The outputs of one item, those that the model has."""

    dense: Vector | None = None
    sparse: Sparse | None = None
    multivector: Vector | None = None


class Oracle:
    """The reference of one bundle, asked as a client asks."""

    def __init__(self, bundle_path: Path) -> None:
        document = yaml.safe_load(bundle_path.read_text(encoding="utf-8"))
        profile = document["profiles"]["default"]
        options = profile.get("adapter_options") or {}
        self.folder = Path(document["weights_path"])
        self.adapter = str(profile["adapter_path"]).rpartition(":")[2]
        self.loadtime: Mapping[str, Any] = options.get("loadtime") or {}
        self.runtime: Mapping[str, Any] = options.get("runtime") or {}
        self.max_length: int | None = self.loadtime.get("max_seq_length") or document.get("max_sequence_length")

    def encode(
        self,
        texts: Sequence[str],
        *,
        is_query: bool = False,
        instruction: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> list[Expected]:
        """Every output that the bundle's adapter gives, per text; `options` are the request's, without `is_query`."""
        merged = {**self.runtime, **(options or {})}
        instruction = merged.get("instruction") if instruction is None else instruction
        return [self._encode(text, merged, instruction, is_query=is_query) for text in texts]

    def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        instruction: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> list[float]:
        """One score per document, in the order of the documents."""
        merged = {**self.runtime, **(options or {})}
        instruction = merged.get("instruction") if instruction is None else instruction
        return [self._score(query, document, merged, instruction) for document in documents]

    def _encode(self, text: str, options: Mapping[str, Any], instruction: str | None, *, is_query: bool) -> Expected:
        if self.adapter == "SentenceTransformerDenseAdapter":
            return Expected(dense=self._sentence_transformer(text, options, instruction, is_query=is_query))
        if self.adapter == "SentenceTransformerSparseAdapter":
            return Expected(
                sparse=references.splade(self.folder, (instruction or "") + text, max_length=self.max_length)
            )
        if self.adapter in ("SPLADEFlashAdapter", "GTESparseFlashAdapter"):
            return Expected(
                sparse=self._sparse(self._templated(text, options, instruction, is_query), options, is_query)
            )
        if self.adapter == "BGEM3FlashAdapter":
            found = self._bge_m3(_prefixed(text, instruction), options)
            return Expected(found.dense, found.sparse, found.multivector)
        if self.adapter in _COLBERT:
            return Expected(multivector=self._colbert(_prefixed(text, instruction), options, is_query=is_query))
        return Expected(dense=self._dense(text, options, instruction, is_query=is_query))

    def _templated(self, text: str, options: Mapping[str, Any], instruction: str | None, is_query: bool) -> str:
        if instruction is None and is_query:
            instruction = options.get("default_instruction")
        template = options.get("query_template" if is_query else "doc_template")
        if template:
            return str(template).format(text=text, instruction=instruction or "")
        return _prefixed(text, instruction)

    def _dense(self, text: str, options: Mapping[str, Any], instruction: str | None, *, is_query: bool) -> Vector:
        normalize = options.get("normalize", True) is not False
        pooling = options.get("pooling")
        bidirectional, projection = False, None
        if self.adapter in _FLASH:
            how = _FLASH[self.adapter] if pooling is None else "cls" if pooling == "cls" else "mean"
        elif self.adapter == "Qwen2FlashAdapter":
            how = {"cls": "cls", "last": "last"}.get(str(pooling), "mean")
            bidirectional = not self.loadtime.get("causal")
            projection = self.loadtime.get("dense_projection_path")
        elif self.adapter == "PyTorchEmbeddingAdapter":
            how = {"cls": "cls", "mean": "mean"}.get(str(pooling), "last")
            bidirectional = (self.loadtime.get("forward_kwargs") or {}).get("is_causal") is False
            # Here an empty instruction falls through to the default, for queries and documents.
            if options.get("query_template" if is_query else "doc_template"):
                instruction = instruction or options.get("default_instruction")
        elif self.adapter == "SGLangEmbeddingAdapter":
            how = "last"
        else:
            how = _LAST[str(pooling)]
        prepared = self._templated(text, options, instruction, is_query)
        if self.loadtime.get("append_eos"):
            prepared += str(read_json(self.folder / "tokenizer_config.json")["eos_token"])
        vector = references.dense(
            self.folder,
            prepared,
            pooling=how,
            normalize=normalize,
            max_length=self.max_length,
            bidirectional=bidirectional,
            projection=projection,
        )
        return vector * 0 if self.adapter == "SGLangEmbeddingAdapter" and not text.strip() else vector

    def _sentence_transformer(
        self, text: str, options: Mapping[str, Any], instruction: str | None, *, is_query: bool
    ) -> Vector:
        settings = read_json(self.folder / "config_sentence_transformers.json") or {}
        prompts = {"query": "", "document": "", **(settings.get("prompts") or {})}
        template = options.get("query_template" if is_query else "doc_template")
        if template:
            instruction = options.get("default_instruction") if instruction is None else instruction
            text = str(template).format(text=text, instruction=instruction or "")
            prompt = prompts.get(settings.get("default_prompt_name") or "", "")
        else:
            prompt = prompts["query" if is_query else "document"]
        return references.sentence_transformer(
            self.folder, text, prompt=prompt, normalize=bool(options.get("normalize", True)), max_length=self.max_length
        )

    def _sparse(self, text: str, options: Mapping[str, Any], is_query: bool) -> Sparse:
        gte = self.adapter == "GTESparseFlashAdapter"
        limit = self.max_length
        asked = options.get("max_seq_length")
        if not gte and isinstance(asked, int) and asked > 0:
            limit = min(asked, limit or asked)
        table = references.read_query_table(self.folder) if is_query else None
        if table is not None:
            return references.table_query(self.folder, text, table, max_length=limit, without_specials=gte)
        double = gte and "v3" in str(self.folder)
        return references.splade(self.folder, text, max_length=limit, double_log=double, without_specials=gte)

    def _bge_m3(self, text: str, options: Mapping[str, Any]) -> references.BgeM3:
        normalize = options.get("normalize", True) is not False
        return references.bge_m3(self.folder, text, normalize=normalize, max_length=self.max_length)

    def _colbert(self, text: str, options: Mapping[str, Any], *, is_query: bool) -> Vector:
        loaded, inserts = self.loadtime, self.adapter != "ColBERTModernBERTFlashAdapter"
        ceiling = references.token_limit(self.folder, self.max_length)
        found = ColbertOptions(
            token_dim=loaded["token_dim"],
            query_length=_least(options.get("query_max_length") or loaded.get("query_max_length") or 32, ceiling),
            document_length=_least(options.get("max_seq_length") or loaded.get("doc_max_length"), ceiling),
            query_prefix=loaded.get("query_prefix") or "",
            doc_prefix=loaded.get("doc_prefix") or "",
            query_expansion=inserts and bool(loaded.get("query_expansion", True)),
            expansion_attended=self.adapter == "ColBERTRotaryFlashAdapter",
            inserts_markers=inserts,
            skip_special_tokens=bool(loaded.get("skip_special_tokens", True)),
            punctuation_skiplist=bool(loaded.get("doc_punctuation_skiplist", self.adapter == "ColBERTAdapter")),
            normalize=bool(loaded.get("normalize", True)),
        )
        return references.colbert(self.folder, text, is_query=is_query, options=found)

    def _score(self, query: str, document: str, options: Mapping[str, Any], instruction: str | None) -> float:
        limit = self.max_length
        if self.adapter == "BGEM3FlashAdapter":
            # A score compares directions, and the instruction stands before both sides.
            first, second = (self._bge_m3(_prefixed(text, instruction), {}) for text in (query, document))
            mode, weights = options.get("score_mode") or "dense", options.get("score_weights")
            return references.bge_m3_score(first, second, mode=mode, weights=weights)
        if self.adapter in _COLBERT:
            rows = self._colbert(_prefixed(query, instruction), options, is_query=True)
            return references.maxsim(rows, self._colbert(document, options, is_query=False))
        if self.adapter == "Qwen2FlashCrossEncoderAdapter":
            loaded = self.loadtime
            return references.causal_reranker(
                self.folder,
                query,
                document,
                prompt=loaded.get("input_format", "mxbai"),
                tokens=(loaded.get("yes_token", "1"), loaded.get("no_token", "0")),
                probability=loaded.get("score_mode", "logit_diff") == "log_softmax",
                instruction=instruction or loaded.get("default_instruction"),
                max_length=limit,
            )
        if self.adapter == "NativeCausalCrossEncoderAdapter":
            return references.zerank(self.folder, query, document, max_length=limit)
        asked = options.get("max_seq_length")
        if self.adapter != "CrossEncoderAdapter" and isinstance(asked, int) and asked > 0:
            limit = min(asked, limit or asked)
        sigmoid = (
            True if self.adapter in ("ModernBertFlashCrossEncoderAdapter", "JinaFlashCrossEncoderAdapter") else None
        )
        return references.cross_encoder(
            self.folder, _prefixed(query, instruction), document, max_length=limit, sigmoid=sigmoid
        )


def _prefixed(text: str, instruction: str | None) -> str:
    return f"{instruction} {text}" if instruction else text


def _least(*values: int | None) -> int | None:
    return min((value for value in values if value is not None), default=None)
