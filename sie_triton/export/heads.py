"""The torch modules of the heads, which are traced: a transformer's states in, outputs out. Shapes are batch first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from sie_triton.checkpoint import load_tensors, weight_paths
from sie_triton.export.encoder import body
from sie_triton.export.layers import (
    activation_module,
    first_state,
    last_state,
    linear_layer,
    load_layer,
    load_linear_file,
    normalized,
    pool,
)
from sie_triton.planning.families import (
    Classifier,
    DensePooling,
    HeadModule,
    LastTokenLogits,
    PageVectors,
    ProjectedImage,
    ProjectedText,
    SparseMax,
    TokenVectors,
    TokenWeights,
)

TokenId = Callable[[str], int]
"""The one id of a token, by its spelling."""


class PassThrough(nn.Module):
    """Stands where the transformer body was and hands on the states it is given as `inputs_embeds`."""

    def __init__(self, replaced: nn.Module) -> None:
        super().__init__()
        pooler = getattr(replaced, "pooler", None)
        self.pooler = pooler if isinstance(pooler, nn.Module) else None

    def forward(self, *_: object, inputs_embeds: Tensor, **__: object) -> BaseModelOutputWithPooling:
        """The states, pooled too where the body pools."""
        pooled = self.pooler(inputs_embeds) if self.pooler is not None else None
        return BaseModelOutputWithPooling(last_hidden_state=inputs_embeds, pooler_output=pooled)


class HeadOnly(nn.Module):
    """A transformers model without its body: its own head code on given states, so that no architecture is special."""

    def __init__(self, model: PreTrainedModel, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        setattr(model, model.base_model_prefix, PassThrough(body(model)))
        self.model = model
        self.dtype = dtype

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """The logits, float32."""
        logits: Tensor = self.model(inputs_embeds=states.to(self.dtype), attention_mask=mask).logits
        return logits.float()


class DenseModule(nn.Module):
    """`last_hidden_state`, `attention_mask` -> per pooling (normalised, as pooled), each `[batch, dim]`."""

    def __init__(
        self,
        poolings: tuple[str, ...],
        layers: list[nn.Module],
        token_layers: list[nn.Module] | None = None,
        keep: int | None = None,
    ) -> None:
        super().__init__()
        self.poolings = poolings
        self.layers = nn.Sequential(*layers)
        self.token_layers = nn.Sequential(*(token_layers or []))
        self.keep = keep

    def forward(self, last_hidden_state: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Pool, project, cut, normalise. Several poolings joined by `+` stand side by side in one vector."""
        states = self.token_layers(last_hidden_state)
        outputs: list[Tensor] = []
        for pooling in self.poolings:
            parts = [pool(states, attention_mask, part) for part in pooling.split("+")]
            vector = self.layers(torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0])
            vector = vector if self.keep is None else vector[:, : self.keep]
            # Two outputs must not be one tensor: the product keeps both names in the graph.
            outputs += [normalized(vector), vector * 1.0]
        return tuple(outputs)


class SparseModule(nn.Module):
    """`last_hidden_state`, `attention_mask` -> a weight for every word of the vocabulary, `[batch, vocabulary]`."""

    def __init__(self, head: HeadOnly, *, double_log: bool, pooling: str = "max", max_terms: int | None = None) -> None:
        super().__init__()
        self.head = head
        self.double_log = double_log
        self.pooling = pooling
        self.max_terms = max_terms

    def forward(self, last_hidden_state: Tensor, attention_mask: Tensor) -> Tensor:
        """Maximum or sum over attended tokens, special tokens included; the largest `max_terms` stay."""
        logits = self.head(last_hidden_state, attention_mask)
        # A logit that is masked to zero can win only where every logit is negative, and relu makes that zero anyway.
        masked = logits * attention_mask.unsqueeze(-1).to(logits.dtype)
        # log1p and relu keep order, so that taking the maximum first costs one row instead of one per token.
        weights = self._log(masked.amax(1)) if self.pooling == "max" else self._log(masked).sum(1)
        if self.max_terms is None or self.max_terms >= weights.shape[-1]:
            return weights
        best = weights.topk(self.max_terms, dim=-1)
        return torch.zeros_like(weights).scatter(-1, best.indices, best.values)

    def _log(self, logits: Tensor) -> Tensor:
        once: Tensor = logits.relu().log1p()
        return once.log1p() if self.double_log else once


