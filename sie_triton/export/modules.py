"""The torch modules that are traced: the encoder's thin wrapper and the heads. Shapes are batch first, right-padded."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from sie_triton.facts import DenseLayer
from sie_triton.plan import DensePooling, Encoder, Module

# torch.nn.functional.normalize's own epsilon; SIE and sentence-transformers use the same.
NORMALIZE_EPS = 1e-12
ACTIVATIONS: dict[str, type[nn.Module]] = {"Identity": nn.Identity, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU}


class EncoderModule(nn.Module):
    """`input_ids`, `attention_mask` `[batch, sequence]` -> `last_hidden_state` `[batch, sequence, hidden]`."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Run the transformer body."""
        states: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return states


def pool(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Token embeddings `[batch, sequence, hidden]` to `[batch, hidden]`; special tokens count in the mean."""
    if pooling == "cls":
        return states[:, 0]
    if pooling == "mean":
        weights = mask.unsqueeze(-1).to(states.dtype)
        return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
    last = (mask.sum(1) - 1).clamp(min=0)
    index = last.view(-1, 1, 1).expand(-1, 1, states.shape[-1])
    return states.gather(1, index).squeeze(1)


class DenseModule(nn.Module):
    """`last_hidden_state`, `attention_mask` -> per pooling (normalised, as pooled), each `[batch, dim]`."""

    def __init__(self, poolings: tuple[str, ...], layers: list[nn.Module]) -> None:
        super().__init__()
        self.poolings = poolings
        self.layers = nn.Sequential(*layers)

    def forward(self, last_hidden_state: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Pool, project, normalise."""
        outputs: list[Tensor] = []
        for pooling in self.poolings:
            vector = self.layers(pool(last_hidden_state, attention_mask, pooling))
            norm = vector.norm(p=2, dim=-1, keepdim=True).clamp(min=NORMALIZE_EPS)
            # Two outputs must not be one tensor: the product keeps both names in the graph.
            outputs += [vector / norm, vector * 1.0]
        return tuple(outputs)


def load_encoder(folder: Path, *, trust_remote_code: bool) -> PreTrainedModel:
    """The checkpoint's `AutoModel` in float32 with an attention that adds a finite mask.

    `eager` attention masks with the type's minimum, so that a fully padded row gives numbers and not NaN.
    """
    model = AutoModel.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=trust_remote_code,
    )
    return model.eval()


def load_dense_layer(folder: Path, layer: DenseLayer) -> nn.Module:
    """A sentence-transformers `Dense` module with its weights; the keys are `linear.weight` and `linear.bias`."""
    from safetensors.torch import load_file

    linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias)
    tensors = load_file(folder / layer.folder / "model.safetensors")
    linear.load_state_dict({key.removeprefix("linear."): value.float() for key, value in tensors.items()})
    return nn.Sequential(linear, ACTIVATIONS[layer.activation]())


def build_module(module: Module, folder: Path, encoder: PreTrainedModel) -> nn.Module:
    """The torch module of a planned graph."""
    if isinstance(module, Encoder):
        return EncoderModule(encoder).eval()
    if isinstance(module, DensePooling):
        return DenseModule(module.poolings, [load_dense_layer(folder, layer) for layer in module.layers]).eval()
    raise AssertionError(f"no torch module for {module!r}")
