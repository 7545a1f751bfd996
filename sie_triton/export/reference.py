"""Reference outputs: the original checkpoint run by transformers, each row alone and unpadded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from sie_frontend.tokenization import Row
from torch import Tensor

from sie_triton.export.modules import TokenId, body, load_dense_layer, load_linear_file, load_model, projection
from sie_triton.plan import (
    Classifier,
    DensePooling,
    HeadModule,
    LastTokenLogits,
    SparseMax,
    TokenVectors,
    TokenWeights,
    TritonPlan,
)

Array = np.ndarray[Any, np.dtype[Any]]


def compute_reference(
    plan: TritonPlan, folder: Path, rows: Sequence[Row], token_id: TokenId, *, trust_remote_code: bool = False
) -> dict[str, tuple[Array, ...]]:
    """Per output tensor one array per row, without padding; heads in float64 from float32 states.

    The model runs with transformers' own attention and its own head code; of ours, only the rows come in.
    """
    encoder = plan.encoder
    model = load_model(folder, encoder.model_class, attention=None, trust_remote_code=trust_remote_code)
    heads = [_Head(*head, folder, model, token_id) for head in _named_heads(plan)]
    outputs: dict[str, list[Array]] = {tensor.name: [] for tensor in plan.outputs}
    with torch.inference_mode():
        for row in rows:
            for name, array in _run_row(row, model, heads, bidirectional=encoder.bidirectional):
                outputs[name].append(array)
    return {name: tuple(arrays) for name, arrays in outputs.items()}


def _named_heads(plan: TritonPlan) -> Iterator[tuple[HeadModule, list[str]]]:
    """Each head with the names of its outputs; a fused graph's outputs are its heads', one after the other."""
    names = iter([tensor.name for tensor in plan.outputs])
    for head in plan.heads:
        count = {"dense": 2 * len(head.poolings) if isinstance(head, DensePooling) else 0, "sparse": 2}
        yield head, [next(names) for _ in range(count.get(head.kind, 1))]


def origin() -> str:
    """Which programs made the reference."""
    return f"transformers {transformers.__version__}, torch {torch.__version__.split('+')[0]}, float32"


def _run_row(row: Row, model: Any, heads: Sequence[_Head], *, bidirectional: bool) -> Iterator[tuple[str, Array]]:
    length = len(row)
    ids = torch.from_numpy(row.ids)[None]
    mask = (torch.arange(length) < row.attended).long()[None]
    types = {}
    if row.type_ids is not None and getattr(model.config, "type_vocab_size", 0) > 1:
        types = {"token_type_ids": torch.from_numpy(row.type_ids)[None]}
    if bidirectional:
        seen = torch.zeros(1, 1, length, length)
        seen[..., row.attended :] = torch.finfo(torch.float32).min
        states = body(model)(input_ids=ids, attention_mask=seen).last_hidden_state[0]
        logits = None
    else:
        result = model(input_ids=ids, attention_mask=mask, output_hidden_states=False, **types)
        logits = getattr(result, "logits", None)
        states = getattr(result, "last_hidden_state", None)
        states = states[0] if states is not None else None
    for head in heads:
        yield from head.outputs(states, logits, row.attended)


class _Head:
    """One head's arithmetic, written out from its definition."""

    def __init__(self, head: HeadModule, names: list[str], folder: Path, model: Any, token_id: TokenId) -> None:
        self.module = head
        self.names = names
        self.layers: list[Any] = []
        if isinstance(self.module, DensePooling):
            self.layers = [load_dense_layer(folder, layer).double() for layer in self.module.layers]
        elif isinstance(self.module, TokenVectors):
            self.layers = [layer.double() for layer in projection(self.module, folder)]
        elif isinstance(self.module, TokenWeights):
            self.layers = [load_linear_file(folder, self.module.file).double()]
        self.answers = (
            [token_id(t) for t in (self.module.yes, self.module.no) if t]
            if isinstance(self.module, LastTokenLogits)
            else []
        )

    def outputs(self, states: Tensor | None, logits: Tensor | None, attended: int) -> Iterator[tuple[str, Array]]:
        """Named arrays of one row. `states` `[sequence, hidden]`, `logits` with the batch axis of one."""
        module = self.module
        if isinstance(module, DensePooling):
            assert states is not None
            for index, pooling in enumerate(module.poolings):
                vector = self._through(_pooled(states[:attended].double(), pooling))
                unit = vector / max(float(vector.norm()), 1e-12)
                yield self.names[2 * index], unit.float().numpy()
                yield self.names[2 * index + 1], vector.float().numpy()
        elif isinstance(module, SparseMax):
            assert logits is not None
            weights = torch.log1p(torch.relu(logits[0, :attended].double().amax(0)))
            weights = torch.log1p(weights) if module.double_log else weights
            ids = torch.nonzero(weights.float())[:, 0]
            yield self.names[0], ids.numpy()
            yield self.names[1], weights.float()[ids].numpy()
        elif isinstance(module, TokenWeights):
            assert states is not None
            yield self.names[0], torch.relu(self._through(states.double()))[:, 0].float().numpy()
        elif isinstance(module, TokenVectors):
            assert states is not None
            vectors = self._through(states.double())[:, : module.dim]
            if module.normalize:
                vectors = torch.nn.functional.normalize(vectors, dim=-1)
            yield self.names[0], vectors.float().numpy()
        else:
            assert logits is not None
            yield self.names[0], self._score(logits).float().reshape(1).numpy()

    def _through(self, vectors: Tensor) -> Tensor:
        for layer in self.layers:
            vectors = layer(vectors)
        return vectors

    def _score(self, logits: Tensor) -> Tensor:
        module = self.module
        if isinstance(module, Classifier):
            logit = logits[0, 0].double()
            return torch.sigmoid(logit) if module.activation == "sigmoid" else logit
        assert isinstance(module, LastTokenLogits)
        answers = logits[0, -1, self.answers].double()
        if module.mode == "logit":
            return answers[0]
        if module.mode == "probability":
            return torch.softmax(answers, 0)[0]
        return answers[0] - answers[1]


def _pooled(states: Tensor, pooling: str) -> Tensor:
    return {"cls": states[0], "mean": states.mean(0), "last_token": states[-1]}[pooling]
