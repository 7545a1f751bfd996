"""LoRA adapters by request option: refused, since a graph has one set of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sie_frontend.contract import errors
from sie_frontend.manifest import Model

# Adapters of SIE that load a LoRA when a call names one.
LORA_ADAPTERS = frozenset({"BGEM3Adapter", "BGEM3FlashAdapter", "PyTorchEmbeddingAdapter", "SGLangEmbeddingAdapter"})


def refuse_lora(model_id: str, model: Model, options: Mapping[str, Any]) -> None:
    """LoRA by option, or by a profile's: a graph has one set of weights. Final, so that no client tries again."""
    lora = options.get("lora_id")
    if lora is None or lora == "":
        return
    if model.adapter not in LORA_ADAPTERS:
        raise errors.invalid_input(f"Model '{model_id}' does not support LoRA")
    raise errors.invalid_input(
        f"Model '{model_id}' does not support LoRA here: it was built without {lora!r}, and a graph has one set of "
        "weights; merge the adapter into a checkpoint of its own and build that"
    )
