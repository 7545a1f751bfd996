"""Between a transformer and its outputs: poolings, unit length, and the layers that a checkpoint keeps in files.

Shapes are batch first. Which positions are padding the mask says, and nothing else: rows may be padded on either side.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from sie_triton.checkpoint import load_tensors
from sie_triton.facts import DenseLayer, Layer, LayerNormLayer, NormalizeLayer

# torch.nn.functional.normalize's own epsilon; SIE and sentence-transformers use the same.
NORMALIZE_EPS = 1e-12
# What sentence-transformers divides by where no token is attended to.
POOLING_EPS = 1e-9


def pool(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Token embeddings `[batch, sequence, hidden]` to `[batch, hidden]`; special tokens count in the mean."""
    if pooling == "cls":
        return first_state(states, mask)
    if pooling == "last_token":
        return last_state(states, mask)
    weights = mask.unsqueeze(-1).to(states.dtype)
    if pooling == "max":
        best: Tensor = torch.where(weights > 0, states, torch.finfo(states.dtype).min).amax(1)
        return best
    if pooling == "weightedmean":
        # The first attended token weighs one, the next two, wherever the padding is.
        weights = weights * weights.cumsum(1)
    count = weights.sum(1).clamp(min=POOLING_EPS)
    mean: Tensor = (states * weights).sum(1) / (count.sqrt() if pooling == "mean_sqrt_len" else count)
    return mean


def last_state(states: Tensor, mask: Tensor) -> Tensor:
    """The states of each row's last attended token, `[batch, hidden]`; the first position's if there is none."""
    places = torch.arange(mask.shape[1], device=mask.device)
    return _states_at(states, places.masked_fill(mask == 0, 0).amax(1))


def first_state(states: Tensor, mask: Tensor) -> Tensor:
    """The states of each row's first attended token, `[batch, hidden]`; the last position's if there is none."""
    from_the_end = torch.arange(mask.shape[1] - 1, -1, -1, device=mask.device)
    return _states_at(states, mask.shape[1] - 1 - from_the_end.masked_fill(mask == 0, 0).amax(1))


def _states_at(states: Tensor, places: Tensor) -> Tensor:
    """One position of each row; `places` `[batch]`."""
    index = places.view(-1, 1, 1).expand(-1, 1, states.shape[-1])
    return states.gather(1, index).squeeze(1)


def normalized(vectors: Tensor) -> Tensor:
    """L2 over the last axis; a zero vector stays zero."""
    unit: Tensor = vectors / vectors.norm(p=2, dim=-1, keepdim=True).clamp(min=NORMALIZE_EPS)
    return unit


class Residual(nn.Module):
    """A PyLate `Dense` layer whose input is added to its output."""

    def __init__(self, layer: nn.Module, features: tuple[int, int]) -> None:
        super().__init__()
        self.layer = layer
        self.residual: nn.Module = nn.Identity() if features[0] == features[1] else nn.Linear(*features, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """Layer plus way round."""
        total: Tensor = self.layer(vectors) + self.residual(vectors)
        return total


class Normalized(nn.Module):
    """A `Normalize` module: unit length over the last axis."""

    def forward(self, vectors: Tensor) -> Tensor:
        """Each vector by its length."""
        return normalized(vectors)


def activation_module(name: str) -> nn.Module:
    """An activation of `torch.nn` by the name of its class."""
    made: nn.Module = getattr(nn, name)()
    return made


def load_layer(folder: Path, layer: Layer) -> nn.Module:
    """A layer of a sentence-transformers or PyLate pipeline, with its weights."""
    match layer:
        case DenseLayer():
            return _dense_layer(folder, layer)
        case LayerNormLayer():
            norm = nn.LayerNorm(layer.features)
            norm.load_state_dict(
                {key.removeprefix("norm."): value.float() for key, value in _tensors(folder / layer.folder).items()}
            )
            return norm
        case NormalizeLayer():
            return Normalized()


def _tensors(folder: Path) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in load_tensors(folder / "model.safetensors").items()}


def _dense_layer(folder: Path, layer: DenseLayer) -> nn.Module:
    """`linear.weight`, `linear.bias`, `residual.weight`."""
    tensors = _tensors(folder / layer.folder)
    linear = linear_layer(tensors["linear.weight"], tensors.get("linear.bias"))
    dense: nn.Module = nn.Sequential(linear, activation_module(layer.activation))
    if not layer.residual:
        return dense
    around = Residual(dense, (layer.in_features, layer.out_features))
    if "residual.weight" in tensors:
        around.residual = linear_layer(tensors["residual.weight"], None)
    return around


def linear_layer(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer of given tensors, `weight` `[out, in]` and `bias` `[out]`, in float32."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.load_state_dict({"weight": weight.float(), **({} if bias is None else {"bias": bias.float()})})
    return linear


def load_linear_file(folder: Path, name: str) -> nn.Linear:
    """A head in a file of its own, `name.safetensors` or `name.pt`, with `weight` and `bias`."""
    path = next(p for p in (folder / f"{name}.safetensors", folder / f"{name}.pt") if p.is_file())
    tensors = {key: torch.from_numpy(value) for key, value in load_tensors(path).items()}
    return linear_layer(tensors["weight"], tensors.get("bias"))
