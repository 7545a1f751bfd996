"""Token vectors: late interaction and BGE-M3. SIE makes the rows; the states and heads are the witness's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sie_frontend.reference import Case
from sie_frontend.rows import Array
from sie_frontend.text.tokenization import TextRow
from torch import Tensor
from transformers import AutoTokenizer

from sie_triton.planning.families import DensePooling, TokenVectors, TokenWeights

from .base import Witness, implementation, loading, transformer
from .dense import unit
from .subject import Outputs, Subject

_ROWS_ARE_OURS = "markers, lengths and expansion of queries and documents: SIE's contract decides them"


def _features(row: TextRow) -> dict[str, Any]:
    """One row as sentence-transformers' modules take it."""
    mask = (torch.arange(len(row)) < row.attended).long()[None]
    return {"input_ids": torch.from_numpy(row.ids)[None], "attention_mask": mask}


class LateWitness(Witness):
    """The modules of `MultiVectorEncoder`, or the bare transformer with the projection tensor that SIE reads."""

    makes_rows = False

    def __init__(self, subject: Subject) -> None:
        self._head = next(head for head in subject.plan.heads if isinstance(head, TokenVectors))
        self._names = subject.names
        self._prepared = subject.prepared
        self.departures = _own_settings(subject)
        if subject.served.recipe.follows_modules and _lists_layers(subject.folder):
            from sentence_transformers import MultiVectorEncoder

            model = MultiVectorEncoder(str(subject.folder), **loading(subject.trust_remote_code)).eval()
            self._modules = [m for m in model if type(m).__name__ != "MultiVectorMask"]
            # It registers markers as tokens when it loads; SIE inserts their ids and reads the text as it is.
            self._modules[0].processor = AutoTokenizer.from_pretrained(
                subject.folder, local_files_only=True, trust_remote_code=subject.trust_remote_code
            )
            self.implementation = implementation("MultiVectorEncoder")
            self.compared = ("text to tokens", "transformer", "projection", "token vectors")
            self.not_compared = (_ROWS_ARE_OURS,)
        else:
            self._modules = [transformer(subject.folder, subject.trust_remote_code)]
            self.implementation = implementation("Transformer")
            self.compared = ("text to tokens", "transformer", "token vectors")
            self.not_compared = (_ROWS_ARE_OURS, "which tensor is the projection: SIE's contract names it")
        self.body = self._modules[0]
        self._projection = _tensor_projection(subject.folder, self._head.weight) if self._head.weight else None

    def text(self, case: Case) -> str:
        """The text without a marker."""
        return self._prepared(case)

    def outputs(self, case: Case, row: TextRow) -> Outputs:
        """`[tokens, dim]`, cut and normalised as SIE does behind the checkpoint's own chain."""
        features = _features(row)
        for module in self._modules:
            features = module(features)
        vectors: Tensor = features["token_embeddings"][0].double()
        if self._projection is not None:
            vectors = self._projection(vectors)
        vectors = vectors[:, : self._head.dim]
        if self._head.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        return {self._names[0]: vectors.float().numpy()}


def _lists_layers(folder: Path) -> bool:
    """Whether the checkpoint names a projection of its own. Its text is searched, so that no reader can miss one."""
    path = folder / "modules.json"
    return path.is_file() and "Dense" in path.read_text(encoding="utf-8")


def _tensor_projection(folder: Path, name: str) -> Callable[[Tensor], Tensor]:
    """A linear layer made of the checkpoint's own tensors, in float64."""
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        tensors.update(load_file(path))
    weight = tensors[name].double()
    bias = tensors.get(name.removesuffix("weight") + "bias")
    return lambda states: torch.nn.functional.linear(states, weight, None if bias is None else bias.double())


def weight_files(folder: Path) -> list[Path]:
    """The single file that transformers loads, else the shards of its index."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    return [folder / name for name in sorted(set(index["weight_map"].values()))]


def _own_settings(subject: Subject) -> tuple[str, ...]:
    """What the checkpoint says of late interaction itself, where SIE takes the bundle's word."""
    keys = ("query_length", "document_length", "query_prefix", "document_prefix", "query_expansion")
    found = []
    for name in ("config_sentence_transformers.json", "sentence_bert_config.json"):
        path = subject.folder / name
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            found += [f"`{key}` of `{name}` is not read: the bundle decides" for key in keys if f'"{key}"' in text]
    return tuple(found)


class BgeM3Witness(Witness):
    """sentence-transformers' transformer, and BGE-M3's heads read by torch itself."""

    compared = ("text to tokens", "transformer", "vectors", "token weights", "token vectors")
    not_compared = ("how the heads are combined: SIE's contract decides it",)

    def __init__(self, subject: Subject) -> None:
        self.implementation = implementation("Transformer")
        self._heads = subject.plan.heads
        self._names = subject.names
        self._prepared = subject.prepared
        self.body = transformer(subject.folder, subject.trust_remote_code)
        self._linear = {
            head.file: _linear_file(subject.folder, head.file)
            for head in self._heads
            if isinstance(head, TokenWeights | TokenVectors) and head.file
        }

    def text(self, case: Case) -> str:
        """The text behind its instruction."""
        return self._prepared(case)

    def outputs(self, case: Case, row: TextRow) -> Outputs:
        """Every head's arrays, in the order of the plan."""
        states: Tensor = self.body(_features(row))["token_embeddings"][0].double()
        arrays: list[Array] = []
        for head in self._heads:
            if isinstance(head, DensePooling):
                raw = states[0].float().numpy()
                arrays += [unit(raw), raw]
            elif isinstance(head, TokenWeights):
                arrays.append(torch.relu(self._linear[head.file](states))[:, 0].float().numpy())
            elif isinstance(head, TokenVectors) and head.file:
                vectors = self._linear[head.file](states)[:, : head.dim]
                vectors = torch.nn.functional.normalize(vectors, dim=-1) if head.normalize else vectors
                arrays.append(vectors.float().numpy())
        return dict(zip(self._names, arrays, strict=True))


def _linear_file(folder: Path, name: str) -> Callable[[Tensor], Tensor]:
    """`name.safetensors` or `name.pt` with `weight` and `bias`, in float64; tensors only, nothing is executed."""
    from safetensors.torch import load_file

    plain = folder / f"{name}.safetensors"
    tensors = load_file(plain) if plain.is_file() else torch.load(folder / f"{name}.pt", weights_only=True)
    bias = tensors.get("bias")
    return lambda states: torch.nn.functional.linear(
        states, tensors["weight"].double(), None if bias is None else bias.double()
    )
