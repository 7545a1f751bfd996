"""What the factory knows of an architecture family, and what it hands out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ADAPTERS: Mapping[str, str] = {
    "BertFlashAdapter": "sie_server.adapters.bert_flash:BertFlashAdapter",
    "XLMRobertaFlashAdapter": "sie_server.adapters.xlm_roberta_flash:XLMRobertaFlashAdapter",
    "ModernBERTFlashAdapter": "sie_server.adapters.modernbert_flash:ModernBERTFlashAdapter",
    "NomicFlashAdapter": "sie_server.adapters.nomic_flash:NomicFlashAdapter",
    "RoPEFlashAdapter": "sie_server.adapters.rope_flash:RoPEFlashAdapter",
    "Qwen2FlashAdapter": "sie_server.adapters.qwen2_flash:Qwen2FlashAdapter",
    "SGLangEmbeddingAdapter": "sie_server.adapters.sglang.embedding:SGLangEmbeddingAdapter",
    "CandleEmbeddingAdapter": "sie_server_rust.adapters.candle:CandleEmbeddingAdapter",
    "PyTorchEmbeddingAdapter": "sie_server.adapters.pytorch_embedding:PyTorchEmbeddingAdapter",
    "SentenceTransformerDenseAdapter": "sie_server.adapters.sentence_transformer:SentenceTransformerDenseAdapter",
    "SentenceTransformerSparseAdapter": "sie_server.adapters.sentence_transformer:SentenceTransformerSparseAdapter",
    "SPLADEFlashAdapter": "sie_server.adapters.splade_flash.adapter:SPLADEFlashAdapter",
    "GTESparseFlashAdapter": "sie_server.adapters.gte_sparse_flash:GTESparseFlashAdapter",
    "BGEM3FlashAdapter": "sie_server.adapters.bge_m3_flash:BGEM3FlashAdapter",
    "ColBERTAdapter": "sie_server.adapters.colbert:ColBERTAdapter",
    "ColBERTModernBERTFlashAdapter": (
        "sie_server.adapters.colbert_modernbert_flash.adapter:ColBERTModernBERTFlashAdapter"
    ),
    "ColBERTRotaryFlashAdapter": "sie_server.adapters.colbert_rotary_flash:ColBERTRotaryFlashAdapter",
    "CrossEncoderAdapter": "sie_server.adapters.cross_encoder:CrossEncoderAdapter",
    "BertFlashCrossEncoderAdapter": "sie_server.adapters.bert_flash_cross_encoder:BertFlashCrossEncoderAdapter",
    "ModernBertFlashCrossEncoderAdapter": (
        "sie_server.adapters.modernbert_flash_cross_encoder:ModernBertFlashCrossEncoderAdapter"
    ),
    "JinaFlashCrossEncoderAdapter": "sie_server.adapters.jina_flash_cross_encoder:JinaFlashCrossEncoderAdapter",
    "Qwen2FlashCrossEncoderAdapter": (
        "sie_server.adapters.qwen2_flash_cross_encoder.adapter:Qwen2FlashCrossEncoderAdapter"
    ),
    "NativeCausalCrossEncoderAdapter": (
        "sie_server.adapters.native_causal_cross_encoder.adapter:NativeCausalCrossEncoderAdapter"
    ),
}


@dataclass(frozen=True)
class Family:
    """One architecture with one set of heads and files, and the bundle that serves it.

    `native` names the transformers class that loads the checkpoint as it lies; None means that the published layout
    belongs to the authors' own code. Then `twin` names the native class with the same arithmetic, where one exists
    (such a checkpoint is compiled without the authors' code), and `references` compute with that or with arithmetic of
    their own. `modelled_on` is the file of SIE's catalogue
    whose adapter and option keys the bundle has.
    """

    name: str
    adapter: str
    build: Callable[[Path], None]
    modelled_on: str
    encode: Mapping[str, int]
    """The declared output dims."""
    score: bool = False
    native: str | None = None
    twin: str | None = None
    max_length: int | None = 48
    loadtime: Mapping[str, Any] | None = None
    runtime: Mapping[str, Any] | None = None
    slug: str = ""
    has_reference: bool = True
    note: str = ""

    @property
    def sie_id(self) -> str:
        """The routable id."""
        return f"tiny/{self.slug or self.name.replace('_', '-')}"

    @property
    def remote_only(self) -> bool:
        """Whether only the authors' own code can build the model: transformers has no class of this arithmetic."""
        return self.native is None and self.twin is None

    def bundle(self, checkpoint: Path) -> str:
        """The YAML text of the bundle whose weights are the folder `checkpoint`."""
        tasks: dict[str, Any] = {
            "encode": {
                output: {"dim": self.encode[output]} if output in self.encode else None
                for output in ("dense", "sparse", "multivector")
            }
            if self.encode
            else None,
            "score": {} if self.score else None,
            "extract": None,
        }
        profile = {
            "max_batch_tokens": 16384,
            "compute_precision": None,
            "adapter_path": ADAPTERS.get(self.adapter, self.adapter),
            "adapter_options": {"loadtime": dict(self.loadtime or {}), "runtime": dict(self.runtime or {})},
        }
        document = {
            "sie_id": self.sie_id,
            "weights_path": str(checkpoint),
            "inputs": {"text": True, "image": False, "audio": False, "video": False},
            "tasks": tasks,
            "max_sequence_length": self.max_length,
            "profiles": {"default": profile},
        }
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


@dataclass(frozen=True)
class MadeCheckpoint:
    """A family on disk: the checkpoint's folder and the bundle that points to it."""

    folder: Path
    bundle_path: Path
    sie_id: str
