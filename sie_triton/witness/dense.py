"""Dense vectors as sentence-transformers computes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sie_frontend.reference import Case
from sie_frontend.rows import Array
from sie_frontend.text.tokenization import TextRow

from sie_triton.planning.families import DensePooling

from .base import Witness, implementation, loading, transformer
from .subject import Outputs, Subject

# sentence-transformers' names of the poolings that a request may choose.
MODES: Mapping[str, str] = {"cls": "cls", "mean": "mean", "last_token": "lasttoken"}


def unit(vector: Array) -> Array:
    """`[dim]` by its length; a zero vector stays zero."""
    wide = vector.astype(np.float64)
    return (wide / max(float(np.linalg.norm(wide)), 1e-12)).astype(np.float32)


class SentenceWitness(Witness):
    """`SentenceTransformer.encode`, as SIE's sentence-transformers adapter calls it: text in, vectors out."""

    compared = ("text to tokens", "prompts of queries and documents", "modules", "vectors")

    def __init__(self, subject: Subject) -> None:
        from sentence_transformers import SentenceTransformer

        self.implementation = implementation("SentenceTransformer")
        self._names = subject.names
        self._runtime = subject.served.profile.runtime
        self._model = SentenceTransformer(str(subject.folder), **loading(subject.trust_remote_code))
        self.body = self._model[0]
        if declared := subject.served.profile.token_limit:
            self.narrow(declared)

    @property
    def limit(self) -> int | None:
        """The model's own, or the bundle's, which SIE sets on the model."""
        found: int | None = self._model.max_seq_length
        return found

    def _call(self, case: Case) -> tuple[str, dict[str, Any]]:
        """The text and the prompt's name, by the adapter's rule: a template takes the place of a named prompt."""
        query = case.document is None
        text = (case.query if query else case.document) or ""
        template = self._runtime.get("query_template" if query else "doc_template")
        if template:
            return template.format(text=text, instruction=self._runtime.get("default_instruction") or ""), {}
        return text, {"prompt_name": "query" if query else "document"}

    def text(self, case: Case) -> str:
        """The text behind its prompt."""
        text, call = self._call(case)
        prompt: str = self._model.prompts.get(call.get("prompt_name") or self._model.default_prompt_name) or ""
        return prompt + text

    def outputs(self, case: Case, row: TextRow) -> Outputs:
        """The vector at unit length, and as it leaves the model; before its last Normalize, where that ends it."""
        text, call = self._call(case)
        seen: list[Array] = []
        watch = self._before_normalizing().register_forward_hook(
            lambda module, args, features: seen.append(features["sentence_embedding"][0].float().numpy())
        )
        try:
            vector = np.asarray(self._model.encode([text], batch_size=1, **call), dtype=np.float32)[0]
        finally:
            watch.remove()
        (before,) = seen
        # A vector that is truncated behind its Normalize has no length of its own any more.
        raw = before if before.shape == vector.shape else vector
        return dict(zip(self._names, (unit(vector), raw), strict=True))

    def _before_normalizing(self) -> torch.nn.Module:
        """The last module that does more than normalise a vector."""
        modules = list(self._model)
        while type(modules[-1]).__name__ in ("Normalize", "Dropout"):
            modules.pop()
        found: torch.nn.Module = modules[-1]
        return found


class PooledWitness(Witness):
    """sentence-transformers' transformer and poolings, for adapters that pool as the bundle says."""

    compared = ("text to tokens", "transformer", "pooling", "vectors")
    not_compared = ("templates and instructions: SIE's contract, not the checkpoint, decides them",)

    def __init__(self, subject: Subject) -> None:
        from sentence_transformers.base.modules import Dense
        from sentence_transformers.sentence_transformer.modules import Pooling

        head = next(head for head in subject.plan.heads if isinstance(head, DensePooling))
        self.implementation = implementation("Transformer and Pooling")
        self.departures = _unapplied_modules(subject)
        self._prepared = subject.prepared
        self._names = subject.names
        both_sides = subject.plan.encoder.bidirectional
        self.body = transformer(subject.folder, subject.trust_remote_code, bidirectional=both_sides)
        width = self.body.get_embedding_dimension()
        self._poolings = [Pooling(width, MODES[mode]) for mode in head.poolings]
        self._layer = None
        if path := subject.served.profile.loadtime.get("dense_projection_path"):
            # SIE applies the linear layer alone, whatever activation its folder names.
            self._layer = Dense.load(str(subject.folder), subfolder=str(path), local_files_only=True).linear

    def text(self, case: Case) -> str:
        """The prepared text."""
        return self._prepared(case)

    def outputs(self, case: Case, row: TextRow) -> Outputs:
        """Each pooling's vector at unit length and as pooled."""
        features = self.body(self.body.preprocess([self.text(case)]))
        arrays: list[Array] = []
        for pooling in self._poolings:
            vector: torch.Tensor = pooling(dict(features))["sentence_embedding"]
            raw = (vector if self._layer is None else self._layer(vector))[0].numpy()
            arrays += [unit(raw), raw]
        return dict(zip(self._names, arrays, strict=True))


def _unapplied_modules(subject: Subject) -> tuple[str, ...]:
    if not (subject.folder / "modules.json").is_file():
        return ()
    adapter = subject.served.profile.adapter_class
    return (f"`modules.json` is not applied: {adapter} pools and normalises as the bundle says",)
