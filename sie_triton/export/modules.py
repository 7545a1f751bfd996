"""A planned graph as the torch module that is traced."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sie_triton.export.encoder import DTYPES, EncoderModule, body
from sie_triton.export.heads import TokenId, build_head
from sie_triton.formats import Precision
from sie_triton.planning.modules import Encoder
from sie_triton.planning.plan import Fused, Module


class FusedModule(nn.Module):
    """Encoder and heads in one: the encoder's inputs -> every head's outputs, in order."""

    def __init__(self, encoder: nn.Module, heads: list[nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleList(heads)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Hidden states once, then each head on them."""
        states = self.encoder(input_ids, attention_mask, token_type_ids)
        outputs: list[Tensor] = []
        for head in self.heads:
            found = head(states, attention_mask)
            outputs += found if isinstance(found, tuple) else (found,)
        return tuple(outputs)


def build_module(
    module: Module, folder: Path, model: PreTrainedModel, token_id: TokenId, precision: Precision = "float32"
) -> nn.Module:
    """The torch module of a planned graph. `model` is consumed: a head takes its body away, so encoders come first.

    `precision` is the model's; the small heads beside it are float32 always.
    """
    dtype = DTYPES[precision]
    built: nn.Module
    if isinstance(module, Encoder):
        built = _encoder(module, model, dtype)
    elif isinstance(module, Fused):
        encoder = _encoder(module.encoder, model, dtype)
        built = FusedModule(encoder, [build_head(head, folder, model, token_id, dtype) for head in module.heads])
    else:
        built = build_head(module, folder, model, token_id, dtype)
    return built.eval()


def _encoder(encoder: Encoder, model: PreTrainedModel, dtype: torch.dtype) -> EncoderModule:
    return EncoderModule(body(model), bidirectional=encoder.bidirectional, dtype=dtype)