class TokenWeightsModule(nn.Module):
    """`last_hidden_state` -> `[batch, sequence]`."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, last_hidden_state: Tensor, _: Tensor | None = None) -> Tensor:
        """One weight a token. The mask is not read: whoever reads the weights knows the lengths."""
        weights: Tensor = self.linear(last_hidden_state).relu().squeeze(-1)
        return weights


class TokenVectorsModule(nn.Module):
    """`last_hidden_state` -> `[batch, sequence, dim]`."""

    def __init__(self, layers: list[nn.Module], dim: int, *, normalize: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.dim = dim
        self.normalize = normalize

    def forward(self, last_hidden_state: Tensor, _: Tensor | None = None) -> Tensor:
        """Project, cut, normalise each token. The mask is not read: whoever reads the vectors knows the lengths."""
        vectors: Tensor = self.layers(last_hidden_state)[..., : self.dim]
        return normalized(vectors) if self.normalize else vectors * 1.0


class ClassifierModule(nn.Module):
    """`last_hidden_state`, `attention_mask` -> `[batch, 1]`."""

    def __init__(self, head: HeadOnly, activation: str) -> None:
        super().__init__()
        self.head = head
        self.activation = activation_module(activation)

    def forward(self, last_hidden_state: Tensor, attention_mask: Tensor) -> Tensor:
        """The logit, activated.

        Many of transformers' heads read the first position, which in a row padded on the left is no token: they find
        the first token there.
        """
        first = first_state(last_hidden_state, attention_mask).unsqueeze(1)
        logits = self.head(torch.cat([first, last_hidden_state[:, 1:]], 1), attention_mask)
        # An identity would leave the logit, which may be another output's tensor: the product keeps both names.
        score: Tensor = self.activation(logits) * 1.0
        return score


class LastTokenModule(nn.Module):
    """`last_hidden_state`, `attention_mask` -> `[batch, 1]`: the answer tokens' logits at the last position."""

    def __init__(self, rows: Tensor, bias: Tensor | None, mode: str) -> None:
        super().__init__()
        self.linear = nn.Linear(rows.shape[1], rows.shape[0], bias=bias is not None)
        self.linear.load_state_dict({"weight": rows, **({} if bias is None else {"bias": bias})})
        self.mode = mode

    def forward(self, last_hidden_state: Tensor, attention_mask: Tensor) -> Tensor:
        """Logit, difference, or the probability of yes against no."""
        logits: Tensor = self.linear(last_state(last_hidden_state, attention_mask))
        if self.mode == "logit":
            return logits
        difference = logits[:, :1] - logits[:, 1:]
        return difference.sigmoid() if self.mode == "probability" else difference


def build_head(
    head: HeadModule, folder: Path, model: PreTrainedModel, token_id: TokenId, dtype: torch.dtype
) -> nn.Module:
    """The torch module of a planned head. `model` is consumed where the head's code is its own: it loses its body.

    `dtype` is the model's; what is small beside it is float32 always.
    """
    built: nn.Module
    match head:
        case DensePooling():
            built = DenseModule(
                head.poolings,
                [load_layer(folder, layer) for layer in head.layers],
                [load_layer(folder, layer) for layer in head.token_layers],
                head.keep,
            )
        case SparseMax():
            built = SparseModule(
                HeadOnly(model, dtype), double_log=head.double_log, pooling=head.pooling, max_terms=head.max_terms
            )
        case TokenWeights():
            built = TokenWeightsModule(load_linear_file(folder, head.file))
        case TokenVectors():
            built = TokenVectorsModule(_projection(head, folder), head.dim, normalize=head.normalize)
        case Classifier():
            built = ClassifierModule(HeadOnly(model, dtype), head.activation)
        case LastTokenLogits():
            built = _last_token(head, model, token_id)
        case ProjectedText() | ProjectedImage() | PageVectors():
            raise AssertionError("it is never traced, as its plan says")
    return built


def _projection(head: TokenVectors, folder: Path) -> list[nn.Module]:
    """The layers in front of a token vector's cut."""
    if head.layers:
        return [load_layer(folder, layer) for layer in head.layers]
    if head.file:
        return [load_linear_file(folder, head.file)]
    if head.weight:
        tensors = {}
        for path in weight_paths(folder):
            tensors.update(load_tensors(path))
        bias = tensors.get(head.weight.removesuffix("weight") + "bias")
        return [linear_layer(torch.from_numpy(tensors[head.weight]), None if bias is None else torch.from_numpy(bias))]
    return []


def _last_token(head: LastTokenLogits, model: PreTrainedModel, token_id: TokenId) -> LastTokenModule:
    words = model.get_output_embeddings()
    assert isinstance(words, nn.Linear)
    ids = [token_id(token) for token in (head.yes, head.no) if token is not None]
    bias = None if words.bias is None else words.bias[ids].detach().float()
    return LastTokenModule(words.weight[ids].detach().float(), bias, head.mode)
