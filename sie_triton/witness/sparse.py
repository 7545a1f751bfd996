"""Weights over the vocabulary as sentence-transformers computes them."""

from __future__ import annotations

import numpy as np
import torch
from sie_frontend.reference import Case
from sie_frontend.rows import Array
from sie_frontend.text.tokenization import TextRow

from sie_triton.planning.families import SparseMax

from .base import Witness, implementation, loading, transformer
from .subject import Outputs, Subject


class SparseWitness(Witness):
    """`SparseEncoder`: the checkpoint's own where the adapter follows it, else max pooling over its logits."""

    compared: tuple[str, ...] = ("text to tokens", "logits", "pooling", "weights")

    def __init__(self, subject: Subject) -> None:
        from sentence_transformers import SparseEncoder
        from sentence_transformers.base.modules import Router
        from sentence_transformers.sparse_encoder.modules import SpladePooling

        self._followed = subject.served.recipe.follows_modules
        self.implementation = implementation("SparseEncoder")
        if subject.weighed:
            self.compared = (*self.compared, "weights of queries")
        elif subject.plan.query_weights:
            self.not_compared = ("queries: their weights come from the checkpoint's table, without a model",)
        self._prepared = subject.prepared
        self._names = subject.names
        if self._followed:
            self._model = SparseEncoder(str(subject.folder), **loading(subject.trust_remote_code))
            first = self._model[0]
            # A router tells two ways apart; the transformer is on that of documents.
            self.body = first.sub_modules["document"][0] if isinstance(first, Router) else first
            if declared := subject.served.profile.token_limit:
                self.narrow(declared)
            return
        head = next(head for head in subject.plan.heads if isinstance(head, SparseMax))
        pooling = SpladePooling("max", activation_function="log1p_relu" if head.double_log else "relu")
        self.body = transformer(subject.folder, subject.trust_remote_code, "fill-mask")
        self._model = SparseEncoder(modules=[self.body, pooling], device="cpu")
        if (subject.folder / "modules.json").is_file():
            adapter = subject.served.profile.adapter_class
            self.departures = (f"`modules.json` is not applied: {adapter} takes the maximum of log1p(relu) always",)

    @property
    def limit(self) -> int | None:
        """The model's own, or the bundle's, which SIE sets on the model; None where SIE sets it always."""
        found: int | None = self.body.max_seq_length if self._followed else None
        return found

    def _call(self, case: Case) -> tuple[str, str]:
        """The text and its prompt, which is the checkpoint's where the adapter follows it."""
        if not self._followed:
            return self._prepared(case), ""
        query = case.document is None
        prompt: str = self._model.prompts.get("query" if query else "document") or ""
        return (case.query if query else case.document) or "", prompt

    def text(self, case: Case) -> str:
        """The text behind its prompt."""
        text, prompt = self._call(case)
        return prompt + text

    def weighs(self, query: str) -> tuple[Array, Array]:
        """A query's ids, ascending, and their weights, without the model where the checkpoint says so."""
        ids, weights = self.outputs(Case(None, query)).values()
        return ids, weights

    def outputs(self, case: Case, row: TextRow | None = None) -> Outputs:
        """Ids and weights above zero, ids ascending."""
        text, prompt = self._call(case)
        task = "query" if case.document is None else "document"
        found = self._model.encode([text], prompt=prompt, batch_size=1, convert_to_sparse_tensor=False, task=task)
        weights = torch.as_tensor(found)[0].float()
        ids = torch.nonzero(weights > 0)[:, 0]
        return dict(zip(self._names, (ids.numpy(), weights[ids].numpy().astype(np.float32)), strict=True))
