"""The torch modules that are traced: the encoder's thin wrapper and the heads. Shapes are batch first.

Which positions are padding the mask says, and nothing else: rows may be padded on either side.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
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
from transformers.modeling_outputs import BaseModelOutputWithPooling

from sie_triton.checkpoint import load_tensors, weight_paths
from sie_triton.diagnostics import Diagnostic, DiagnosticError, Where
from sie_triton.facts import DenseLayer, Layer, LayerNormLayer
from sie_triton.formats import Precision
from sie_triton.planning.plan import (
    Classifier,
    DensePooling,
    Encoder,
    Fused,
    LastTokenLogits,
    ModelClass,
    Module,
    SparseMax,
    TokenVectors,
    TokenWeights,
)

# A score beside the type's minimum would overflow to -inf in float16, and a row of nothing but -inf (padding whose
# window holds only padding) becomes NaN: half of the minimum masks as well and leaves room.
MASK_SHARE = 0.5
# torch.nn.functional.normalize's own epsilon; SIE and sentence-transformers use the same.
NORMALIZE_EPS = 1e-12
# What sentence-transformers divides by where no token is attended to.
POOLING_EPS = 1e-9
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

TokenId = Callable[[str], int]


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
    if isinstance(layer, DenseLayer):
        return _dense_layer(folder, layer)
    if isinstance(layer, LayerNormLayer):
        norm = nn.LayerNorm(layer.features)
        norm.load_state_dict(
            {key.removeprefix("norm."): value.float() for key, value in _tensors(folder / layer.folder).items()}
        )
        return norm
    return Normalized()


def _tensors(folder: Path) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in load_tensors(folder / "model.safetensors").items()}


def _dense_layer(folder: Path, layer: DenseLayer) -> nn.Module:
    """`linear.weight`, `linear.bias`, `residual.weight`."""
    tensors = _tensors(folder / layer.folder)
    linear = _linear(tensors["linear.weight"], tensors.get("linear.bias"))
    dense: nn.Module = nn.Sequential(linear, activation_module(layer.activation))
    if not layer.residual:
        return dense
    around = Residual(dense, (layer.in_features, layer.out_features))
    if "residual.weight" in tensors:
        around.residual = _linear(tensors["residual.weight"], None)
    return around


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.load_state_dict({"weight": weight.float(), **({} if bias is None else {"bias": bias.float()})})
    return linear


def load_linear_file(folder: Path, name: str) -> nn.Linear:
    """A head in a file of its own, `name.safetensors` or `name.pt`, with `weight` and `bias`."""
    path = next(p for p in (folder / f"{name}.safetensors", folder / f"{name}.pt") if p.is_file())
    tensors = {key: torch.from_numpy(value) for key, value in load_tensors(path).items()}
    return _linear(tensors["weight"], tensors.get("bias"))


def projection(module: TokenVectors, folder: Path) -> list[nn.Module]:
    """The layers in front of a token vector's cut."""
    if module.layers:
        return [load_layer(folder, layer) for layer in module.layers]
    if module.file:
        return [load_linear_file(folder, module.file)]
    if module.weight:
        tensors = {}
        for path in weight_paths(folder):
            tensors.update(load_tensors(path))
        bias = tensors.get(module.weight.removesuffix("weight") + "bias")
        return [_linear(torch.from_numpy(tensors[module.weight]), None if bias is None else torch.from_numpy(bias))]
    return []


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
    if isinstance(module, Encoder):
        return EncoderModule(body(model), bidirectional=module.bidirectional, dtype=dtype).eval()
    if isinstance(module, Fused):
        encoder = build_module(module.encoder, folder, model, token_id, precision)
        heads = [build_module(head, folder, model, token_id, precision) for head in module.heads]
        return FusedModule(encoder, heads).eval()
    built: nn.Module
    if isinstance(module, DensePooling):
        built = DenseModule(
            module.poolings,
            [load_layer(folder, layer) for layer in module.layers],
            [load_layer(folder, layer) for layer in module.token_layers],
            module.keep,
        )
    elif isinstance(module, SparseMax):
        built = SparseModule(
            HeadOnly(model, dtype), double_log=module.double_log, pooling=module.pooling, max_terms=module.max_terms
        )
    elif isinstance(module, TokenWeights):
        built = TokenWeightsModule(load_linear_file(folder, module.file))
    elif isinstance(module, TokenVectors):
        built = TokenVectorsModule(projection(module, folder), module.dim, normalize=module.normalize)
    elif isinstance(module, Classifier):
        built = ClassifierModule(HeadOnly(model, dtype), module.activation)
    else:
        built = _last_token(module, model, token_id)
    return built.eval()


def _last_token(module: LastTokenLogits, model: PreTrainedModel, token_id: TokenId) -> LastTokenModule:
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Linear)
    ids = [token_id(token) for token in (module.yes, module.no) if token is not None]
    bias = None if head.bias is None else head.bias[ids].detach().float()
    return LastTokenModule(head.weight[ids].detach().float(), bias, module.mode)
