"""A checkpoint's own model: loaded as it is, and its transformer body as a graph."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)

from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.formats import Precision
from sie_triton.planning.modules import ModelClass

# A score beside the type's minimum would overflow to -inf in float16, and a row of nothing but -inf (padding whose
# window holds only padding) becomes NaN: half of the minimum masks as well and leaves room.
MASK_SHARE = 0.5
CLASSES: dict[ModelClass, Any] = {
    "base": AutoModel,
    "masked_lm": AutoModelForMaskedLM,
    "sequence_classification": AutoModelForSequenceClassification,
    "causal_lm": AutoModelForCausalLM,
}

DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def load_model(
    folder: Path,
    model_class: ModelClass,
    *,
    attention: str | None,
    trust_remote_code: bool,
    precision: Precision = "float32",
) -> PreTrainedModel:
    """The checkpoint in `precision`, from safetensors. `attention` None is transformers' own choice.

    transformers itself keeps in float32 what an architecture cannot do with less (rotary frequencies, for one).

    Raises `DiagnosticError` if transformers cannot build it or the checkpoint lacks weights that decide the outputs.
    """
    options = {
        "dtype": DTYPES[precision],
        "use_safetensors": True,
        "local_files_only": True,
        "trust_remote_code": trust_remote_code,
        "output_loading_info": True,
        # Reported below instead of raised: transformers' own message points to a log that nobody sees.
        "ignore_mismatched_sizes": True,
        **({"attn_implementation": attention} if attention else {}),
    }
    try:
        model, report = CLASSES[model_class].from_pretrained(folder, **options)
    except Exception as error:  # transformers raises whatever its many loaders raise
        raise DiagnosticError(
            [
                Diagnostic(
                    "SIE403",
                    f"transformers cannot load the checkpoint: {str(error).strip().splitlines()[0]}",
                    Where(folder),
                    "if its architecture lives in the checkpoint's own code, allow it with `--trust-remote-code`",
                )
            ]
        ) from error
    if report["mismatched_keys"]:
        raise DiagnosticError([_wrong_sizes(folder, report["mismatched_keys"], model.config.num_labels)])
    # Poolers are not part of any output here; whatever else is missing would be random numbers.
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key or model_class != "base")
    if missing:
        shown = ", ".join(f"`{key}`" for key in missing[:5])
        raise DiagnosticError(
            [
                Diagnostic(
                    "SIE404",
                    f"the checkpoint has no weights for {shown}{' and more' if len(missing) > 5 else ''}",
                    Where(folder),
                    "they would be random; use a checkpoint that was trained for this task",
                )
            ]
        )
    model.eval()
    model.config.use_cache = False
    loaded: PreTrainedModel = model
    return loaded


def _wrong_sizes(
    folder: Path, mismatched: Iterable[tuple[str, Sequence[int], Sequence[int]]], labels: int
) -> Diagnostic:
    """Tensors that the configuration gives other sizes than the weights have, each as (name, stored, configured)."""
    found = sorted((name, tuple(stored), tuple(configured)) for name, stored, configured in mismatched)
    name, stored, configured = found[0]
    where = Where(folder / "config.json")
    # A head has a row for each label, in its weight and in its bias.
    if all(theirs[0] == labels != ours[0] and theirs[1:] == ours[1:] for _, ours, theirs in found):
        rows = f"{stored[0]} {'row' if stored[0] == 1 else 'rows'}"
        message = f"the head `{name}` has {rows}, and the configuration says {labels} labels"
        names = {str(number): f"LABEL_{number}" for number in range(stored[0])}
        hint = f'without `id2label` transformers takes 2: write `"id2label": {json.dumps(names)}`'
        return Diagnostic("SIE338", message, where, hint)
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    message = f"`{name}` is {list(stored)} in the weights and {list(configured)} by the configuration{more}"
    return Diagnostic("SIE338", message, where, "use the `config.json` that belongs to these weights")


def body(model: PreTrainedModel) -> nn.Module:
    """The transformer body inside a model with a head; the model itself if it has none."""
    inner: nn.Module = getattr(model, model.base_model_prefix, model) if model.base_model_prefix else model
    return inner


def both_sides(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask `[batch, sequence]` as additive `[batch, 1, sequence, sequence]`: nobody attends to padding.

    transformers takes a four-dimensional mask as it is, which is how a decoder is told to look ahead.
    """
    blocked = (1 - mask[:, None, None, :]).to(dtype) * (torch.finfo(dtype).min * MASK_SHARE)
    return blocked.expand(-1, 1, mask.shape[1], -1)


class EncoderModule(nn.Module):
    """`input_ids`, `attention_mask`(, `token_type_ids`) `[batch, sequence]` -> `last_hidden_state`, float32.

    What the body computes in stays inside: pooling and normalising in float16 would overflow, and a signature that
    depends on the precision would make an ensemble depend on it too.
    """

    def __init__(self, model: nn.Module, *, bidirectional: bool, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.model = model
        self.bidirectional = bidirectional
        self.dtype = dtype

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Run the transformer body."""
        mask = both_sides(attention_mask, self.dtype) if self.bidirectional else attention_mask
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states: Tensor = self.model(input_ids=input_ids, attention_mask=mask, **types).last_hidden_state
        return states.float()
