"""LoRA adapters by request option: each set of weights is a model of its own, and a call may name another one's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sie_frontend.contract import errors
from sie_frontend.manifest import Model

# Adapters of SIE that load a LoRA when a call names one.
LORA_ADAPTERS = frozenset({"BGEM3Adapter", "BGEM3FlashAdapter", "PyTorchEmbeddingAdapter", "SGLangEmbeddingAdapter"})


def weights_of(model_id: str, models: Mapping[str, Model], options: Mapping[str, Any]) -> str:
    """The id whose weights a call wants: its own, or that of a profile of its bundle that was built with `lora_id`.

    Raises `WireError` (400) for an adapter that was not built in. It is final, so that no client tries again.
    """
    model, lora = models[model_id], options.get("lora_id") or None
    if lora == model.lora:
        return model_id
    if model.adapter not in LORA_ADAPTERS:
        raise errors.invalid_input(f"Model '{model_id}' does not support LoRA")
    for other, candidate in models.items():
        if _base(other) == _base(model_id) and (candidate.lora, candidate.adapter) == (lora, model.adapter):
            return other
    wanted = "the base model's weights are" if lora is None else f"{lora!r} is"
    raise errors.invalid_input(
        f"Model '{model_id}' does not support LoRA here: {wanted} not built in, and a graph has one set of weights; "
        "build a profile that names it in `lora_id`"
    )


def _base(model_id: str) -> str:
    return model_id.partition(":")[0]
